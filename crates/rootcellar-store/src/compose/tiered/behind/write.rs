//! The writers: what waits goes to the slow store, some at a time, and waits again if that fails.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rootcellar_digest::{Digest, DigestSet};

use super::queue::Queue;
use super::{Behind, SLOW, blocking};
use crate::compose::transfer::{batches, fetch, verify};
use crate::{Error, ErrorKind, Result, Verified};

/// Digests that a writer takes at once.
const TAKEN_MAX: usize = 1000;
/// How often the slow store may call a blob invalid until that is believed: for half a minute.
const REFUSALS_MAX: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Blobs that somebody writes. Those that are left when it is dropped wait again.
struct Taking<'a> {
    behind: &'a Behind,
    left: DigestSet,
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        let mut queue = self.behind.queue();
        let are_left = !self.left.is_empty();
        self.left.drain().for_each(|digest| queue.put_back(digest));
        drop(queue);
        self.behind.fewer.notify_waiters();
        if are_left {
            // Somebody may have seen that they were taken, and sleep.
            self.behind.work.notify_waiters();
        }
    }
}

impl Behind {
    pub(super) async fn keep_writing(&self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let mut work = pin!(self.work.notified());
            work.as_mut().enable();
            let (taken, next_due) = {
                let mut queue = self.queue();
                (queue.take(self.options.writers, TAKEN_MAX), queue.next_due())
            };
            if taken.is_empty() {
                match next_due {
                    // Whichever comes first.
                    Some(due) => drop(tokio::time::timeout_at(due, work).await),
                    None => work.await,
                }
                continue;
            }
            if next_due.is_some() {
                // The others may sleep since a time when nothing could be written.
                self.work.notify_waiters();
            }
            match self.write(taken).await {
                Ok(()) => pause = PAUSE_FIRST,
                Err(error) => {
                    tracing::debug!(%error, store = %self.slow, "blobs could not be written, and wait");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Writes those of these blobs that wait, before their turn, and waits for those that somebody writes just now. What the slow store
    /// refused before is left; that a blob could not be written is no error.
    ///
    /// # Errors
    /// If the slow store does not answer.
    pub(in crate::compose::tiered) async fn write_now(&self, digests: &[Digest]) -> Result<()> {
        let (mut claimed, mut others) = (Vec::new(), Vec::new());
        {
            let mut queue = self.queue();
            for digest in digests {
                match queue.taken_since(digest) {
                    Some(since) => others.push((*digest, since)),
                    None => claimed.extend(queue.claim_new(digest).then_some(*digest)),
                }
            }
        }
        if !claimed.is_empty() {
            self.write(claimed).await?;
        }
        let is_taken = |queue: &Queue| {
            let mut others = others.iter();
            others.any(|(digest, since)| queue.taken_since(digest) == Some(*since))
        };
        self.wait_while(is_taken).await;
        Ok(())
    }

    /// Writes blobs that were taken.
    ///
    /// # Errors
    /// If the slow store does not answer, or if what was written cannot be noted. What is left waits again.
    async fn write(&self, taken: Vec<Digest>) -> Result<()> {
        let mut taking = Taking {
            behind: self,
            left: taken.iter().copied().collect(),
        };
        let ended = self.write_parts(taken, &mut taking.left).await;
        self.note_slow(&ended);
        if let Err(error) = &ended {
            self.counters
                .failures
                .fetch_add(taking.left.len() as u64, Ordering::Relaxed);
            self.queue().last_failure = Some(error.to_string());
        }
        ended
    }

    /// Takes out of `left` what was written, or was there, or is somebody's to look at. A question that the slow store calls
    /// invalid is asked again in halves: it is about one blob, and the others are not to wait for it.
    async fn write_parts(&self, taken: Vec<Digest>, left: &mut DigestSet) -> Result<()> {
        let mut parts = vec![taken];
        while let Some(part) = parts.pop() {
            let missing = match self.slow.find_missing(&part).await {
                Ok(missing) => missing,
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                Err(error) if error.kind() == ErrorKind::InvalidArgument && part.len() > 1 => {
                    parts.extend(part.chunks(part.len().div_ceil(2)).map(<[Digest]>::to_vec));
                    continue;
                }
                Err(error) => {
                    for digest in part {
                        self.refused(digest, &error, left).await?;
                    }
                    continue;
                }
            };
            let are_missing: DigestSet = missing.iter().copied().collect();
            let present = part
                .into_iter()
                .filter(|digest| !are_missing.contains(digest))
                .collect();
            self.written(present, left).await?;
            for batch in batches(&missing) {
                self.write_batch(&batch, left).await?;
            }
        }
        Ok(())
    }

    async fn write_batch(&self, batch: &[Digest], left: &mut DigestSet) -> Result<()> {
        let (blobs, lost) = self.contents(batch).await?;
        if !lost.is_empty() {
            self.give_up(&lost).await?;
            left.retain(|digest| !lost.contains(digest));
        }
        let digests: Vec<Digest> = blobs.iter().map(Verified::digest).collect();
        let outcomes = match blobs.len() {
            1 => vec![self.slow.put(blobs.into_iter().next().expect("there is one")).await],
            _ => self.slow.put_many(blobs).await,
        };
        let (mut written, mut refused, mut unavailable) = (Vec::new(), Vec::new(), None);
        for (digest, outcome) in digests.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => written.push(digest),
                Err(error) if error.kind() == ErrorKind::Unavailable => unavailable = Some(error),
                Err(error) => refused.push((digest, error)),
            }
        }
        self.written(written, left).await?;
        for (digest, error) in refused {
            self.refused(digest, &error, left).await?;
        }
        unavailable.map_or(Ok(()), Err)
    }

    /// The slow store answered, and did not take a blob. It is tried again later, or given up: what it calls invalid again and again.
    async fn refused(&self, digest: Digest, error: &Error, left: &mut DigestSet) -> Result<()> {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        left.remove(&digest);
        let refusals = {
            let mut queue = self.queue();
            queue.last_failure = Some(error.to_string());
            queue.defer(digest)
        };
        if refusals == 1 {
            tracing::warn!(%digest, %error, slow = %self.slow, "a blob that the slow store did not take waits, and is tried again");
        }
        if refusals >= REFUSALS_MAX && error.kind() == ErrorKind::InvalidArgument {
            return self.give_up_refused(digest).await;
        }
        self.fewer.notify_waiters();
        self.work.notify_waiters();
        Ok(())
    }

    pub(super) async fn give_up_refused(&self, digest: Digest) -> Result<()> {
        let why = self.queue().last_failure.clone();
        tracing::error!(%digest, why, slow = %self.slow, "a blob that the slow store refuses is not written there");
        self.counters.lost.fetch_add(1, Ordering::Relaxed);
        self.done(&[digest]).await
    }

    async fn written(&self, written: Vec<Digest>, left: &mut DigestSet) -> Result<()> {
        self.counters.written.fetch_add(written.len() as u64, Ordering::Relaxed);
        self.done(&written).await?;
        for digest in written {
            left.remove(&digest);
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
