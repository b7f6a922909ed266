//! The proof of what a store promises about crashes, for any layout.
//!
//! A seed makes a workload: puts, uses, leases, steps of the lanes in any order, restarts, power cuts, a disk that is full for a while,
//! syncs that fail. Before every call that changes the disk the power can go, or the process be killed; the disk that would be left
//! is kept, and a store is opened on it. Then:
//!
//! - what is reported present is whole, at once, and after what was doubtful has been checked;
//! - what was acknowledged under `always` is there at once;
//! - what was acknowledged before a sync that succeeded is there under `interval`;
//! - what was acknowledged at all is there after a kill;
//! - unless it was evicted;
//! - all files together are within the bound, always.
//!
//! A store opened after a crash is used a little and crashed again.
//!
//! The lanes take whole steps, one after the other, or ([`Lanes::Beside`]) one begins where another is in the middle of a step.

mod watch;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rootcellar_digest::{Digest, DigestFunction};

use self::watch::{Beside, Crash, Watched};
use super::{Fault, Loss, ManualClock, Seeded, SimulatedDisk};
use crate::engine::lanes::{Lane, Next};
use crate::engine::stepped::{SteppedPut, SteppedStore};
use crate::layout::LayoutKind;
use crate::{DiskOptions, Durability, Lease, Verified, WhenFull};

/// A store with so little room that a few dozen blobs fill it.
const BYTES_MAX: u64 = 256 << 10;
const BLOBS: u64 = 64;
const STEPS: u64 = 60;
const DIR: &str = "/store";
const INTERVAL: Duration = Duration::from_secs(1);

/// How the steps of the lanes follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lanes {
    /// One after the other: a seed makes the same workload each time.
    InTurn,
    /// Now and then one begins at a moment that the seed tells, within the step of another. How far it comes before the other goes
    /// on is up to the machine's scheduler.
    Beside,
}

/// Runs the workloads of `seeds`, and crashes each at every moment.
///
/// # Panics
/// Names the seed, the moment, and the promise that is broken.
pub fn check_power_cuts(layout: &Arc<dyn LayoutKind>, durability: Durability, lanes: Lanes, seeds: Range<u64>) {
    check_power_cuts_on(SimulatedDisk::new, layout, durability, lanes, seeds);
}

/// As [`check_power_cuts`], on disks that `new_disk` makes of seeds.
///
/// # Panics
/// As [`check_power_cuts`].
pub fn check_power_cuts_on(
    new_disk: impl Fn(u64) -> SimulatedDisk,
    layout: &Arc<dyn LayoutKind>,
    durability: Durability,
    lanes: Lanes,
    seeds: Range<u64>,
) {
    let mut sum = Tally::default();
    let workloads = seeds.end - seeds.start;
    for seed in seeds {
        let tally = Simulation::new(&new_disk, layout.clone(), durability, lanes, seed).run();
        sum.crashes += tally.crashes;
        sum.evicted_blobs += tally.evicted_blobs;
        sum.compacted_regions += tally.compacted_regions;
        sum.moved_bytes += tally.moved_bytes;
        sum.torn_blobs += tally.torn_blobs;
        sum.steps_beside += tally.steps_beside;
    }
    #[expect(clippy::print_stdout, reason = "what a test did is worth knowing")]
    {
        println!(
            "{}, {durability:?}, {lanes:?}: {workloads} workloads, {sum:?}",
            layout.name()
        );
    }
}

/// How a process ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Close,
    Kill,
    PowerCut,
}

struct Simulation {
    layout: Arc<dyn LayoutKind>,
    durability: Durability,
    lanes: Lanes,
    seed: u64,
    chance: Seeded,
    clock: Arc<ManualClock>,
    blobs: Vec<Verified>,
    disk: SimulatedDisk,
    store: Option<Arc<SteppedStore>>,
    puts: Vec<SteppedPut>,
    leases: Vec<Lease>,
    /// What was acknowledged before this step, and was not evicted since.
    acknowledged: BTreeSet<Digest>,
    /// The part of it that a sync had covered.
    synced: BTreeSet<Digest>,
    /// What of it this step's sync has covered.
    synced_now: Option<BTreeSet<Digest>>,
    /// Whether what a power cut has left was not yet all checked and synced before this step. Till then it may look absent after a
    /// kill, at first.
    is_in_doubt: bool,
    /// Whether a power cut has brought back more files than there is room for, some of which were removed a moment before.
    is_beyond_bound: bool,
    /// Whether a sync has failed. Then a kill is no better than a power cut.
    has_failed: bool,
    /// Guards what those who change the disk share.
    watched: Arc<Mutex<Watched>>,
    tally: Tally,
}

/// What the workloads came to.
#[derive(Debug, Default)]
struct Tally {
    crashes: u64,
    evicted_blobs: u64,
    compacted_regions: u64,
    moved_bytes: u64,
    torn_blobs: u64,
    steps_beside: u64,
}

