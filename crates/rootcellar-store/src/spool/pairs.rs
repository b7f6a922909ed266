//! Who hashes and writes for uploads: threads that take two of them at a time, if as many wait.
//!
//! ```text
//!   upload 1 ─┐                     ┌─ a slice of each is hashed, in turns, then written ─┬──> upload 1 goes on
//!             ├─ waiting ── thread ─┤                      ...                            │
//!   upload 2 ─┘                     └─────────────────────────────────────────────────────┴──> upload 2 goes on
//! ```
//!
//! Two contents in turns take less time than one after the other ([`Hasher::update_both`](rootcellar_digest::Hasher::update_both)). Nobody
//! waits for a partner: a thread takes what is there when it begins, so pairs are made where uploads wait for threads. (0009 has what came
//! of waiting.) And nobody waits for a partner's room: who has none goes alone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
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

/// A thread that was called for. If its runtime ends before it begins, whoever drops it does what it was to do: nobody counts on it in vain.
struct Called {
    pairs: Arc<Pairs>,
    has_begun: bool,
}

impl Pairs {
    /// Has pieces hashed and written by another thread. That goes on if nobody waits for it.
    pub(super) fn write(
        self: &Arc<Self>,
        written: Box<Written>,
        pieces: Vec<Bytes>,
    ) -> oneshot::Receiver<Result<Box<Written>>> {
        let (done, outcome) = oneshot::channel();
        let job = Job {
            written,
            pieces: pieces.into(),
            outcome: Ok(()),
            done,
        };
        if !job.written.gains_in_turns() {
            tokio::task::spawn_blocking(move || job.run());
            return outcome;
        }
        let mut waiting = self.waiting();
        waiting.jobs.push_back(job);
        if waiting.jobs.len() > 2 * waiting.threads {
            waiting.threads += 1;
            drop(waiting);
            let called = Called {
                pairs: self.clone(),
                has_begun: false,
            };
            tokio::task::spawn_blocking(move || called.begin());
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

impl Called {
    fn begin(mut self) {
        self.has_begun = true;
        self.run();
    }

    fn run(&self) {
        let [one, other] = self.pairs.take();
        match (one, other) {
            (Some(one), Some(other)) => Job::run_both(one, other),
            (alone, _) => drop(alone.map(Job::run)),
        }
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        if !self.has_begun {
            self.run();
        }
    }
}

impl Job {
    fn run(mut self) {
        while !self.is_over() {
            let slice = self.next_slice();
            self.written.hash(&slice);
            self.write(&slice);
        }
        self.end();
    }

    fn run_both(mut one: Self, mut other: Self) {
        let has_room = [one.has_room(), other.has_room()];
        if has_room == [false, false] {
            return Self::run_apart(one, other);
        }
        while has_room == [true, true] && !one.is_over() && !other.is_over() {
            let slices = [one.next_slice(), other.next_slice()];
            let written = [&mut *one.written, &mut *other.written];
            Written::hash_both(written, slices.each_ref().map(Vec::as_slice));
            one.write(&slices[0]);
            other.write(&slices[1]);
        }
        let (first, second) = match one.is_over() || !has_room[1] {
            true => (one, other),
            false => (other, one),
        };
        first.run();
        second.run();
    }

    /// Both wait for room: on a thread each.
    fn run_apart(one: Self, other: Self) {
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || other.run())),
            // The runtime has ended, and nobody waits for what is done here.
            Err(_) => other.run(),
        }
        one.run();
    }

    /// Whether all its pieces can be written without waiting for room.
    fn has_room(&mut self) -> bool {
        let len = self.pieces.iter().map(|piece| piece.len() as u64).sum();
        match self.written.reserve_at_once(len) {
            Ok(has_room) => has_room,
            Err(error) => {
                self.outcome = Err(error);
                true
            }
        }
    }

    /// Whether all is written, or need not be.
    fn is_over(&self) -> bool {
        self.pieces.is_empty() || self.outcome.is_err() || self.done.is_closed()
    }

