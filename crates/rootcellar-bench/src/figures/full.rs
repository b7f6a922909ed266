//! A full store of which half stays in use: what making room costs, and what those notice who read and put meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::layout::HybridKind;
use rootcellar_store::{BlobStoreExt as _, DiskOptions, ErrorKind, Verified};

use super::{Ground, options};
use crate::candidate::{Candidate as _, OpenDisk};
use crate::measure::count;
use crate::random::Random;
use crate::report::{Figure, Goal};

const BYTES_MAX: u64 = 1 << 30;
const BLOB_BYTES: u64 = 4096;
const BATCH: usize = 100;
/// Uses are noted this often, in batches: often enough that what is in use is always younger than what is not.
const BATCHES_A_USE: usize = 100;

pub(super) fn figures(ground: &Ground<'_>) -> Vec<Figure> {
    let bytes_max = (BYTES_MAX / ground.shrink).max(64 << 20);
    let full = run(ground, bytes_max, bytes_max);
    let roomy = run(ground, bytes_max, bytes_max * 8);
    let latency = |question: &str, goal, of: fn(&Run) -> Duration| Figure {
        question: question.to_owned(),
        value: of(&full).as_secs_f64() * 1e3,
        goal: Goal::AtMost(goal),
        detail: format!(
            "with the same load on a store that is not full {:.2} ms",
            of(&roomy).as_secs_f64() * 1e3
        ),
    };
    vec![
        Figure {
            question: "full, every second blob in use: bytes moved for each byte put".to_owned(),
            value: full.moved_bytes / full.put_bytes,
            goal: Goal::AtMost(1.1),
            detail: "a pack goes when half of it is old, so it cannot be more than one and what is spared".to_owned(),
        },
        Figure {
            question: "the same: of what is in use, the part that goes, %".to_owned(),
            value: full.gone * 100.0,
            goal: Goal::AtMost(2.0),
            detail: "half of each pack goes; so it is much more as soon as more than half of the store is in use"
                .to_owned(),
        },
        latency("the same: 99.9 % of reads of 4 KiB take at most, ms", 1.0, |run| {
            run.gets.of(0.999)
        }),
        latency("the same: slowest read, ms", 50.0, |run| run.gets.of(1.0)),
        latency("the same: 99 % of batches of 100 puts take at most, ms", 50.0, |run| {
            run.puts.of(0.99)
        }),
        latency("the same: slowest batch, ms", 250.0, |run| run.puts.of(1.0)),
    ]
}

struct Run {
    puts: Latencies,
    gets: Latencies,
    put_bytes: f64,
    moved_bytes: f64,
    /// The part of what is in use that was evicted.
    gone: f64,
}

/// Fills a store, then puts as much again twice, and reads what is in use meanwhile.
fn run(ground: &Ground<'_>, bytes: u64, bytes_max: u64) -> Run {
    let dir = ground.fresh();
    let options = DiskOptions {
        bytes_max,
        ..options(Arc::new(HybridKind::default()))
    };
    let store = OpenDisk::open(dir.path(), &options);
    // Less than fits by what the store keeps free, so that nothing goes yet.
    let blobs = usize::try_from(bytes / 16 * 15 / (BLOB_BYTES + 64)).expect("a store of some millions");
    let batches = blobs / BATCH;
    let mut random = Random::new(21);
    let mut in_use = Vec::with_capacity(blobs / 2);
    for _ in 0..batches {
        let batch = blobs_of(&mut random);
        in_use.extend(batch.iter().step_by(2).map(Verified::digest));
        store.put_many(batch);
    }
    store.find_missing(&in_use);
    let moved_before = store.store.statistics().counters.moved_bytes;
    let is_over = AtomicBool::new(false);
    let (puts, gets) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&store, &in_use, &is_over));
        let puts = put(&store, &in_use, &mut random, 2 * batches);
        is_over.store(true, Ordering::Relaxed);
        (puts, reader.join().expect("the reader ends"))
    });
    let gone = store.find_missing(&in_use);
    let moved = store.store.statistics().counters.moved_bytes - moved_before;
    Run {
        puts,
        gets,
        put_bytes: count((2 * batches * BATCH) as u64 * BLOB_BYTES),
        moved_bytes: count(moved),
        gone: count(gone as u64) / count(in_use.len() as u64),
    }
}

fn blobs_of(random: &mut Random) -> Vec<Verified> {
    let blob = |_| Verified::of(DigestFunction::Sha256, random.bytes(BLOB_BYTES));
    (0..BATCH).map(blob).collect()
}

fn put(store: &OpenDisk, in_use: &[Digest], random: &mut Random, batches: usize) -> Latencies {
    let mut latencies = Latencies::default();
    for n in 0..batches {
        if n % BATCHES_A_USE == 0 {
            store.find_missing(in_use);
        }
        let batch = blobs_of(random);
        latencies.time(|| store.put_many(batch));
    }
    latencies
}

/// Reads what is in use, one blob after the other, until it is over.
fn read(store: &OpenDisk, in_use: &[Digest], is_over: &AtomicBool) -> Latencies {
    let mut latencies = Latencies::default();
    let mut random = Random::new(22);
    let mut order: Vec<usize> = (0..in_use.len()).collect();
    random.shuffle(&mut order);
    for at in order.into_iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let begin = Instant::now();
        let read = store.runtime.block_on(store.store.read(in_use[at], BLOB_BYTES));
        match read {
            Ok(_) => latencies.0.push(begin.elapsed()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("{error}"),
        }
    }
    latencies
}

/// How long each of many calls took.
#[derive(Debug, Default)]
struct Latencies(Vec<Duration>);

impl Latencies {
    fn time<T>(&mut self, call: impl FnOnce() -> T) {
        let begin = Instant::now();
        call();
        self.0.push(begin.elapsed());
    }

    /// The least time that this part of all calls did not exceed.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a count"
    )]
    fn of(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (part * count(sorted.len() as u64 - 1)) as usize;
        sorted[at]
    }
}