impl Simulation {
    fn new(
        new_disk: impl Fn(u64) -> SimulatedDisk,
        layout: Arc<dyn LayoutKind>,
        durability: Durability,
        lanes: Lanes,
        seed: u64,
    ) -> Self {
        let mut chance = Seeded::new(seed);
        let disk = new_disk(chance.number());
        let blobs = (0..BLOBS).map(|_| blob(&mut chance)).collect();
        Self {
            layout,
            durability,
            lanes,
            seed,
            chance,
            clock: Arc::default(),
            blobs,
            disk,
            store: None,
            puts: Vec::new(),
            leases: Vec::new(),
            acknowledged: BTreeSet::new(),
            synced: BTreeSet::new(),
            synced_now: None,
            is_in_doubt: false,
            is_beyond_bound: false,
            has_failed: false,
            watched: Arc::default(),
            tally: Tally::default(),
        }
    }

    fn options(&self, disk: &SimulatedDisk) -> DiskOptions {
        DiskOptions {
            layout: self.layout.clone(),
            bytes_max: BYTES_MAX,
            durability: self.durability,
            when_full: WhenFull::Shorten,
            start_threads: 1,
            scrub: None,
            disk: Arc::new(disk.clone()),
            ..DiskOptions::default()
        }
    }

    fn open(&self, disk: &SimulatedDisk) -> Arc<SteppedStore> {
        let opened = SteppedStore::open(Path::new(DIR), &self.options(disk), self.clock.clone());
        let opened = opened.unwrap_or_else(|error| panic!("seed {}: the store does not open: {error}", self.seed));
        Arc::new(opened)
    }

    fn run(mut self) -> Tally {
        self.watch();
        self.store = Some(self.open(&self.disk.clone()));
        self.check_crashes();
        for _ in 0..STEPS {
            let (was_in_doubt, syncs) = (self.store().is_in_doubt(), self.syncs());
            self.is_beyond_bound &= self.disk.bytes() > BYTES_MAX;
            self.step();
            self.end_step_beside();
            self.forget_evicted();
            self.check_crashes();
            self.note_outcomes();
            self.is_in_doubt &= was_in_doubt || self.syncs() <= syncs;
        }
        self.count();
        self.tally
    }

    /// Adds up what the store did since it was opened.
    fn count(&mut self) {
        let counters = self.store().statistics().counters;
        self.tally.evicted_blobs += counters.evicted_blobs;
        self.tally.compacted_regions += counters.compacted_regions;
        self.tally.moved_bytes += counters.moved_bytes;
    }

    /// Keeps what a crash would leave, before each change of the disk, and begins the step that is due then.
    fn watch(&mut self) {
        let (watched, chance) = (self.watched.clone(), Mutex::new(Seeded::new(self.chance.number())));
        self.disk.watch(move |disk| {
            let crash = Crash::now(disk, &mut chance.lock().unwrap());
            let mut watching = watched.lock().unwrap();
            watching.crashes.push(crash);
            let due = watching.step_that_is_due();
            drop(watching);
            if let Some(begun) = due.map(Beside::begin) {
                watched.lock().unwrap().begun = Some(begun);
            }
        });
    }

    fn store(&self) -> &SteppedStore {
        self.store.as_ref().unwrap()
    }

    fn syncs(&self) -> u64 {
        self.store().statistics().counters.syncs
    }

    fn any_blob(&mut self) -> Verified {
        let which = usize::try_from(self.chance.below(BLOBS)).unwrap();
        self.blobs[which].clone()
    }

    fn step(&mut self) {
        match self.chance.below(43) / 2 {
            0..=5 => self.put(),
            6..=10 => self.step_lane(Lane::Commit),
            11..=12 => self.sync(),
            13..=15 => self.keep_up(),
            16 => self
                .clock
                .advance(Duration::from_millis(self.chance.clone().below(1500))),
            17 => {
                let digest = self.any_blob().digest();
                self.store().touch(&digest);
            }
            18 => self.lease(),
            19 => {
                let ends = [End::Close, End::Kill, End::PowerCut];
                let end = ends[usize::try_from(self.chance.below(3)).unwrap()];
                self.restart(end);
            }
            20 => self.disk.set_fault(Some(Fault::NoSpace)),
            _ => self.fail_a_sync(),
        }
        if self.chance.below(4) == 0 {
            self.disk.set_fault(None);
        }
    }

    fn step_lane(&mut self, lane: Lane) {
        if self.lanes == Lanes::Beside && self.chance.below(2) == 0 {
            let others = Lane::ALL.into_iter().filter(|other| *other != lane);
            let other = others.cycle().nth(usize::from(self.chance.below(2) == 0)).unwrap();
            self.watched.lock().unwrap().beside = Some(Beside {
                store: self.store.clone().unwrap(),
                lane: other,
                after: self.chance.below(6),
            });
        }
        self.store().step(lane);
    }

