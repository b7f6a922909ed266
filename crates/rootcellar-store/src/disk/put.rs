//! Putting blobs: a batch is claimed, makes room, is written, synced and published in one hop to the disk.
//!
//! ```text
//! claim ──> room ──> content in tmp/, 0444 ──[fdatasync]──> link ──[fsync of each directory]──> index ──> acknowledged
//! ```
//!
//! The steps in brackets are those of [`Durability::Always`](super::Durability::Always). A blob that another put has claimed is
//! waited for, and put after all if that one failed. A caller that goes away changes nothing: a job on the disk ends by itself.

use std::sync::Arc;

use rootcellar_digest::Digest;

use super::index::{ClaimEnd, Claimed, NoRoom};
use super::loose::charge;
use super::publish::Batch;
use super::shared::Shared;
use crate::{Error, ErrorKind, Result, Verified};

/// A blob, and its place in the request.
type Item = (usize, Verified);

impl Shared {
    pub(super) async fn put_many(self: &Arc<Self>, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let mut outcomes: Vec<Result<()>> = blobs.iter().map(|_| Ok(())).collect();
        let is_stored = |(_, blob): &Item| !blob.digest().is_empty_blob();
        let mut items: Vec<Item> = blobs.into_iter().enumerate().filter(is_stored).collect();
        while !items.is_empty() {
            let (claims, theirs) = self.claim(items);
            for (at, outcome) in self.publish(claims).await {
                outcomes[at] = outcome;
            }
            items = Vec::with_capacity(theirs.len());
            for (item, mut end) in theirs {
                // An error says that the claim ended, which is what is waited for.
                let _ended = end.changed().await;
                items.push(item);
            }
        }
        outcomes
    }

    /// Divides `items` into those that are this caller's to put, and those that others are putting. The rest is present.
    fn claim(self: &Arc<Self>, items: Vec<Item>) -> (PutClaims, Vec<(Item, ClaimEnd)>) {
        let now = self.clock.now();
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        let mut index = self.index();
        for item in items {
            match index.claim_absent(item.1.digest(), now) {
                Claimed::Done => {}
                Claimed::Mine => mine.push(item),
                Claimed::Theirs(end) => theirs.push((item, end)),
            }
        }
        drop(index);
        let claims = PutClaims {
            shared: self.clone(),
            items: mine,
        };
        (claims, theirs)
    }

    async fn publish(self: &Arc<Self>, claims: PutClaims) -> Vec<(usize, Result<()>)> {
        if claims.items.is_empty() {
            return Vec::new();
        }
        self.hop(move |shared| shared.publish_batch(&claims.items)).await
    }

    fn publish_batch(&self, items: &[Item]) -> Vec<(usize, Result<()>)> {
        let mut batch = Batch::new(self);
        let gate = self.gate();
        for (at, blob) in items {
            let outcome = gate.check().and_then(|()| batch.publish(blob));
            batch.push(*at, outcome);
        }
        batch.sync_names();
        drop(gate);
        batch.end()
    }

    pub(super) fn make_room(&self, digest: Digest) -> Result<Room<'_>> {
        let bytes = charge(digest);
        let full = |reason: String| Error::new(ErrorKind::Exhausted, "put", reason).on(digest);
        let bytes_max = self.bytes_max();
        if bytes > bytes_max {
            return Err(full(format!(
                "the blob exceeds the store's whole size of {bytes_max} bytes"
            )));
        }
        let others = self.other_bytes();
        let victims = self.index().reserve(bytes, others, self.clock.now());
        let victims = victims.map_err(|reason| match reason {
            NoRoom::Leased => full(format!("the store of {bytes_max} bytes is full of what is in use")),
            NoRoom::Young => full(format!("the store of {bytes_max} bytes is full of blobs used lately")),
        })?;
        self.remove_victims(victims);
        Ok(Room { shared: self, digest })
    }
}

/// Blobs that this caller puts. Dropping it ends the claims.
struct PutClaims {
    shared: Arc<Shared>,
    items: Vec<Item>,
}

impl Drop for PutClaims {
    fn drop(&mut self) {
        let mut index = self.shared.index();
        for (_, blob) in &self.items {
            index.release(blob.digest());
        }
    }
}

/// Room for a blob. Dropping it gives the room back.
pub(super) struct Room<'a> {
    pub(super) shared: &'a Shared,
    digest: Digest,
}

impl Room<'_> {
    /// Turns the room into the blob's own.
    pub(super) fn enter(self) {
        let now = self.shared.clock.now();
        self.shared.index().enter(self.digest, now);
        std::mem::forget(self);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.shared.index().unreserve(charge(self.digest));
    }
}
