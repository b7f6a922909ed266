//! Putting blobs: looked up, made ready, queued, and waited for.

use std::sync::Arc;

use rootcellar_digest::Digest;
use tokio::sync::oneshot;

use super::commit::{COMMIT_BLOBS, COMMIT_BYTES, Request};
use super::core::Engine;
use super::lanes::Lane;
use crate::{Content, Error, ErrorKind, Result, Verified};

impl Engine {
    pub(super) async fn put_many(self: &Arc<Self>, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let mut outcomes: Vec<Result<()>> = blobs.iter().map(|_| Ok(())).collect();
        let is_new = self.are_new(&blobs);
        let (mut items, mut ready) = (Vec::with_capacity(blobs.len()), Vec::with_capacity(blobs.len()));
        for (at, blob) in blobs.into_iter().enumerate() {
            if !is_new[at] {
                continue;
            }
            match self.make_ready(blob).await {
                Ok(blob) => {
                    items.push(at);
                    ready.push(blob);
                }
                Err(error) => outcomes[at] = Err(error),
            }
        }
        if ready.is_empty() {
            return outcomes;
        }
        let submitted: Vec<Submitted> = portions(ready).into_iter().map(|blobs| self.submit(blobs)).collect();
        let mut items = items.into_iter();
        for portion in submitted {
            // In this order: a zip takes one more of what comes first.
            for (outcome, at) in portion.wait().await.into_iter().zip(items.by_ref()) {
                outcomes[at] = outcome;
            }
        }
        outcomes
    }

    /// Which blobs have to be stored. The others are used.
    fn are_new(&self, blobs: &[Verified]) -> Vec<bool> {
        let digests: Vec<Digest> = blobs.iter().map(Verified::digest).collect();
        let mut is_new = self.are_absent(&digests);
        for (is_new, digest) in is_new.iter_mut().zip(&digests) {
            *is_new &= !digest.is_empty_blob();
        }
        is_new
    }

    /// Brings content that the layout wants as a file into one.
    async fn make_ready(self: &Arc<Self>, blob: Verified) -> Result<Verified> {
        if blob.digest().size_bytes() > self.budget.bytes_max() {
            let reason = format!(
                "the blob exceeds the store's whole size of {} bytes",
                self.budget.bytes_max()
            );
            return Err(Error::new(ErrorKind::Exhausted, "put", reason).on(blob.digest()));
        }
        let is_in_memory = matches!(blob.content(), Content::Bytes(_));
        if !is_in_memory || blob.digest().size_bytes() <= self.facts.file_above_bytes {
            return Ok(blob);
        }
        let spool = move |engine: &Arc<Self>| engine.spool_content(&blob);
        self.hop(spool).await
    }

    pub(super) fn spool_content(&self, blob: &Verified) -> Result<Verified> {
        match blob.content() {
            Content::Bytes(bytes) => {
                let spooled = self.spool.to_file(blob, bytes);
                spooled.map_err(|error| error.on(blob.digest()))
            }
            Content::Spooled(_) | Content::Part(..) => Ok(blob.clone()),
        }
    }

    /// Queues blobs for the commit lane.
    pub(super) fn submit(&self, blobs: Vec<Verified>) -> Submitted {
        let count = blobs.len();
        let (reply, outcomes) = oneshot::channel();
        self.queue.push(Request { blobs, reply });
        self.waker.wake(Lane::Commit);
        Submitted { count, outcomes }
    }
}

/// Cuts what is put into requests of which a commit takes one or more, so that no more room is needed at once than for one of them.
fn portions(blobs: Vec<Verified>) -> Vec<Vec<Verified>> {
    let bytes: u64 = blobs.iter().map(|blob| blob.digest().size_bytes()).sum();
    if bytes <= COMMIT_BYTES && blobs.len() <= COMMIT_BLOBS {
        return vec![blobs];
    }
    let mut portions = Vec::with_capacity(1);
    let (mut portion, mut bytes) = (Vec::new(), 0);
    for blob in blobs {
        let size = blob.digest().size_bytes();
        if !portion.is_empty() && (bytes + size > COMMIT_BYTES || portion.len() == COMMIT_BLOBS) {
            portions.push(std::mem::take(&mut portion));
            bytes = 0;
        }
        bytes += size;
        portion.push(blob);
    }
    portions.push(portion);
    portions
}

/// Blobs that wait for a commit.
#[derive(Debug)]
pub(super) struct Submitted {
    count: usize,
    outcomes: oneshot::Receiver<Vec<Result<()>>>,
}

impl Submitted {
    /// One outcome for each blob.
    pub(super) async fn wait(self) -> Vec<Result<()>> {
        let closed = || Error::new(ErrorKind::Unavailable, "put", "the store was closed meanwhile");
        match self.outcomes.await {
            Ok(outcomes) => outcomes,
            Err(_) => (0..self.count).map(|_| Err(closed())).collect(),
        }
    }

    /// The outcomes, if the commit has taken place.
    #[cfg(feature = "testing")]
    pub(super) fn try_wait(&mut self) -> Option<Vec<Result<()>>> {
        self.outcomes.try_recv().ok()
    }
}