    /// Waits for the step that was begun within this one, if one was.
    fn end_step_beside(&mut self) {
        let mut watched = self.watched.lock().unwrap();
        watched.beside = None;
        let begun = watched.begun.take();
        drop(watched);
        let Some(begun) = begun else {
            return;
        };
        if begun.join().is_err() {
            panic!("seed {}: a step beside another panicked", self.seed);
        }
        self.tally.steps_beside += 1;
        self.check_whole(self.store(), &format!("seed {}, after two steps at once", self.seed));
    }

    fn put(&mut self) {
        let count = 1 + self.chance.below(6);
        let mut blobs = Vec::new();
        for _ in 0..count {
            let blob = self.any_blob();
            let is_spooled = self.chance.below(4) == 0;
            let spooled = if is_spooled {
                self.store().spool(&blob)
            } else {
                Ok(blob)
            };
            // There may be no room.
            blobs.extend(spooled.ok());
        }
        if let Ok(put) = self.store().put(blobs) {
            self.puts.push(put);
        }
    }

    fn sync(&mut self) {
        let syncs = self.syncs();
        self.step_lane(Lane::Sync);
        if self.syncs() > syncs {
            self.synced_now = Some(self.acknowledged.clone());
        }
    }

    /// Has a sync fail, if there is one to be made. Only what an earlier one had covered is promised from then on.
    fn fail_a_sync(&mut self) {
        self.has_failed = true;
        self.disk.set_fault(Some(Fault::NoSync));
        self.clock.advance(INTERVAL);
        for lane in [Lane::Commit, Lane::Sync] {
            self.store().step(lane);
        }
        self.disk.set_fault(None);
        self.leases.clear();
        self.puts.clear();
        self.count();
        drop(self.store.take());
        self.store = Some(self.open(&self.disk.clone()));
        let story = format!("seed {}, after a sync that failed", self.seed);
        self.settle(self.store(), &story);
        if self.store().statistics().counters.evicted_blobs == 0 {
            check_present(self.store(), self.promised(false), &story);
        }
        self.check_whole(self.store(), &story);
    }

    fn lease(&mut self) {
        self.leases.truncate(2);
        let digests: Vec<Digest> = (0..3).map(|_| self.any_blob().digest()).collect();
        self.leases.extend(self.store().lease(&digests));
    }

    /// Takes a step of the upkeep. In the middle of a compaction a kill is likely.
    fn keep_up(&mut self) {
        let moved = self.store().statistics().counters.moved_bytes;
        self.step_lane(Lane::Upkeep);
        self.end_step_beside();
        let has_moved = self.store().statistics().counters.moved_bytes > moved;
        if has_moved && self.chance.below(3) == 0 {
            self.forget_evicted();
            self.restart(End::Kill);
        }
    }

    fn restart(&mut self, end: End) {
        self.disk.set_fault(None);
        self.leases.clear();
        self.puts.clear();
        self.count();
        let store = Arc::into_inner(self.store.take().unwrap()).unwrap();
        match end {
            End::Close => {
                store.close().unwrap();
                self.synced_now = Some(self.acknowledged.clone());
            }
            End::Kill => {
                drop(store);
                self.acknowledged = self.promised(true).clone();
            }
            End::PowerCut => {
                drop(store);
                self.cut_power();
            }
        }
        self.store = Some(self.open(&self.disk.clone()));
    }

    /// Goes on with what a power cut leaves.
    fn cut_power(&mut self) {
        self.acknowledged = self.promised(false).clone();
        self.has_failed = false;
        self.is_in_doubt = true;
        self.disk = self.disk.after_power_cut(Loss::Some, self.chance.number());
        self.is_beyond_bound = self.disk.bytes() > BYTES_MAX;
        self.watch();
    }

    /// What is not there any more after a step may have been evicted at any moment of it.
    fn forget_evicted(&mut self) {
        let store = self.store.as_ref().unwrap();
        if store.is_in_doubt() && store.statistics().counters.evicted_blobs == 0 {
            // It is not known yet.
            return;
        }
        self.acknowledged.retain(|digest| store.contains(digest));
        self.synced.retain(|digest| store.contains(digest));
    }

    /// Notes what this step has acknowledged and synced: it is promised from now on.
    fn note_outcomes(&mut self) {
        for put in &mut self.puts {
            let Some(outcomes) = put.outcomes() else {
                continue;
            };
            for (digest, outcome) in put.digests.drain(..).zip(outcomes) {
                if outcome.is_ok() {
                    self.acknowledged.insert(digest);
                }
            }
        }
        self.puts.retain(|put| !put.digests.is_empty());
        if let Some(synced) = self.synced_now.take() {
            self.synced = synced;
        }
    }

