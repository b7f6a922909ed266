//! Who hashes and writes for uploads: threads that take two of them at a time, if as many wait.
//!
//! ```text
//!   upload 1 ─┐                     ┌─ a slice of each is hashed, in turns, then written ─┬──> upload 1 goes on
//!             ├─ waiting ── thread ─┤                      ...                            │
//!   upload 2 ─┘                     └─────────────────────────────────────────────────────┴──> upload 2 goes on
//! ```
//!
//! Two contents in turns take less time than one after the other ([`Hasher::update_both`](rootcellar_digest::Hasher::update_both)). Nobody
//! waits for a partner: a thread takes what is there when it begins. So pairs are made where uploads wait for processors, and not where
//! there are processors for all. (0009 has what came of waiting.)

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::written::Written;
use crate::Result;

/// What is hashed before it is written: what two uploads have of it fits a processor's own cache.
const SLICE_BYTES: usize = 128 * 1024;

/// What waits to be hashed and written, of all uploads of a spool.
#[derive(Debug, Default)]
pub(super) struct Pairs(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Threads that have not begun yet. Each will take two jobs; there are never more jobs than that.
    threads: usize,
}

/// Pieces that come next in a spool file.
#[derive(Debug)]
struct Job {
    written: Box<Written>,
    pieces: VecDeque<Bytes>,
    outcome: Result<()>,
    done: oneshot::Sender<Result<Box<Written>>>,
}

/// A thread that was called for. What it has to do is done when this is dropped: there, or by whoever ends a runtime in which it has not
/// begun, so that nobody counts on it in vain.
struct Called(Arc<Pairs>);

impl Pairs {
    /// Has pieces hashed and written by another thread. That goes on if nobody waits for it.
    pub(super) fn write(
        self: &Arc<Self>,
        written: Box<Written>,
        pieces: Vec<Bytes>,
    ) -> oneshot::Receiver<Result<Box<Written>>> {
        let (done, outcome) = oneshot::channel();
        let mut waiting = self.waiting();
        waiting.jobs.push_back(Job {
            written,
            pieces: pieces.into(),
            outcome: Ok(()),
            done,
        });
        if waiting.jobs.len() > 2 * waiting.threads {
            waiting.threads += 1;
            drop(waiting);
            let called = Called(self.clone());
            tokio::task::spawn_blocking(move || drop(called));
        }
        outcome
    }

    /// What a thread that was called for is to do: nothing, if others were quicker.
    fn take(&self) -> [Option<Job>; 2] {
        let mut waiting = self.waiting();
        waiting.threads -= 1;
        [waiting.jobs.pop_front(), waiting.jobs.pop_front()]
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        match self.0.take() {
            [Some(one), Some(other)] => Job::run_both(one, other),
            [Some(alone), None] | [None, Some(alone)] => alone.run(),
            [None, None] => {}
        }
    }
}

impl Job {
    fn run(mut self) {
        while !self.pieces.is_empty() {
            let slice = self.next_slice();
            self.written.hash(&slice);
            self.write(&slice);
        }
        self.end();
    }

    fn run_both(mut one: Self, mut other: Self) {
        while !one.pieces.is_empty() || !other.pieces.is_empty() {
            let slices = [one.next_slice(), other.next_slice()];
            let written = [&mut *one.written, &mut *other.written];
            Written::hash_both(written, slices.each_ref().map(Vec::as_slice));
            one.write(&slices[0]);
            other.write(&slices[1]);
        }
        one.end();
        other.end();
    }

    fn next_slice(&mut self) -> Vec<Bytes> {
        let mut bytes = 0;
        let mut slice = Vec::new();
        while bytes < SLICE_BYTES
            && let Some(piece) = self.pieces.pop_front()
        {
            bytes += piece.len();
            slice.push(piece);
        }
        slice
    }

    fn write(&mut self, slice: &[Bytes]) {
        if self.outcome.is_ok() {
            self.outcome = self.written.write_hashed(slice);
        }
    }

    fn end(self) {
        let Self {
            outcome, written, done, ..
        } = self;
        // Nobody is there any more if the upload was dropped; its file goes with what comes back.
        drop(done.send(outcome.map(|()| written)));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use rootcellar_digest::{Digest, DigestFunction};

    use crate::testing::Seeded;
    use crate::{ByteRange, Spool, Verified};

    use super::*;

    const LEN: usize = 1 << 20;

    fn spool() -> (Spool, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Spool::new(dir.path()), dir)
    }

    /// Uploads content in pieces of that size.
    async fn upload(spool: Spool, function: DigestFunction, content: Bytes, piece_bytes: usize) -> Result<Verified> {
        let mut ingest = spool.ingest(Digest::of(function, &content))?;
        for at in (0..content.len()).step_by(piece_bytes) {
            let end = content.len().min(at + piece_bytes);
            ingest.write(content.slice(at..end)).await?;
        }
        ingest.finish()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn uploads_of_all_sizes_and_functions_go_side_by_side() {
        let (spool, _dir) = spool();
        let upload_and_read = async |number: usize| {
            let function = [DigestFunction::Sha256, DigestFunction::Sha256, DigestFunction::Blake3][number % 3];
            let piece_bytes = [16 * 1024, 100_000, 3 << 20][number / 3 % 3];
            let content = Seeded::new(number as u64).bytes(LEN + number * 7919);
            let verified = upload(spool.clone(), function, content.clone(), piece_bytes)
                .await
                .unwrap();
            let blob = verified.open(ByteRange::ALL).unwrap();
            assert_eq!(blob.into_bytes().await.unwrap(), content);
        };
        for _ in 0..5 {
            join_all((0..11).map(&upload_and_read)).await;
            assert!(spool.pairs.waiting().jobs.is_empty());
        }
    }

    /// Who comes next counts on threads that were called for.
    #[test]
    fn a_runtime_that_ends_leaves_nobody_waiting() {
        let (spool, _dir) = spool();
        let content = Seeded::new(1).bytes(LEN);
        for _ in 0..20 {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .max_blocking_threads(1)
                .build()
                .unwrap();
            for _ in 0..4 {
                runtime.spawn(upload(
                    spool.clone(),
                    DigestFunction::Sha256,
                    content.clone(),
                    64 * 1024,
                ));
            }
            runtime.shutdown_background();
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let upload = upload(spool, DigestFunction::Sha256, content, 64 * 1024);
        runtime.block_on(upload).unwrap();
    }
}
