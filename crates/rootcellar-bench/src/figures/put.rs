//! Many small blobs, as a build sends them.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::Verified;

use super::{Ground, hybrid, loose};
use crate::candidate::{CandidateKind as _, DiskCandidate};
use crate::measure::{count, micros};
use crate::random::Random;
use crate::report::{Figure, Goal};
use crate::usage::{Usage, touch_memory};

const BLOB_BYTES: u64 = 4096;
/// A gibibyte in all.
const BLOBS: usize = 262_144;
/// A file for each blob takes its time.
const LOOSE_BLOBS: usize = 16_384;
const BATCH: usize = 1000;
const RUNS: usize = 5;

pub(super) fn figures(ground: &Ground<'_>) -> Vec<Figure> {
    let contents = contents(ground.shrunk(BLOBS));
    let hash_all = |()| {
        for content in &contents {
            std::hint::black_box(Digest::of(DigestFunction::Sha256, content));
        }
    };
    let hashing = Usage::least(RUNS, || (), hash_all);
    let hashing = per_blob(hashing.cpu, contents.len());
    let packed = put(ground, &hybrid(), &contents);
    let loose = put(ground, &loose(), &contents[..ground.shrunk(LOOSE_BLOBS)]);
    let detail =
        |putting: f64, other: &str| format!("{putting:.2} us of CPU a blob, hashing, storing and closing; {other}");
    vec![
        Figure {
            question: "put_many of 1,000 x 4 KiB, against hashing the same bytes alone".to_owned(),
            value: hashing / packed.cpu,
            goal: Goal::AtLeast(0.5),
            detail: detail(
                packed.cpu,
                &format!(
                    "hashing alone {hashing:.2} us; {:.0} MB/s on the clock, what was written synced",
                    count(BLOB_BYTES) / packed.wall
                ),
            ),
        },
        Figure {
            question: "the same against the loose layout".to_owned(),
            value: loose.cpu / packed.cpu,
            goal: Goal::AtLeast(5.0),
            detail: detail(packed.cpu, &format!("loose {:.2} us", loose.cpu)),
        },
    ]
}

/// Blobs as they lie in requests: one behind the other in a buffer for each batch.
fn contents(blobs: usize) -> Vec<Bytes> {
    let mut random = Random::new(7);
    let requests = std::iter::repeat_with(|| random.bytes(BLOB_BYTES * BATCH as u64));
    let blob_bytes = usize::try_from(BLOB_BYTES).expect("a small blob");
    let blobs_in = |request: Bytes| (0..BATCH).map(move |n| request.slice(n * blob_bytes..(n + 1) * blob_bytes));
    requests.flat_map(blobs_in).take(blobs).collect()
}

/// Microseconds a blob.
struct Cost {
    cpu: f64,
    wall: f64,
}

fn per_blob(time: Duration, blobs: usize) -> f64 {
    micros(time) / count(blobs as u64)
}

/// Puts everything into a new store, and closes it.
fn put(ground: &Ground<'_>, kind: &DiskCandidate, contents: &[Bytes]) -> Cost {
    // The files of a run go before the next begins and not in it: their pages are used again.
    let last = RefCell::new(None);
    let begin = || {
        last.borrow_mut().take();
        touch_memory(contents.iter().map(Bytes::len).sum());
        let dir = ground.fresh();
        (kind.open(dir.path()), dir)
    };
    let usage = Usage::least(RUNS, begin, |(store, dir)| {
        for batch in contents.chunks(BATCH) {
            let hash = |content: &Bytes| Verified::of(DigestFunction::Sha256, content.clone());
            store.put_many(batch.iter().map(hash).collect());
        }
        store.close();
        *last.borrow_mut() = Some(dir);
    });
    Cost {
        cpu: per_blob(usage.cpu, contents.len()),
        wall: per_blob(usage.wall, contents.len()),
    }
}