    /// Opens a store on each disk that a crash in the last step would have left.
    fn check_crashes(&mut self) {
        let crashes = std::mem::take(&mut self.watched.lock().unwrap().crashes);
        for crash in crashes {
            self.tally.crashes += 1;
            self.check_crash(&crash);
        }
    }

    fn check_crash(&mut self, crash: &Crash) {
        let story = format!("seed {}, before change {}, {}", self.seed, crash.moment, crash.name());
        if crash.is_kill && !self.is_beyond_bound {
            check_bound(&crash.disk, &story);
        }
        let store = self.open(&crash.disk);
        self.check_whole(&store, &story);
        let promised = self.promised(crash.is_kill).clone();
        if (crash.is_kill && !self.is_in_doubt) || self.durability == Durability::Always {
            check_present(&store, &promised, &story);
        }
        self.settle(&store, &story);
        self.tally.torn_blobs += store.statistics().counters.damaged_blobs;
        if store.statistics().counters.evicted_blobs == 0 {
            check_present(&store, &promised, &format!("{story}, settled"));
        }
        self.check_whole(&store, &format!("{story}, settled"));
        check_bound(&crash.disk, &format!("{story}, settled"));
        if self.chance.below(4) == 0 {
            self.crash_again(&store, &crash.disk, &story);
        }
    }

    /// What is there after a crash.
    fn promised(&self, is_kill: bool) -> &BTreeSet<Digest> {
        let is_all = self.durability == Durability::Always || (is_kill && !self.has_failed);
        if is_all { &self.acknowledged } else { &self.synced }
    }

    /// Uses a store that was opened after a crash, and cuts the power once more.
    fn crash_again(&mut self, store: &SteppedStore, disk: &SimulatedDisk, story: &str) {
        let mut promised = self.promised(false).clone();
        // What was evicted and is put again now is promised by that put only.
        promised.retain(|digest| store.contains(digest));
        let blobs = (0..3).map(|_| self.any_blob()).collect();
        let mut put = store.put(blobs).unwrap();
        while matches!(store.step(Lane::Commit), Next::Again | Next::Soon) {}
        if self.durability == Durability::Always {
            let outcomes = put.outcomes().unwrap_or_default();
            let ok = put.digests.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok());
            promised.extend(ok.map(|(digest, _)| *digest));
        }
        if self.chance.below(2) == 0 {
            self.clock.advance(INTERVAL);
            store.step(Lane::Sync);
        }
        promised.retain(|digest| store.contains(digest));
        let disk = disk.after_power_cut(Loss::Some, self.chance.number());
        let story = format!("{story}, and then once more");
        let store = self.open(&disk);
        self.check_whole(&store, &story);
        self.settle(&store, &story);
        self.check_whole(&store, &story);
        if store.statistics().counters.evicted_blobs == 0 {
            check_present(&store, &promised, &story);
        }
    }

    /// Has everything done that the store has to do by itself.
    fn settle(&self, store: &SteppedStore, story: &str) {
        let is_done = (0..1000).any(|_| store.step(Lane::Upkeep) != Next::Again);
        assert!(is_done, "{story}: the upkeep does not come to an end");
        assert!(!store.is_in_doubt(), "{story}: something is left unchecked");
    }

    /// What is present is what it should be.
    fn check_whole(&self, store: &SteppedStore, story: &str) {
        for blob in &self.blobs {
            let digest = blob.digest();
            if !store.contains(&digest) {
                continue;
            }
            let bytes = store
                .read(digest)
                .unwrap_or_else(|error| panic!("{story}: {digest} is present, but: {error}"));
            assert_eq!(Digest::of(digest.function(), &bytes), digest, "{story}");
        }
    }
}

fn check_bound(disk: &SimulatedDisk, story: &str) {
    let bytes = disk.bytes();
    assert!(bytes <= BYTES_MAX, "{story}: {bytes} bytes are on the disk");
}

fn check_present(store: &SteppedStore, promised: &BTreeSet<Digest>, story: &str) {
    let missing: Vec<&Digest> = promised.iter().filter(|digest| !store.contains(digest)).collect();
    assert!(missing.is_empty(), "{story}: lost {missing:?}");
}

/// Sizes of builds, made small.
fn blob(chance: &mut Seeded) -> Verified {
    let len = match chance.below(10) {
        0 => 1,
        1..=6 => 1 + chance.below(2000),
        7..=8 => 1 + chance.below(12_000),
        _ => 20_000 + chance.below(80_000),
    };
    let function = match chance.below(5) {
        0 => DigestFunction::Sha512,
        1 => DigestFunction::Md5,
        _ => DigestFunction::Sha256,
    };
    chance.blob(function, usize::try_from(len).unwrap())
}
