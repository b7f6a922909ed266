//! Bytes of logs that change: each costs one blob at the most, whichever it is, and is counted.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rootcellar_digest::Digest;
use rootcellar_store::io::{Disk as _, Open};
use rootcellar_store::testing::{Loss, ManualClock, SimulatedDisk, SteppedStore};
use rootcellar_store::{DiskOptions, Durability, Result, Verified};

use super::{LAYOUTS, blobs_of, content_of, options, put_stepped, settle};

const DIR: &str = "/store";
const SIZES: [usize; 6] = [1, 600, 2000, 3000, 17_000, 20_000];
const HEADER_BYTES: usize = 64;
const SLOT_BYTES: usize = 32;

fn options_on(disk: &SimulatedDisk, layout: &str, durability: Durability) -> DiskOptions {
    DiskOptions {
        durability,
        start_threads: 1,
        disk: Arc::new(disk.clone()),
        ..options(layout)
    }
}

fn open_stepped(disk: &SimulatedDisk, layout: &str, durability: Durability) -> Result<SteppedStore> {
    let options = options_on(disk, layout, durability);
    SteppedStore::open(Path::new(DIR), &options, Arc::new(ManualClock::default()))
}

fn logs_of(disk: &SimulatedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
    let files = disk.files().into_iter().filter(|(path, _)| is_log(path));
    files
        .map(|(path, size)| (path.clone(), read(disk, &path, size)))
        .collect()
}

fn read(disk: &SimulatedDisk, path: &Path, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    disk.open(path, Open::Read).unwrap().read_at(&mut bytes, 0).unwrap();
    bytes
}

/// The disk of a store that some blobs were put into.
fn disk_with(layout: &str, durability: Durability, blobs: &[Verified], is_closed: bool) -> SimulatedDisk {
    let disk = SimulatedDisk::new(7);
    let store = open_stepped(&disk, layout, durability).unwrap();
    // Two batches, so that there is a mark in between.
    put_stepped(&store, &blobs[..3]);
    put_stepped(&store, &blobs[3..]);
    if is_closed {
        store.close().unwrap();
    }
    disk
}

fn check_every_byte(
    layout: &str,
    durability: Durability,
    is_closed: bool,
    next: impl Fn(&SimulatedDisk) -> SimulatedDisk,
) {
    let blobs = blobs_of(8, &SIZES);
    let disk = disk_with(layout, durability, &blobs, is_closed);
    let logs = logs_of(&disk);
    assert_eq!(logs.len(), if layout == "hybrid" { 2 } else { 1 });
    let mut losses: HashMap<Digest, u32> = HashMap::new();
    for (path, bytes) in &logs {
        for at in 0..bytes.len() {
            let case = format!(
                "{layout}, {durability:?}, closed: {is_closed}, byte {at} of {}",
                path.display()
            );
            let damaged = next(&disk);
            damaged.flip(path, at);
            if let Some(lost) = lost_to_a_flip(&damaged, layout, durability, &blobs, (bytes, at), &case) {
                *losses.entry(lost).or_default() += 1;
            }
        }
    }
    // Else nothing was flipped that matters.
    assert_eq!(
        losses.len(),
        blobs.len(),
        "{layout}, {durability:?}: every blob has an entry"
    );
}

fn lost_to_a_flip(
    disk: &SimulatedDisk,
    layout: &str,
    durability: Durability,
    blobs: &[Verified],
    (bytes, at): (&[u8], usize),
    case: &str,
) -> Option<Digest> {
    let opened = open_stepped(disk, layout, durability);
    let store = opened.unwrap_or_else(|error| panic!("{case}: {error}"));
    settle(&store);
    let is_whole = |blob: &&Verified| store.read(blob.digest()).is_ok_and(|read| read == content_of(blob));
    let (present, missing): (Vec<&Verified>, Vec<&Verified>) =
        blobs.iter().partition(|blob| store.contains(&blob.digest()));
    assert!(present.iter().all(is_whole), "{case}: a blob is present and not whole");
    let damaged_slots = store.statistics().counters.damaged_log_slots;
    if at < HEADER_BYTES {
        assert!(missing.is_empty(), "{case}: a header costs no blob");
        return None;
    }
    assert!(missing.len() <= 1, "{case}: {} blobs are missing", missing.len());
    let slot = &bytes[at - at % SLOT_BYTES..][..SLOT_BYTES];
    let is_used = slot[0] != 0 || !missing.is_empty();
    assert!(!is_used || damaged_slots > 0, "{case}: the damage is not counted");
    missing.first().map(|blob| blob.digest())
}

#[test]
fn a_flip_at_any_byte_of_a_log_costs_one_blob_at_the_most() {
    for layout in LAYOUTS {
        check_every_byte(layout, Durability::Always, false, SimulatedDisk::after_kill);
        check_every_byte(layout, Durability::default(), true, SimulatedDisk::after_kill);
    }
}

#[test]
fn a_flip_at_any_byte_of_a_log_costs_one_blob_at_the_most_after_a_boot_too() {
    let boot = |disk: &SimulatedDisk| disk.after_power_cut(Loss::Nothing, 1);
    for layout in LAYOUTS {
        check_every_byte(layout, Durability::Always, false, boot);
        check_every_byte(layout, Durability::default(), false, boot);
        check_every_byte(layout, Durability::default(), true, boot);
    }
}
