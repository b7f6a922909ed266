//! The start of a store: its logs are read, and the index is made of them.
//!
//! No directory of blobs is walked, and no blob is looked at. Regions are read by several threads; what a region says is about
//! itself alone, so their order does not matter.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rootcellar_digest::Digest;
use tokio::sync::{Notify, Semaphore};

use super::commit::{COMMIT_BYTES, Queue};
use super::core::{Doubtful, Engine};
use super::home::{Home, opening};
use super::index::{Entry, Flags, Index};
use super::lanes::Waker;
use super::options::{DiskOptions, Durability};
use super::recency::Recency;
use super::scrub::ScrubState;
use super::statistics::Counters;
use super::sync::Gate;
use super::upkeep::UpkeepState;
use super::uses::Uses;
use crate::budget::Budget;
use crate::io::remove_if_there;
use crate::layout::{Ground, Layout, Place, Region, Stored, Trust};
use crate::{Clock, Error, ErrorKind, Result, Spool};
use rootcellar_digest::Secret;

/// What a killed process can leave that no log speaks of: the files of the commit that it was in, and of what came with it.
const UNSWEPT_BYTES_MAX: u64 = 2 * COMMIT_BYTES;
/// The same in a small store, as a part of its size.
const UNSWEPT_PART: u64 = 8;

/// What the logs said.
struct Found<'a> {
    index: &'a Index,
    doubtful: Mutex<HashMap<(Digest, Place), Stored, Secret>>,
    /// Regions of which something was doubtful.
    doubtful_regions: Mutex<BTreeSet<Region>>,
    /// The latest use that a log tells of.
    last_used: AtomicU32,
    damaged_slots: AtomicU64,
}

impl Engine {
    /// Opens the store in `dir`. Blocks.
    pub(super) fn open_in(
        dir: &Path,
        options: &DiskOptions,
        clock: Arc<dyn Clock>,
        waker: Arc<dyn Waker>,
    ) -> Result<Arc<Self>> {
        let began = clock.now();
        let disk = options.disk.clone();
        let home = Home::claim(&disk, dir, options.layout.name())?;
        let budget = Arc::new(Budget::new(options.bytes_max, options.others.clone()));
        let layout = options.layout.open(&ground(&home, &disk, options, &budget))?;
        check_bound(options.bytes_max, layout.facts().spare_bytes)?;
        budget.spare(layout.facts().spare_bytes);
        let uses = Uses::new(disk.clone(), dir, home.id(), budget.own.share());
        let random = disk
            .random()
            .map_err(|error| opening(dir, "asking for randomness", error))?;
        let index = Index::new(random);
        let found = Found::read(&*layout, &index, options.start_threads)?;
        let before = uses.read_before();
        uses.restore(&before, &index);
        let last_used = found.last_used.load(Ordering::Relaxed).max(before.tick);
        let counters = Counters {
            damaged_log_slots: found.damaged_slots.load(Ordering::Relaxed),
            ..Counters::default()
        };
        let doubtful = found.doubtful();
        let now = clock.now();
        let unswept = budget.own.share();
        if !home.was_closed() {
            unswept.set(UNSWEPT_BYTES_MAX.min(options.bytes_max / UNSWEPT_PART));
        }
        let (bytes_max, lifetime) = (options.bytes_max, options.min_lifetime);
        let engine = Arc::new(Self {
            facts: layout.facts(),
            recency: Recency::new(bytes_max, lifetime, before.moments, last_used, now),
            spool: Spool::within(disk.clone(), empty_tmp(options, dir)?, budget.clone()),
            upkeep: Mutex::new(UpkeepState::new(
                now,
                ScrubState::new(before.scrubbed, before.scrubbing),
            )),
            home,
            layout,
            index,
            budget,
            clock,
            waker,
            uses,
            durability: options.durability,
            min_lifetime: options.min_lifetime,
            when_full: options.when_full,
            scrub: options.scrub,
            queue: Queue::default(),
            gate: Mutex::new(Gate::Open),
            sync: Mutex::default(),
            leases: Mutex::default(),
            lease_holders: Mutex::default(),
            doom_ended: Notify::new(),
            flights: super::first_read::Flights::default(),
            doubtful: Mutex::new(doubtful),
            writer: Mutex::new(()),
            entering: Mutex::new(()),
            counters: Mutex::new(counters),
            unswept,
            horizon: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            reads: Arc::new(Semaphore::new(options.reads_max)),
            has_new_uses: AtomicBool::new(false),
        });
        engine.make_good()?;
        engine.tell_of_start(engine.now().duration_since(began).unwrap_or_default());
        Ok(engine)
    }

    /// Does what must be done before anybody is answered.
    fn make_good(&self) -> Result<()> {
        // What was acknowledged as durable is there from the first answer on.
        while self.has_promised_doubts() {
            if self.check_some_doubtful().is_err() {
                let reason = "what was acknowledged before a power cut cannot be read now";
                return Err(Error::new(ErrorKind::Unavailable, "open", reason));
            }
        }
        self.note_unsynced();
        if self.durability == Durability::Always {
            self.sync_layout()?;
        }
        Ok(())
    }

    fn has_promised_doubts(&self) -> bool {
        self.doubtful().blobs.last().is_some_and(|stored| stored.is_promised)
    }

