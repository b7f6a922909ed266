//! Small blobs that are in memory, read again and again.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rootcellar_digest::Digest;
use rootcellar_store::layout::LooseKind;
use rootcellar_store::{LocalStore as _, Location};

use super::{Ground, hybrid, loose, options};
use crate::candidate::{Candidate as _, CandidateKind as _, DiskCandidate, OpenDisk};
use crate::measure::{count, micros};
use crate::report::{Figure, Goal};
use crate::usage::Usage;
use crate::workload::Workload;

const BLOB_BYTES: u64 = 4096;
/// 256 MiB: more than any cache of a processor.
const BLOBS: usize = 65_536;
const LOOSE_BLOBS: usize = 16_384;
const RUNS: usize = 5;

pub(super) fn figures(ground: &Ground<'_>) -> Vec<Figure> {
    let workload = Workload::uniform(3, BLOB_BYTES, ground.shrunk(BLOBS));
    let few = Workload::uniform(3, BLOB_BYTES, ground.shrunk(LOOSE_BLOBS));
    let packed = get(ground, &hybrid(), &workload);
    let loose_layout = get(ground, &loose(), &few);
    let files = read_files(ground, &few);
    vec![
        Figure {
            question: "warm, checked get of 4 KiB with the bytes copied out, one core: gets a second".to_owned(),
            value: 1e6 / packed,
            goal: Goal::AtLeast(500_000.0),
            detail: format!("{packed:.2} us of CPU, in random order over {BLOBS} blobs"),
        },
        Figure {
            question: "the same against the loose layout".to_owned(),
            value: loose_layout / packed,
            goal: Goal::AtLeast(5.0),
            detail: format!(
                "loose layout {loose_layout:.2} us; open, read and close alone, without looking up or checking, {files:.2} us"
            ),
        },
    ]
}

/// Microseconds of CPU a blob.
fn get(ground: &Ground<'_>, kind: &DiskCandidate, workload: &Workload) -> f64 {
    let dir = ground.fresh();
    let store = kind.open(dir.path());
    workload.batches().into_iter().for_each(|batch| store.put_many(batch));
    let digests = workload.shuffled_digests(5);
    let usage = Usage::least(RUNS, || (), |()| assert_eq!(store.get_each(&digests), workload.bytes()));
    micros(usage.cpu) / count(digests.len() as u64)
}

/// What nobody with a file for each blob can avoid.
fn read_files(ground: &Ground<'_>, workload: &Workload) -> f64 {
    let dir = ground.fresh();
    let store = OpenDisk::open(dir.path(), &options(Arc::new(LooseKind)));
    workload.batches().into_iter().for_each(|batch| store.put_many(batch));
    let path = |digest: &Digest| match store.store.locate(*digest).expect("the blob is there") {
        Location::Loose { path } => path.to_path_buf(),
        _ => unreachable!("this layout has files"),
    };
    let paths: Vec<PathBuf> = workload.shuffled_digests(5).iter().map(path).collect();
    let read = |()| {
        for path in &paths {
            std::hint::black_box(fs::read(path).expect("the file can be read"));
        }
    };
    let usage = Usage::least(RUNS, || (), read);
    micros(usage.cpu) / count(paths.len() as u64)
}
