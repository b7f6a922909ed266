//! What every part of a store on disk shares.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use rootcellar_digest::Digest;
use rustix::io::Errno;
use tokio::sync::{Notify, Semaphore};

use super::commit::Queue;
use super::first_read::Flights;
use super::home::Home;
use super::index::{Entry, Index};
use super::lanes::{Lane, Next, Steps, Waker};
use super::lease::Leases;
use super::options::{Durability, Scrub, WhenFull};
use super::recency::Recency;
use super::statistics::{Counters, DiskStatistics};
use super::sync::{Gate, SyncState};
use super::upkeep::UpkeepState;
use super::uses::Uses;
use crate::budget::Budget;
use crate::layout::{Facts, Layout, New, Place, RegionSize, Stored};
use crate::{Clock, Kept, LeaseHolder, Mark, Share, Spool};

/// A use is long ago after this part of the promised lifetime, for those who rely on it without saying so each time. Blobs are
/// protected for so much longer.
pub(super) const USED_LONG_AGO_PART: u32 = 16;

pub(super) struct Engine {
    pub(super) home: Home,
    pub(super) layout: Box<dyn Layout>,
    pub(super) facts: Facts,
    pub(super) index: Index,
    pub(super) recency: Recency,
    pub(super) budget: Arc<Budget>,
    pub(super) spool: Spool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) waker: Arc<dyn Waker>,
    pub(super) durability: Durability,
    pub(super) min_lifetime: Duration,
    pub(super) when_full: WhenFull,
    pub(super) scrub: Option<Scrub>,
    /// Puts that wait for the commit lane.
    pub(super) queue: Queue,
    /// Guards whether puts are accepted.
    pub(super) gate: Mutex<Gate>,
    /// Guards what the next sync has to do.
    pub(super) sync: Mutex<SyncState>,
    /// Guards which blobs may not go. Held while it is decided that some go.
    pub(super) leases: Mutex<Leases>,
    /// Who keeps leases that it could do without.
    pub(super) lease_holders: Mutex<Vec<Weak<dyn LeaseHolder>>>,
    /// Told when a region that was being emptied is gone.
    pub(super) doom_ended: Notify,
    /// Large blobs that are being hashed.
    pub(super) flights: Flights,
    /// Guards what is not known to be whole yet.
    pub(super) doubtful: Mutex<Doubtful>,
    pub(super) upkeep: Mutex<UpkeepState>,
    /// Held while blobs are written: layouts take one writer at a time.
    pub(super) writer: Mutex<()>,
    /// Held from before blobs are written until the index has them. Meanwhile a region may look empty, and a log out of date.
    pub(super) entering: Mutex<()>,
    pub(super) counters: Mutex<Counters>,
    /// The file of uses.
    pub(super) uses: Uses,
    /// The latest use of a blob that was evicted.
    pub(super) horizon: AtomicU64,
    /// Room for what a crash may have left, until it was looked for.
    pub(super) unswept: Share,
    /// Blobs that went otherwise than by eviction.
    pub(super) losses: AtomicU64,
    /// Turns at reading the disk.
    pub(super) reads: Arc<Semaphore>,
    /// Whether uses were noted that no checkpoint has.
    pub(super) has_new_uses: AtomicBool,
}

/// Blobs that a power cut may have torn, on their way to being checked.
#[derive(Debug, Default)]
pub(super) struct Doubtful {
    pub(super) blobs: Vec<Stored>,
    /// Those of them that were checked and do not stay.
    pub(super) resolved: Vec<(Digest, Place)>,
    /// All of these, to be found.
    pub(super) places: HashSet<(Digest, Place)>,
    /// The regions with such blobs.
    pub(super) regions: BTreeSet<crate::layout::Region>,
}

impl Engine {
    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// The current tick.
    pub(super) fn tick(&self) -> u32 {
        self.recency.tick(self.now())
    }

    /// Looks a blob up, and notes that it is used.
    pub(super) fn touch_entry(&self, digest: &Digest, used: u32) -> Option<Entry> {
        let entry = self.index.touch(digest, used);
        self.note_uses(entry.is_some());
        entry
    }

    /// Notes that blobs are used, and tells what is known of each.
    pub(super) fn touch_entries(&self, digests: &[Digest]) -> Vec<Option<Entry>> {
        let entries = self.index.touch_many(digests, self.tick());
        self.note_uses(entries.iter().any(Option::is_some));
        entries
    }

    /// Notes that blobs are used, and tells of each whether it is absent.
    pub(super) fn are_absent(&self, digests: &[Digest]) -> Vec<bool> {
        let is_absent = self.index.are_absent(digests, self.tick());
        self.note_uses(is_absent.contains(&false));
        is_absent
    }

    /// Notes that blobs are used, and tells which are absent: each once, in the order of first mention.
    pub(super) fn absent(&self, digests: &[Digest]) -> Vec<Digest> {
        let mut absent = self.index.absent(digests, self.tick());
        self.note_uses(absent.len() < digests.len());
        absent.retain(|digest| !digest.is_empty_blob());
        absent
    }

