//! Putting blobs: a batch is claimed, makes room, is written, synced and published in one hop to the disk.
//!
//! ```text
//! claim ──> room ──> content in tmp/, 0444 ──[fdatasync]──> link ──[fsync of each directory]──> index ──> acknowledged
//! ```
//!
//! The steps in brackets are those of [`Durability::Always`](super::Durability::Always). A blob that another put has claimed is
//! waited for, and put after all if that one failed. A caller that goes away changes nothing: a job on the disk ends by itself.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rootcellar_digest::Digest;

use super::index::{ClaimEnd, Claimed, NoRoom};
use super::loose::{Staged, charge};
use super::mark::KernelTime;
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
        let gate = self.gate();
        let publish = |(at, blob): &Item| (*at, gate.check().and_then(|()| self.publish_one(blob)));
        let published: Vec<(usize, Result<Published<'_>>)> = items.iter().map(publish).collect();
        let synced = self.sync_names(&published);
        drop(gate);
        if let Err(error) = &synced {
            self.shut_after_failed_sync(error);
        }
        let enter = |(at, outcome): (usize, Result<Published<'_>>)| {
            let outcome = outcome.and_then(|published| match &synced {
                Ok(()) => {
                    published.room.enter();
                    Ok(())
                }
                Err(_) => Err(self.withdraw(published.digest)),
            });
            (at, outcome)
        };
        published.into_iter().map(enter).collect()
    }

    fn publish_one(&self, blob: &Verified) -> Result<Published<'_>> {
        let digest = blob.digest();
        let room = self.make_room(digest)?;
        let writing = |error| Error::io("put", "writing the blob's file", error).on(digest);
        let staged = self.loose.stage(blob, self.clock.now()).map_err(writing)?;
        let staged = self.link(staged).map_err(writing)?;
        self.set_dirty();
        // The index counts these bytes: until it has the blob, as reserved.
        staged.hand_over();
        let changed = staged.changed().map_err(writing)?;
        Ok(Published { digest, changed, room })
    }

    /// Gives staged content its name.
    fn link(&self, staged: Staged) -> io::Result<Staged> {
        match self.loose.publish(&staged) {
            Ok(()) => Ok(staged),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let copy = self.loose.copy_here(&staged, self.clock.now())?;
                self.link(copy)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.replace_stray(staged),
            Err(error) => Err(error),
        }
    }

    /// A file that the index does not know of lies where the blob belongs: what could not be removed when it was damaged or
    /// evicted. It goes.
    fn replace_stray(&self, staged: Staged) -> io::Result<Staged> {
        let digest = staged.digest();
        tracing::warn!(%digest, "replacing a file that lies where a new blob belongs");
        self.loose.remove(digest)?;
        self.loose.publish(&staged)?;
        Ok(staged)
    }

    /// In the mode that syncs each put: makes the names of what was published durable, each directory once.
    fn sync_names(&self, published: &[(usize, Result<Published<'_>>)]) -> io::Result<()> {
        let done = published.iter().filter_map(|(_, outcome)| outcome.as_ref().ok());
        if !self.is_synced {
            let earliest = done.map(|published| published.changed).min();
            return earliest.map_or(Ok(()), |changed| self.keep_mark_before(changed));
        }
        let dirs: BTreeSet<PathBuf> = done.map(|published| self.loose.dir(published.digest)).collect();
        dirs.iter().try_for_each(|dir| File::open(dir)?.sync_all())
    }

    /// Takes back a blob whose name may not survive a crash.
    fn withdraw(&self, digest: Digest) -> Error {
        if let Err(error) = self.loose.remove(digest) {
            tracing::error!(%digest, %error, "a blob that was not acknowledged stays until the next start");
        }
        let refusal = self.gate().check().expect_err("the gate was shut for the failed sync");
        refusal.on(digest)
    }

    fn make_room(&self, digest: Digest) -> Result<Room<'_>> {
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

/// A blob's file has its name; the index does not know of it yet.
struct Published<'a> {
    digest: Digest,
    /// When the kernel says that was.
    changed: KernelTime,
    room: Room<'a>,
}

/// Room for a blob. Dropping it gives the room back.
struct Room<'a> {
    shared: &'a Shared,
    digest: Digest,
}

impl Room<'_> {
    /// Turns the room into the blob's own.
    fn enter(self) {
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
