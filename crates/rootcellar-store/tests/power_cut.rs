//! What the layouts of this crate promise about crashes, proved on a disk that loses power.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rootcellar_digest::DigestFunction;
use rootcellar_store::layout::{HybridKind, LayoutKind, LooseKind, PackedKind};
use rootcellar_store::testing::{
    Lane, Lanes, Loss, ManualClock, Next, Seeded, SimulatedDisk, SteppedStore, check_power_cuts, check_power_cuts_on,
};
use rootcellar_store::{DiskOptions, Durability, Verified, WhenFull};

/// Workloads for each layout and mode: some 80,000 crashes.
const WORKLOADS: u64 = 300;
const FIRST: &str = "ROOTCELLAR_SEED";

fn check(layout: impl LayoutKind, durability: Durability, lanes: Lanes) {
    let layout: Arc<dyn LayoutKind> = Arc::new(layout);
    let seeds = match std::env::var(FIRST) {
        Ok(first) => {
            let first = first.parse().unwrap();
            first..first + 1
        }
        Err(_) => 0..WORKLOADS,
    };
    check_power_cuts(&layout, durability, lanes, seeds);
}

const SECOND: Durability = Durability::Interval(Duration::from_secs(1));

/// With packs for the smallest only, so that both sorts come about.
const HYBRID: HybridKind = HybridKind { packed_max_bytes: 1500 };

#[test]
fn loose_always() {
    check(LooseKind, Durability::Always, Lanes::InTurn);
}

#[test]
fn loose_interval() {
    check(LooseKind, SECOND, Lanes::InTurn);
}

#[test]
fn packed_always() {
    check(PackedKind, Durability::Always, Lanes::InTurn);
}

#[test]
fn packed_interval() {
    check(PackedKind, SECOND, Lanes::InTurn);
}

#[test]
fn hybrid_always() {
    check(HYBRID, Durability::Always, Lanes::InTurn);
}

#[test]
fn hybrid_interval() {
    check(HYBRID, SECOND, Lanes::InTurn);
}

#[test]
fn hybrid_none() {
    check(HYBRID, Durability::None, Lanes::InTurn);
}

#[test]
fn hybrid_interval_with_steps_within_steps() {
    check(HYBRID, SECOND, Lanes::Beside);
}

#[test]
fn packed_always_with_steps_within_steps() {
    check(PackedKind, Durability::Always, Lanes::Beside);
}

/// Whether syncs of a path are left out.
type IsIgnored = fn(&Path) -> bool;

/// A proof that does not notice a missing sync proves nothing: on a disk that leaves out some, promises are broken, and soon.
#[test]
fn a_disk_that_leaves_out_syncs_is_found_out() {
    let ignored: [(&str, IsIgnored); 7] = [
        ("packs", |path| lies_in(path, "packs") && has_extension(path, "data")),
        ("logs of packs", |path| {
            lies_in(path, "packs") && has_extension(path, "log")
        }),
        ("names of packs", |path| path.ends_with("packs")),
        ("files", |path| path.starts_with("/store/loose") && !is_short(path)),
        ("names of files", |path| {
            path.starts_with("/store/loose") && is_short(path)
        }),
        ("logs of files", |path| lies_in(path, "loose.logs")),
        ("names of logs of files", |path| path.ends_with("loose.logs")),
    ];
    for durability in [Durability::Always, SECOND] {
        for (name, is_ignored) in ignored {
            let new_disk = |seed| SimulatedDisk::new(seed).ignoring_syncs_of(is_ignored);
            let is_noticed = (0..UNSYNCED_WORKLOADS).any(|seed| is_broken_on(new_disk, durability, seed));
            assert!(is_noticed, "{durability:?}: nothing happens if {name} are not synced");
        }
    }
}

/// Workloads within which a missing sync is noticed.
const UNSYNCED_WORKLOADS: u64 = 20;

fn is_broken_on(new_disk: impl Fn(u64) -> SimulatedDisk, durability: Durability, seed: u64) -> bool {
    let layout: Arc<dyn LayoutKind> = Arc::new(HYBRID);
    let run = || check_power_cuts_on(new_disk, &layout, durability, Lanes::InTurn, seed..seed + 1);
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

fn lies_in(path: &Path, dir: &str) -> bool {
    path.parent().is_some_and(|parent| parent.ends_with(dir))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// Whether it is a directory of blobs' files, named for two digits.
fn is_short(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.len() == 2)
}

/// Nobody wakes the lane for what is left.
#[test]
fn all_that_is_doubtful_is_checked_in_one_go() {
    let options = |disk: &SimulatedDisk| DiskOptions {
        layout: Arc::new(PackedKind),
        bytes_max: 64 << 20,
        durability: Durability::None,
        disk: Arc::new(disk.clone()),
        ..DiskOptions::default()
    };
    let open =
        |disk| SteppedStore::open(Path::new("/store"), &options(disk), Arc::new(ManualClock::default())).unwrap();
    let (disk, mut chance) = (SimulatedDisk::new(1), Seeded::new(1));
    let store = open(&disk);
    // More than are checked in one step.
    let blobs: Vec<Verified> = (0..3000).map(|_| chance.blob(DigestFunction::Sha256, 100)).collect();
    store.put(blobs.clone()).unwrap();
    store.step(Lane::Commit);
    let store = open(&disk.after_power_cut(Loss::Nothing, 1));
    assert_eq!(store.statistics().doubtful_blobs, 3000);
    while store.step(Lane::Upkeep) == Next::Again {}
    assert!(!store.is_in_doubt());
    assert!(blobs.iter().all(|blob| store.contains(&blob.digest())));
}

/// A power cut brings files back that were removed, though the log already says so. They count until they are swept.
#[test]
fn files_that_come_back_are_within_the_bound() {
    const BYTES_MAX: u64 = 4 << 20;
    let options = |disk: &SimulatedDisk| DiskOptions {
        layout: Arc::new(LooseKind),
        bytes_max: BYTES_MAX,
        durability: SECOND,
        when_full: WhenFull::Shorten,
        disk: Arc::new(disk.clone()),
        ..DiskOptions::default()
    };
    let clock = Arc::new(ManualClock::default());
    let open = |disk| SteppedStore::open(Path::new("/store"), &options(disk), clock.clone()).unwrap();
    let (disk, mut chance) = (SimulatedDisk::new(1), Seeded::new(1));
    let mut put = |store: &SteppedStore, count| {
        for _ in 0..count {
            drop(store.put(vec![chance.blob(DigestFunction::Sha256, 100_000)]));
            store.step(Lane::Commit);
        }
    };
    let store = open(&disk);
    put(&store, 35);
    clock.advance(Duration::from_secs(2));
    store.step(Lane::Sync);
    // Room is made for many more, and nothing is synced after that.
    for _ in 0..10 {
        store.step(Lane::Upkeep);
        put(&store, 2);
    }
    assert!(store.statistics().counters.evicted_blobs > 10);
    let disk = disk.after_power_cut(Loss::Everything, 1);
    let store = open(&disk);
    let statistics = store.statistics();
    assert!(
        statistics.bytes + statistics.other_bytes >= disk.bytes(),
        "{statistics:?}"
    );
    put(&store, 35);
    assert!(disk.bytes() <= BYTES_MAX, "{} bytes are on the disk", disk.bytes());
    while store.step(Lane::Upkeep) == Next::Again {}
    let statistics = store.statistics();
    let evicted = statistics.counters.evicted_blobs;
    assert!(evicted < 5, "what is swept first makes room: {statistics:?}");
    assert!(statistics.bytes <= disk.bytes() + disk.bytes() / 10, "{statistics:?}");
}
