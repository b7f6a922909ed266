//! After a power cut: what the last sync may not have covered is absent until it was hashed.
//!
//! After a sync has failed, and until the machine is started again, it is given up unread: its bytes may be in memory while the disk
//! does not have them, and the kernel, which has reported the error once, takes them for written. No later sync would write them.

use std::io;

use rootcellar_digest::Digest;

use super::check::{Check, check};
use super::core::Engine;
use super::index::{Entry, Flags};
use super::lanes::Next;
use crate::blob::is_damage;
use crate::layout::{Place, Region, Stored};

/// Bytes hashed in one step.
const STEP_BYTES: u64 = 16 << 20;
const STEP_BLOBS: usize = 1024;

impl Engine {
    /// Checks some doubtful blobs. `None` if there are none.
    pub(super) fn step_doubtful(&self) -> Option<Next> {
        let (mut bytes, mut gone) = (0, Vec::new());
        for _ in 0..STEP_BLOBS {
            let Some(stored) = self.next_doubtful() else {
                break;
            };
            match self.check_doubtful(&stored) {
                Ok(checked) => self.resolve(&stored, checked, &mut gone),
                Err(error) => {
                    tracing::warn!(digest = %stored.digest, %error, "a blob cannot be checked now");
                    self.doubtful().blobs.push(stored);
                    return Some(self.retry());
                }
            }
            bytes += stored.digest.size_bytes();
            if bytes >= STEP_BYTES {
                break;
            }
        }
        if let Err(error) = self.remove_resolved(&gone) {
            tracing::error!(%error, "torn blobs stay doubtful until the next start");
            self.fail_unless_full(&error);
            return Some(Next::Again);
        }
        self.settle_regions().then_some(Next::Again)
    }

    fn next_doubtful(&self) -> Option<Stored> {
        self.doubtful().blobs.pop()
    }

    /// The checksum of a blob, if it is whole and no failed sync is in the way.
    fn check_doubtful(&self, stored: &Stored) -> io::Result<Option<u32>> {
        if !self.home.is_cache_whole() {
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
    fn resolve(&self, stored: &Stored, checked: Option<u32>, gone: &mut Vec<(Digest, Place)>) {
        let Stored { digest, place, .. } = *stored;
        let Some(checksum) = checked else {
            let is_torn = self.home.is_cache_whole();
            tracing::info!(%digest, is_torn, "dropping a blob that no sync has covered");
            self.counters().damaged_blobs += 1;
            gone.push((digest, place));
            return;
        };
        if self.index.get(&digest).is_some() {
            // It came anew, to another place: a doubtful one is given to nobody.
            gone.push((digest, place));
            return;
        }
        let entry = Entry {
            place,
            checksum,
            used: stored.used.max(1),
            flags: Flags::VERIFIED.with(Flags::CHECKSUMMED),
        };
        if let Err(error) = self.index.insert(&digest, entry) {
            tracing::warn!(%error, "a blob does not fit into the index");
            gone.push((digest, place));
        }
        self.doubtful().places.remove(&(digest, place));
    }

    fn remove_resolved(&self, gone: &[(Digest, Place)]) -> io::Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        self.layout.remove(gone)?;
        self.note_unsynced();
        let mut doubtful = self.doubtful();
        for place in gone {
            doubtful.places.remove(place);
        }
        Ok(())
    }

    /// Tells the layout of regions in which nothing is doubtful any more. Tells whether there was anything to do.
    fn settle_regions(&self) -> bool {
        let mut doubtful = self.doubtful();
        let left: std::collections::BTreeSet<Region> =
            doubtful.blobs.iter().map(|stored| stored.place.region()).collect();
        let settled: Vec<Region> = doubtful.regions.difference(&left).copied().collect();
        doubtful.regions = left;
        drop(doubtful);
        for region in &settled {
            self.layout.settle(*region);
            self.note_unsynced();
        }
        !settled.is_empty()
    }
}
