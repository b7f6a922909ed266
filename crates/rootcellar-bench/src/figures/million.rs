//! Many blobs: the index, its memory, and the start.

use std::sync::Arc;
use std::time::Duration;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::layout::HybridKind;
use rootcellar_store::{DiskOptions, Durability, Verified};

use super::{Ground, options};
use crate::candidate::{Candidate as _, OpenDisk};
use crate::measure::{count, micros};
use crate::random::Random;
use crate::report::{Figure, Goal};
use crate::usage::Usage;

const MILLION: usize = 1_000_000;
const BATCH: usize = 1000;
const QUESTION_DIGESTS: usize = 10_000;
/// Small, so that the disk is not what is measured.
const BLOB_BYTES: u64 = 32;
const RUNS: usize = 3;

pub(super) fn figures(ground: &Ground<'_>) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (millions, start_goal) in [(1, 1.0), (5, 5.0)] {
        let blobs = ground.shrunk(millions * MILLION);
        let dir = ground.fresh();
        let options = options(Arc::new(HybridKind::default()));
        let store = OpenDisk::open(dir.path(), &options);
        let (digests, _) = fill(&store, blobs);
        if millions == 1 {
            figures.push(find_missing(&store, digests));
        }
        figures.push(memory(&store, millions));
        // As a kill would: nothing is closed.
        drop(store);
        figures.push(start(&dir, &options, millions, start_goal));
    }
    figures.push(growth(ground));
    figures.push(churn(ground));
    figures
}

/// Batches that wait for the index to grow, which it does in every run. Of several runs the quickest counts for each batch, and nothing
/// is synced: otherwise the disk would be measured.
fn growth(ground: &Ground<'_>) -> Figure {
    let options = DiskOptions {
        durability: Durability::None,
        ..options(Arc::new(HybridKind::default()))
    };
    let run = |_| {
        let dir = ground.fresh();
        let store = OpenDisk::open(dir.path(), &options);
        fill(&store, ground.shrunk(5 * MILLION)).1
    };
    let quickest = |one: Vec<Duration>, other: Vec<Duration>| {
        let both = one.into_iter().zip(other);
        both.map(|(one, other)| one.min(other)).collect()
    };
    let batches = (0..RUNS).map(run).reduce(quickest).unwrap_or_default();
    let slowest = batches.into_iter().max().unwrap_or_default();
    Figure {
        question: "slowest batch of 1,000 puts while the index grows to 5 M blobs, `none`, ms".to_owned(),
        value: slowest.as_secs_f64() * 1e3,
        goal: Goal::AtMost(10.0),
        detail: format!("hashing excluded; the quickest of {RUNS} runs for each batch"),
    }
}

fn blobs(random: &mut Random, count: usize) -> Vec<Verified> {
    let blob = |_| Verified::of(DigestFunction::Sha256, random.bytes(BLOB_BYTES));
    (0..count).map(blob).collect()
}

/// Puts so many blobs, and tells their names, and how long each batch took.
fn fill(store: &OpenDisk, count: usize) -> (Vec<Digest>, Vec<Duration>) {
    let mut random = Random::new(5);
    let (mut digests, mut times) = (Vec::with_capacity(count), Vec::new());
    for _ in 0..count.div_ceil(BATCH) {
        let batch = blobs(&mut random, BATCH);
        digests.extend(batch.iter().map(Verified::digest));
        let ((), usage) = Usage::of(|| store.put_many(batch));
        times.push(usage.wall);
    }
    (digests, times)
}

fn find_missing(store: &OpenDisk, mut digests: Vec<Digest>) -> Figure {
    let mut random = Random::new(6);
    let absent = digests.len();
    digests.extend((0..absent).map(|_| Digest::of(DigestFunction::Sha256, &random.bytes(BLOB_BYTES))));
    random.shuffle(&mut digests);
    let ask = |()| {
        for question in digests.chunks(QUESTION_DIGESTS) {
            store.find_missing(question);
        }
    };
    let usage = Usage::least(RUNS, || (), ask);
    let microseconds = micros(usage.cpu) / count(digests.len() as u64);
    Figure {
        question: "find_missing in batches of 10,000, half present, 1 M blobs, one core: digests a second".to_owned(),
        value: 1e6 / microseconds,
        goal: Goal::AtLeast(3_000_000.0),
        detail: format!("{:.0} ns a digest", microseconds * 1e3),
    }
}

fn memory(store: &OpenDisk, millions: usize) -> Figure {
    let statistics = store.store.statistics();
    Figure {
        question: format!("index memory at {millions} M blobs with hashes of 32 bytes, bytes a blob"),
        value: count(statistics.index_bytes) / count(statistics.blobs),
        goal: Goal::AtMost(64.0),
        detail: "what the index has allocated; benches/benches/index_memory.rs asks the allocator".to_owned(),
    }
}

fn start(dir: &tempfile::TempDir, options: &DiskOptions, millions: usize, goal: f64) -> Figure {
    let usage = Usage::least(RUNS, || (), |()| drop(OpenDisk::open(dir.path(), options)));
    Figure {
        question: format!("start without an orderly end before, {millions} M blobs, page cache warm, s"),
        value: usage.wall.as_secs_f64(),
        goal: Goal::AtMost(goal),
        detail: format!("CPU {:.2} s", usage.cpu.as_secs_f64()),
    }
}

/// Half of all blobs go, as many come, and the index is as small as before.
fn churn(ground: &Ground<'_>) -> Figure {
    let dir = ground.fresh();
    let blobs_max = ground.shrunk(MILLION);
    // A sector for each blob, an entry in a log, and what the engine keeps free.
    let bytes_max = blobs_max as u64 * (512 + 64) * 17 / 16;
    let options = DiskOptions {
        bytes_max: bytes_max.max(1 << 20),
        ..options(Arc::new(HybridKind::default()))
    };
    let store = OpenDisk::open(dir.path(), &options);
    fill(&store, blobs_max);
    let mut random = Random::new(77);
    for _ in 0..(blobs_max / 2).div_ceil(BATCH) {
        store.put_many(blobs(&mut random, BATCH));
    }
    let statistics = store.store.statistics();
    Figure {
        question: "the same at 1 M blobs after half of them were replaced".to_owned(),
        value: count(statistics.index_bytes) / count(statistics.blobs),
        goal: Goal::AtMost(64.0),
        detail: format!(
            "{} blobs, {} evicted",
            statistics.blobs, statistics.counters.evicted_blobs
        ),
    }
}
