//! The writers: what waits goes to the slow store, some at a time, and waits again if that fails.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rootcellar_digest::{Digest, DigestSet};

use super::{Behind, SLOW, blocking};
use crate::compose::transfer::{batches, fetch, verify};
use crate::{ErrorKind, Result, Verified};

/// Digests that a writer takes at once.
const TAKEN_MAX: usize = 1000;
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

impl Behind {
    pub(super) async fn keep_writing(&self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let mut work = pin!(self.work.notified());
            work.as_mut().enable();
            let taken = self.take();
            if taken.is_empty() {
                work.await;
            } else if self.write(taken).await {
                pause = PAUSE_FIRST;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// Takes what one writer writes next.
    fn take(&self) -> Vec<Digest> {
        let mut queue = self.queue();
        let count = queue.waiting.len().div_ceil(self.options.writers.max(1)).min(TAKEN_MAX);
        queue.waiting.drain(..count).collect()
    }

    /// Writes blobs; says whether all went well. What did not waits again.
    async fn write(&self, taken: Vec<Digest>) -> bool {
        let mut failed: DigestSet = taken.iter().copied().collect();
        let ended = self.write_missing(&taken, &mut failed).await;
        self.note_slow(&ended);
        if let Err(error) = &ended {
            tracing::debug!(%error, blobs = failed.len(), store = %self.slow, "blobs could not be written, and wait");
        }
        if failed.is_empty() {
            if !self.queue().waiting.is_empty() {
                // The others may sleep since a time when nothing could be written.
                self.work.notify_waiters();
            }
            return true;
        }
        self.counters.failures.fetch_add(failed.len() as u64, Ordering::Relaxed);
        self.queue().waiting.extend(failed);
        false
    }

    /// Takes out of `failed` what was written, or was there.
    async fn write_missing(&self, taken: &[Digest], failed: &mut DigestSet) -> Result<()> {
        let missing = self.slow.find_missing(taken).await?;
        let are_missing: DigestSet = missing.iter().copied().collect();
        let present: Vec<Digest> = taken
            .iter()
            .copied()
            .filter(|digest| !are_missing.contains(digest))
            .collect();
        self.written(&present, failed).await?;
        for batch in batches(&missing) {
            self.write_batch(&batch, failed).await?;
        }
        Ok(())
    }

    async fn write_batch(&self, batch: &[Digest], failed: &mut DigestSet) -> Result<()> {
        let (blobs, lost) = self.contents(batch).await?;
        if !lost.is_empty() {
            self.give_up(&lost).await?;
            failed.retain(|digest| !lost.contains(digest));
        }
        let digests: Vec<Digest> = blobs.iter().map(Verified::digest).collect();
        let outcomes = match blobs.len() {
            1 => vec![self.slow.put(blobs.into_iter().next().expect("there is one")).await],
            _ => self.slow.put_many(blobs).await,
        };
        let (mut written, mut first_error) = (Vec::new(), None);
        for (digest, outcome) in digests.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => written.push(digest),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        self.written(&written, failed).await?;
        first_error.map_or(Ok(()), Err)
    }

    async fn written(&self, written: &[Digest], failed: &mut DigestSet) -> Result<()> {
        self.counters.written.fetch_add(written.len() as u64, Ordering::Relaxed);
        self.done(written).await?;
        for digest in written {
            failed.remove(digest);
        }
        Ok(())
    }

    /// The contents of a batch, and what the fast store lost of it.
    async fn contents(&self, batch: &[Digest]) -> Result<(Vec<Verified>, Vec<Digest>)> {
        let (mut blobs, mut lost, mut to_read) = (Vec::new(), Vec::new(), Vec::new());
        {
            let queue = self.queue();
            for digest in batch {
                match queue.entries.get(digest).and_then(|entry| entry.blob.clone()) {
                    Some(blob) => blobs.push(blob),
                    None => to_read.push(*digest),
                }
            }
        }
        let read = match to_read.as_slice() {
            [one] => vec![fetch(&*self.fast, *one, &self.spool).await],
            many => {
                let contents = self.fast.get_many(many).await;
                many.iter()
                    .zip(contents)
                    .map(|(digest, content)| verify(*digest, content))
                    .collect()
            }
        };
        for (digest, outcome) in to_read.into_iter().zip(read) {
            match outcome {
                Ok(blob) => blobs.push(blob),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DataLoss) => lost.push(digest),
                Err(error) => return Err(error),
            }
        }
        Ok((blobs, lost))
    }

    /// Lets go of blobs that need not wait any more.
    pub(super) async fn done(&self, digests: &[Digest]) -> Result<()> {
        if digests.is_empty() {
            return Ok(());
        }
        let (list, done) = (
            self.list.clone(),
            digests.iter().map(|digest| (SLOW, *digest)).collect::<Vec<_>>(),
        );
        blocking(move || list.done(&done)).await?;
        let mut queue = self.queue();
        digests.iter().for_each(|digest| queue.remove(digest));
        drop(queue);
        self.fewer.notify_waiters();
        Ok(())
    }
}
