//! Emptying a region: what in it is old is forgotten, the rest is written elsewhere, and then all of its space comes back.
//!
//! Readers are never in the way, nor in theirs: until a blob is written elsewhere and the index says so, it is read from where it
//! was, and an open file outlives its name. A crash in the middle leaves some blobs in two places, which is no harm: the region is
//! dropped only after the copies are durable.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use rootcellar_digest::Digest;

use super::old::Old;
use super::plan::Contents;
use crate::checksum::checksum;
use crate::engine::check::{Check, check};
use crate::engine::core::Engine;
use crate::engine::index::{Entry, Flags};
use crate::engine::lanes::Next;
use crate::engine::options::WhenFull;
use crate::layout::{New, Place, Region};
use crate::{Error, ErrorKind, Result, Verified};

/// Bytes moved in one step, within which puts may have to wait.
const STEP_BYTES: u64 = 1 << 20;
/// Blobs looked at in one step.
const STEP_BLOBS: usize = 4096;
/// Regions that hold less than a fourth of what they could, before some of them are merged. Each start leaves one.
const SMALL_REGIONS_MAX: usize = 16;

/// A region on its way out.
#[derive(Debug)]
pub(super) struct Compaction {
    region: Region,
    /// What goes.
    old: Old,
    /// What is in it, in the order of the disk, those that come first last.
    blobs: Contents,
}

/// A blob that is moved out of a region, as it was read there.
#[derive(Debug)]
struct Staying {
    blob: Verified,
    used: u32,
    place: Place,
}

impl Staying {
    fn as_new(&self) -> New<'_> {
        New {
            blob: &self.blob,
            used: self.used,
        }
    }
}

impl Engine {
    /// Begins to empty a region of its `blobs`, keeping what is not old.
    pub(super) fn begin_compacting(&self, region: Region, old: Old, mut blobs: Contents) -> Next {
        if !self.leases().doom(region) {
            return Next::Again;
        }
        self.horizon.fetch_max(u64::from(old.until), Ordering::SeqCst);
        blobs.sort_unstable_by_key(|(_, place)| std::cmp::Reverse(place.offset()));
        self.upkeep().reclaim.compaction = Some(Compaction { region, old, blobs });
        Next::Again
    }

    pub(super) fn go_on_compacting(&self, mut compaction: Compaction) -> Next {
        if compaction.blobs.is_empty() {
            return self.end_compaction(compaction.region);
        }
        match self.move_some(&mut compaction) {
            Ok(()) => {
                self.upkeep().reclaim.compaction = Some(compaction);
                Next::Again
            }
            Err(error) => self.abandon(&error),
        }
    }

    /// Leaves the rest of a region where it is.
    fn abandon(&self, error: &Error) -> Next {
        tracing::warn!(%error, "a region of the store cannot be emptied now");
        self.end_doom();
        self.refuse("could not be compacted");
        self.retry()
    }

    fn end_doom(&self) {
        self.leases().end_doom();
        self.doom_ended.notify_waiters();
    }

    fn end_compaction(&self, region: Region) -> Next {
        // Even if nothing was moved now: a process that was killed may have moved something, and synced nothing; and a blob may have
        // been put anew beside a copy in here that was durable.
        if let Err(error) = self.sync_layout() {
            return self.abandon(&error);
        }
        if let Err(error) = self.layout.drop_region(region) {
            tracing::error!(%error, region = region.number(), "a region that was emptied stays on the disk");
        }
        self.end_doom();
        self.counters().compacted_regions += 1;
        self.tell_of_room();
        Next::Again
    }

    /// Lets some old blobs go, and moves some young ones.
    fn move_some(&self, compaction: &mut Compaction) -> Result<()> {
        let (mut bytes, mut staying) = (0, Vec::new());
        for _ in 0..STEP_BLOBS {
            let Some((digest, place)) = compaction.blobs.pop() else {
                break;
            };
            if self.forget_old(&digest, place, &mut compaction.old) {
                continue;
            }
            if let Some(entry) = self.index.get(&digest).filter(|entry| entry.place == place) {
                staying.extend(self.read_to_move(digest, entry).map(|blob| Staying {
                    blob,
                    used: entry.used,
                    place,
                }));
                bytes += digest.size_bytes();
            }
            if bytes >= STEP_BYTES {
                break;
            }
        }
        if staying.is_empty() {
            return Ok(());
        }
        self.write_elsewhere(&staying)
    }