    fn next_slice(&mut self) -> Vec<Bytes> {
        let mut left = SLICE_BYTES;
        let mut slice = Vec::new();
        while left > 0
            && let Some(mut piece) = self.pieces.pop_front()
        {
            let rest = piece.split_off(piece.len().min(left));
            if !rest.is_empty() {
                self.pieces.push_front(rest);
            }
            left -= piece.len();
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
    use std::time::Duration;

    use futures_util::future::join_all;
    use rootcellar_digest::{Digest, DigestFunction};
    use tokio::task::{JoinHandle, spawn_blocking};

    use super::super::hashing::Hashing;
    use super::*;
    use crate::budget::Budget;
    use crate::io::OsDisk;
    use crate::testing::Seeded;
    use crate::{ByteCounter, ByteRange, ErrorKind, Spool, Verified};

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

    type Outcome = oneshot::Receiver<Result<Box<Written>>>;

    /// A job that writes this content.
    fn job(spool: &Spool, content: &Bytes) -> (Job, Outcome) {
        let (done, outcome) = oneshot::channel();
        let len = content.len() as u64;
        let hashing = Hashing::new(DigestFunction::Sha256, len);
        let job = Job {
            written: Box::new(Written::new(hashing, spool.create(len).unwrap())),
            pieces: content.chunks(LEN / 7).map(Bytes::copy_from_slice).collect(),
            outcome: Ok(()),
            done,
        };
        (job, outcome)
    }

    /// A spool without room, and who could make some.
    fn full_spool() -> (Spool, Arc<Budget>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let budget = Arc::new(Budget::new(LEN as u64 / 2, ByteCounter::default()));
        let spool = Spool::within(Arc::new(OsDisk), dir.path().to_owned(), budget.clone());
        (spool, budget, dir)
    }

    async fn is_whole(outcome: Outcome, content: &Bytes) {
        let written = outcome.await.unwrap().unwrap();
        let digest = Digest::of(DigestFunction::Sha256, content);
        written.hashing.check(digest).unwrap();
        assert_eq!(written.partial.written, content.len() as u64);
    }

    /// Tells whoever waits for room that there will be none, until the thread has ended.
    async fn is_refused(outcome: Outcome, budget: &Budget, thread: JoinHandle<()>) {
        while !thread.is_finished() {
            budget.refuse("none in this test");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(outcome.await.unwrap().unwrap_err().kind(), ErrorKind::Exhausted);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_no_matter_to_the_partner() {
        let (spool, dir) = spool();
        std::fs::write(dir.path().join("other"), "").unwrap();
        let read_only = std::fs::File::open(dir.path().join("other")).unwrap();
        let contents = [1, 2].map(|seed| Seeded::new(seed).bytes(LEN));
        for bad_one in [0, 1] {
            let mut jobs = contents.each_ref().map(|content| job(&spool, content));
            jobs[bad_one].0.written.partial.file = Arc::new(read_only.try_clone().unwrap());
            let [(one, outcome), (other, others)] = jobs;
            Job::run_both(one, other);
            let [bad, good] = if bad_one == 0 {
                [outcome, others]
            } else {
                [others, outcome]
            };
            assert!(bad.await.unwrap().is_err());
            is_whole(good, &contents[1 - bad_one]).await;
        }
    }

    #[tokio::test]
    async fn who_waits_for_room_does_not_hold_up_the_partner() {
        let (spool, _dir) = spool();
        let (full, budget, _full_dir) = full_spool();
        let content = Seeded::new(3).bytes(LEN);
        for has_room_first in [true, false] {
            let (without, refused) = job(&full, &content);
            let (with, written) = job(&spool, &content);
            let thread = match has_room_first {
                true => spawn_blocking(|| Job::run_both(with, without)),
                false => spawn_blocking(|| Job::run_both(without, with)),
            };
            is_whole(written, &content).await;
            is_refused(refused, &budget, thread).await;
        }
    }

    #[tokio::test]
    async fn two_that_wait_for_room_do_not_wait_for_each_other() {
        let [(full, budget, _dir), (other_full, other_budget, _other_dir)] = [full_spool(), full_spool()];
        let content = Seeded::new(4).bytes(LEN);
        let ((one, refused), (other, others_refused)) = (job(&full, &content), job(&other_full, &content));
        let thread = spawn_blocking(|| Job::run_both(one, other));
        let others = async {
            while other_budget.wanted() == 0 || budget.wanted() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            other_budget.refuse("none in this test");
            others_refused.await.unwrap().unwrap_err()
        };
        let error = tokio::time::timeout(Duration::from_secs(20), others).await.unwrap();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        is_refused(refused, &budget, thread).await;
    }

    #[test]
    fn a_thread_is_called_for_each_two_that_gain_by_it() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (spool, _dir) = spool();
            let pairs = Arc::new(Pairs::default());
            let content = Seeded::new(5).bytes(LEN);
            let gain = Hashing::new(DigestFunction::Sha256, 0).gains_in_turns();
            let (begin, begun) = std::sync::mpsc::channel::<()>();
            let busy = spawn_blocking(move || begun.recv());
            let outcomes = [1, 2, 3].map(|_| {
                let (job, _) = job(&spool, &content);
                pairs.write(job.written, job.pieces.into())
            });
            let jobs = pairs.waiting().jobs.len();
            let threads = pairs.waiting().threads;
            assert_eq!((jobs, threads), if gain { (3, 2) } else { (0, 0) });
            begin.send(()).unwrap();
            busy.await.unwrap().unwrap();
            for outcome in outcomes {
                is_whole(outcome, &content).await;
            }
        });
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
