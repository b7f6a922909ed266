//! After a power cut: what the last sync may not have covered is absent until it was hashed.
//!
//! After a sync has failed, and until the machine is started again, what was written since the machine was started is given up unread:
//! its bytes may be in memory while the disk does not have them, and the kernel, which has reported the error once, takes them for
//! written. No later sync would write them.

use std::collections::BTreeSet;
use std::io;

use super::check::{Check, check};
use super::core::Engine;
use super::index::{Entry, Flags};
use super::lanes::Next;
use crate::blob::is_damage;
use crate::layout::{Region, Stored, Trust};
use crate::{Error, Result};

/// Bytes hashed in one step.
const STEP_BYTES: u64 = 16 << 20;
const STEP_BLOBS: usize = 1024;

impl Engine {
    /// Checks some doubtful blobs, and says of those that were torn that they are gone. `None` if nothing is in doubt.
    pub(super) fn step_doubtful(&self) -> Option<Next> {
        if self.doubtful().regions.is_empty() {
            return None;
        }
        if self.check_some_doubtful().is_err() || self.remove_resolved().is_err() {
            return Some(self.retry());
        }
        self.settle_regions();
        Some(Next::Again)
    }

    /// Checks some doubtful blobs. The outcome is an error if one cannot be read now.
    pub(super) fn check_some_doubtful(&self) -> io::Result<()> {
        let mut bytes = 0;
        for _ in 0..STEP_BLOBS {
            let Some(stored) = self.next_doubtful() else {
                break;
            };
            match self.check_doubtful(&stored) {
                Ok(checked) => self.resolve(&stored, checked),
                Err(error) => {
                    tracing::warn!(digest = %stored.digest, %error, "a blob cannot be checked now");
                    self.doubtful().blobs.push(stored);
                    return Err(error);
                }
            }
            bytes += stored.digest.size_bytes();
            if bytes >= STEP_BYTES {
                break;
            }
        }
        Ok(())
    }

    fn next_doubtful(&self) -> Option<Stored> {
        self.doubtful().blobs.pop()
    }

    /// The checksum of a blob, if it is whole and no failed sync is in the way.
    fn check_doubtful(&self, stored: &Stored) -> io::Result<Option<u32>> {
        if stored.trust == Trust::Lost {
            return Ok(None);
        }
        let extent = match self.layout.open(&stored.digest, stored.place) {
            Ok(extent) => extent,
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_damage(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(match check(stored.digest, &extent)? {
            Check::Whole(checksum) => Some(checksum),
            Check::Damaged(_) => None,
        })
    }

    /// Enters a blob that turned out to be whole, unless it came anew meanwhile.
    fn resolve(&self, stored: &Stored, checked: Option<u32>) {
        let Stored { digest, place, .. } = *stored;
        let Some(checksum) = checked else {
            let is_torn = stored.trust != Trust::Lost;
            tracing::info!(%digest, is_torn, "dropping a blob that no sync has covered");
            self.counters().damaged_blobs += 1;
            self.doubtful().resolved.push((digest, place));
            return;
        };
        if self.index.get(&digest).is_some() {
            // A doubtful one is given to nobody, so this one is not needed.
            self.doubtful().resolved.push((digest, place));
            return;
        }
        let entry = Entry {
            place,
            checksum,
            used: stored.used.max(1),
            flags: Flags::VERIFIED.with(Flags::CHECKSUMMED),
        };
        let entered = self.index.insert(&digest, entry);
        let mut doubtful = self.doubtful();
        if let Err(error) = entered {
            tracing::warn!(%error, "a blob does not fit into the index");
            doubtful.resolved.push((digest, place));
        }
        doubtful.places.remove(&(digest, place));
    }

    /// Says of the blobs that were torn, or came anew, that they are gone from where they were.
    fn remove_resolved(&self) -> Result<()> {
        let gone = self.doubtful().resolved.clone();
        if gone.is_empty() {
            return Ok(());
        }
        // What came anew has to be durable before its old copy goes, which may have been.
        self.sync_layout()?;
        if let Err(error) = self.layout.remove(&gone) {
            tracing::error!(%error, "torn blobs stay doubtful for now");
            self.fail_unless_full(&error);
            return Err(Error::io("check", "removing torn blobs", error));
        }
        self.note_unsynced();
        let mut doubtful = self.doubtful();
        doubtful.resolved.clear();
        for place in &gone {
            doubtful.places.remove(place);
        }
        Ok(())
    }

    /// Tells the layout of regions in which nothing is doubtful any more.
    fn settle_regions(&self) {
        let mut doubtful = self.doubtful();
        let left: BTreeSet<Region> = doubtful.blobs.iter().map(|stored| stored.place.region()).collect();
        let settled: Vec<Region> = doubtful.regions.difference(&left).copied().collect();
        doubtful.regions = left;
        drop(doubtful);
        for region in &settled {
            self.layout.settle(*region);
            self.note_unsynced();
        }
    }
}