    fn forget_old(&self, digest: &Digest, place: Place, old: &mut Old) -> bool {
        let bytes = self.layout.footprint(digest);
        let gone = self
            .index
            .remove_if(digest, place, |entry| old.takes(entry.used, bytes));
        if let Some(entry) = gone {
            self.note_evicted(digest.size_bytes(), entry.used);
        }
        gone.is_some()
    }

    /// Reads a blob that is to be moved; `None` if it is damaged.
    fn read_to_move(&self, digest: Digest, entry: Entry) -> Option<Verified> {
        let extent = self.layout.open(&digest, entry.place).ok()?;
        let blob = if digest.size_bytes() > STEP_BYTES {
            match check(digest, &extent) {
                Ok(Check::Whole(checksum)) => Some(Verified::from_part(digest, checksum, extent.file, extent.at)),
                Ok(Check::Damaged(_)) | Err(_) => None,
            }
        } else {
            let mut bytes = vec![0; usize::try_from(digest.size_bytes()).expect("a small blob")];
            let read = extent.file.read_at(&mut bytes, extent.at);
            let checksum = checksum(&bytes);
            let is_right = match entry.flags.has(Flags::VERIFIED) {
                true => checksum == entry.checksum,
                false => Digest::of(digest.function(), &bytes) == digest,
            };
            (read.is_ok() && is_right).then(|| Verified::from_memory(digest, checksum, Bytes::from(bytes)))
        };
        if blob.is_none() {
            self.look_again(digest, entry);
        }
        blob
    }

    fn write_elsewhere(&self, staying: &[Staying]) -> Result<()> {
        let news: Vec<New<'_>> = staying.iter().map(Staying::as_new).collect();
        let mut sizes = news.iter().map(|new| new.blob.digest().size_bytes());
        if self.layout.growth(&mut sizes) > self.budget.room_to_move() {
            return self.forget_staying(staying);
        }
        for (staying, to) in staying.iter().zip(self.write(&news)) {
            let digest = staying.blob.digest();
            match to {
                Ok(to) => {
                    if self.index.relocate(&digest, staying.place, to) {
                        self.counters().moved_bytes += digest.size_bytes();
                    }
                }
                // The disk has less room than the bound says.
                Err(error) if ErrorKind::of_io(&error) == ErrorKind::Exhausted => {
                    self.forget_staying(std::slice::from_ref(staying))?;
                }
                Err(error) => return Err(Error::io("compact", "writing a blob elsewhere", error).on(digest)),
            }
        }
        Ok(())
    }

    /// There is no room to move anything: somebody else took what was spared for it.
    fn forget_staying(&self, staying: &[Staying]) -> Result<()> {
        if self.when_full == WhenFull::Refuse {
            let reason = "the room that is spared for moving blobs is taken";
            return Err(Error::new(ErrorKind::Exhausted, "compact", reason));
        }
        let mut everything = Old::EVERYTHING;
        for Staying { blob, place, .. } in staying {
            self.horizon.fetch_max(u64::from(self.tick()), Ordering::SeqCst);
            self.forget_old(&blob.digest(), *place, &mut everything);
        }
        Ok(())
    }

    /// Merges regions that hold little. `None` if there are few.
    pub(super) fn step_merge(&self) -> Option<Next> {
        let sizes = self.regions();
        let leases = self.leases();
        let doubtful = self.doubtful();
        let mut small: Vec<(u64, Region)> = Vec::new();
        for size in sizes {
            let is_small = size.region != Region::ALONE && size.bytes < self.facts.spare_bytes / 4;
            let is_free = !size.is_open && !leases.pins(size.region) && !doubtful.regions.contains(&size.region);
            if is_small && is_free {
                small.push((size.bytes, size.region));
            }
        }
        drop((leases, doubtful));
        let smallest = small.iter().min().filter(|_| small.len() > SMALL_REGIONS_MAX)?;
        let region = smallest.1;
        let contents = self.contents([region].into_iter()).remove(&region);
        Some(self.begin_compacting(region, Old::NOTHING, contents.unwrap_or_default()))
    }
}