    fn tell_of_start(&self, took: std::time::Duration) {
        let counters = *self.counters();
        if counters.damaged_log_slots > 0 {
            tracing::error!(
                slots = counters.damaged_log_slots,
                "parts of the store's logs cannot be read: what they spoke of is missing"
            );
        }
        tracing::info!(
            dir = %self.home.path().display(),
            layout = %self.layout,
            blobs = self.index.blobs(),
            doubtful = self.doubtful().blobs.len(),
            bytes = self.budget.layout.bytes(),
            ?took,
            "opened a store"
        );
    }
}

fn ground(home: &Home, disk: &Arc<dyn crate::io::Disk>, options: &DiskOptions, budget: &Budget) -> Ground {
    Ground {
        disk: disk.clone(),
        dir: home.path().to_owned(),
        store: home.id(),
        boot: home.boot(),
        is_cache_whole: home.is_cache_whole(),
        was_closed: home.was_closed(),
        is_synced: options.durability == Durability::Always,
        bytes_max: options.bytes_max,
        bytes: budget.layout.clone(),
    }
}

/// A store needs room for several regions, or nothing in it could ever be let go.
fn check_bound(bytes_max: u64, spare_bytes: u64) -> Result<()> {
    let least = 8 * spare_bytes;
    if bytes_max < least {
        let reason = format!("a size of {bytes_max} bytes is too little for this layout, {least} are the least");
        return Err(Error::new(ErrorKind::InvalidArgument, "open", reason));
    }
    Ok(())
}

/// Makes the directory for content on its way, and removes what an earlier process left there.
fn empty_tmp(options: &DiskOptions, dir: &Path) -> Result<std::path::PathBuf> {
    let (disk, tmp) = (&options.disk, dir.join("tmp"));
    let empty = || {
        disk.make_dir(&tmp)?;
        for name in disk.list(&tmp)?.iter().filter(|name| !name.is_dir) {
            remove_if_there(&**disk, &tmp.join(&name.name))?;
        }
        Ok(())
    };
    empty().map_err(|error| opening(dir, "emptying tmp/", error))?;
    Ok(tmp)
}

impl<'a> Found<'a> {
    fn read(layout: &dyn Layout, index: &'a Index, threads: usize) -> Result<Self> {
        let found = Self {
            index,
            doubtful: Mutex::default(),
            doubtful_regions: Mutex::default(),
            last_used: AtomicU32::new(0),
            damaged_slots: AtomicU64::new(0),
        };
        let regions: Vec<Region> = layout.sizes().into_iter().map(|size| size.region).collect();
        let next = AtomicUsize::new(0);
        let read = || {
            while let Some(region) = regions.get(next.fetch_add(1, Ordering::Relaxed)) {
                found.read_region(layout, *region)?;
            }
            Ok(())
        };
        let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
            let readers: Vec<_> = (1..threads.min(regions.len())).map(|_| scope.spawn(read)).collect();
            let mine = read();
            let theirs = readers
                .into_iter()
                .map(|reader| reader.join().expect("reading logs does not panic"));
            theirs.chain([mine]).collect()
        });
        outcomes.into_iter().collect::<Result<()>>()?;
        Ok(found)
    }

    fn read_region(&self, layout: &dyn Layout, region: Region) -> Result<()> {
        let mut outcome = Ok(());
        let mut last_used = 0;
        let mut tell = |stored: Stored| {
            last_used = last_used.max(stored.used);
            let entered = self.enter(&stored);
            if outcome.is_ok() {
                outcome = entered;
            }
        };
        let damaged = layout.replay(region, &mut tell)?;
        self.damaged_slots.fetch_add(damaged, Ordering::Relaxed);
        self.last_used.fetch_max(last_used, Ordering::Relaxed);
        outcome
    }

    fn enter(&self, stored: &Stored) -> Result<()> {
        if stored.trust != Trust::Certain {
            lock(&self.doubtful).insert((stored.digest, stored.place), *stored);
            lock(&self.doubtful_regions).insert(stored.place.region());
            return Ok(());
        }
        let entry = Entry {
            place: stored.place,
            checksum: stored.checksum.unwrap_or(0),
            used: stored.used.max(1),
            flags: stored.checksum.map_or(Flags::default(), |_| Flags::CHECKSUMMED),
        };
        self.index.insert(&stored.digest, entry)?;
        Ok(())
    }

    /// What has to be checked, so that what was promised comes first, and a region at a time.
    fn doubtful(self) -> Doubtful {
        let doubtful = std::mem::take(&mut *lock(&self.doubtful));
        // What a later log tells as certain is so.
        let is_known = |stored: &Stored| {
            self.index
                .get(&stored.digest)
                .is_some_and(|entry| entry.place == stored.place)
        };
        let mut blobs: Vec<Stored> = doubtful.into_values().filter(|stored| !is_known(stored)).collect();
        blobs.sort_unstable_by_key(|stored| {
            (
                stored.is_promised,
                stored.place.region(),
                stored.place.offset(),
                stored.digest,
            )
        });
        Doubtful {
            places: blobs.iter().map(|stored| (stored.digest, stored.place)).collect(),
            regions: std::mem::take(&mut *lock(&self.doubtful_regions)),
            blobs,
            resolved: Vec::new(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