    fn note_uses(&self, are_new: bool) {
        if are_new && !self.has_new_uses.load(Ordering::Relaxed) {
            self.has_new_uses.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lease_holders(&self) -> MutexGuard<'_, Vec<Weak<dyn LeaseHolder>>> {
        self.lease_holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn doubtful(&self) -> MutexGuard<'_, Doubtful> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` where it may block, bounded in number. It runs to its end even if the caller goes away.
    pub(super) async fn hop<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> T {
        let turn = self.reads.clone().acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let engine = self.clone();
        let job = move || {
            let done = work(&engine);
            drop(turn);
            done
        };
        tokio::task::spawn_blocking(job)
            .await
            .expect("work on the disk does not panic, and the runtime outlives its tasks")
    }

    /// Writes blobs with the layout. Blocks.
    pub(super) fn write(&self, blobs: &[New<'_>]) -> Vec<io::Result<Place>> {
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let outcomes = self.layout.write(blobs);
        assert_eq!(outcomes.len(), blobs.len(), "a layout answers for each blob");
        let bytes = blobs.iter().map(|new| new.blob.digest().size_bytes()).sum();
        self.note_written(bytes);
        let is_full = |outcome: &io::Result<Place>| {
            let error = outcome.as_ref().err();
            error.and_then(io::Error::raw_os_error) == Some(Errno::NOSPC.raw_os_error())
        };
        if outcomes.iter().any(is_full) {
            self.budget.disk_is_full();
        }
        self.recency.wrote(bytes);
        outcomes
    }

    /// Keeps blobs from being written and not yet in the index.
    pub(super) fn entering(&self) -> MutexGuard<'_, ()> {
        self.entering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The regions there are. Whatever lies in those that are not open is in the index.
    pub(super) fn regions(&self) -> Vec<RegionSize> {
        let _complete = self.entering();
        self.layout.sizes()
    }

    /// Whether the store knows a blob at a place, or is about to.
    pub(super) fn is_live(&self, digest: &Digest, place: Place) -> bool {
        let is_indexed = self.index.get(digest).is_some_and(|entry| entry.place == place);
        is_indexed || self.doubtful().places.contains(&(*digest, place))
    }

    /// The present moment in the order of uses.
    pub(super) fn mark(&self) -> Mark {
        // In this order: what is lost between the two is noticed.
        let losses = self.losses.load(Ordering::SeqCst);
        let uses_from = u64::from(self.tick());
        Mark { uses_from, losses }
    }

    /// Whether nothing that was used since `mark` has gone: the latest use of what was evicted was before.
    pub(super) fn has_kept(&self, mark: Mark) -> Kept {
        let is_whole = self.losses.load(Ordering::SeqCst) == mark.losses;
        let is_later = self.horizon.load(Ordering::SeqCst) < mark.uses_from;
        if !is_whole || !is_later {
            return Kept::Unknown;
        }
        let tick = u32::try_from(mark.uses_from).unwrap_or(u32::MAX);
        if self.recency.age(tick, self.now()) > self.min_lifetime / USED_LONG_AGO_PART {
            return Kept::AllUsedLongAgo;
        }
        Kept::All
    }

    /// Drops a blob whose bytes are not what they were. Blocks.
    pub(super) fn drop_damaged(&self, digest: Digest, place: Place, reason: &str) {
        self.losses.fetch_add(1, Ordering::SeqCst);
        if self.index.remove_if(&digest, place, |_| true).is_none() {
            return;
        }
        tracing::error!(%digest, ?place, reason, "dropping a damaged blob");
        self.counters().damaged_blobs += 1;
        if let Err(error) = self.layout.remove(&[(digest, place)]) {
            tracing::error!(%digest, %error, "the next start may report a damaged blob as present until it is read");
            self.fail_unless_full(&error);
        }
        self.note_unsynced();
    }

    pub(super) fn statistics(&self) -> DiskStatistics {
        DiskStatistics {
            blobs: self.index.blobs(),
            index_bytes: self.index.bytes(),
            bytes: self.budget.layout.bytes(),
            leased_bytes: self.leased_bytes(),
            spooled_bytes: self.budget.spooled.bytes(),
            other_bytes: self.budget.others.bytes() + self.budget.own.bytes(),
            bytes_max: self.budget.bytes_max(),
            doubtful_blobs: self.doubtful().blobs.len() as u64,
            scrub: self.upkeep().scrub_progress(),
            counters: *self.counters(),
        }
    }
}

impl Steps for Engine {
    fn step(&self, lane: Lane) -> Next {
        match lane {
            Lane::Commit => self.step_commit(),
            Lane::Sync => self.step_sync(),
            Lane::Upkeep => self.step_upkeep(),
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("home", &self.home)
            .finish_non_exhaustive()
    }
}
