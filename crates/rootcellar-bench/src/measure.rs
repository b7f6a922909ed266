//! One candidate under one workload: what everything costs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rootcellar_digest::{Digest, DigestFunction};

use crate::candidate::{Candidate, CandidateKind};
use crate::random::Random;
use crate::report::{Sample, Unit};
use crate::usage::Usage;
use crate::workload::Workload;

/// Tells how many bytes the program has allocated, if an allocator counts them.
pub type Allocated = Option<fn() -> u64>;

/// Blobs that are read.
const GETS_MAX: usize = 50_000;
/// Digests in one question.
const QUESTION_DIGESTS: usize = 10_000;
const RUNS: usize = 3;

/// Measures candidates under workloads, in new directories below `dir`, and tells `say` what is going on.
///
/// Nothing is removed before all have been filled: on ext4, a file is made much more slowly while many were removed a moment ago.
///
/// # Panics
/// If a candidate or the disk fails.
pub fn measure(
    kinds: &[&dyn CandidateKind],
    workloads: &[Workload],
    dir: &Path,
    allocated: Allocated,
    mut say: impl FnMut(&str),
) -> Vec<Sample> {
    let (mut samples, mut homes) = (Vec::new(), Vec::new());
    for workload in workloads {
        for kind in kinds {
            say(&format!("{}, {}", workload.name, kind.name()));
            let (measured, home) = Run::new(*kind, workload).fill(*kind, dir, allocated);
            samples.extend(measured);
            homes.push(home);
        }
    }
    for workload in workloads {
        for kind in kinds {
            say(&format!("{}, {}, full", workload.name, kind.name()));
            samples.extend(Run::new(*kind, workload).evict(*kind, dir));
        }
    }
    samples
}

struct Run<'a> {
    candidate: String,
    workload: &'a Workload,
    samples: Vec<Sample>,
}

impl<'a> Run<'a> {
    fn new(kind: &dyn CandidateKind, workload: &'a Workload) -> Self {
        Self {
            candidate: kind.name(),
            workload,
            samples: Vec::new(),
        }
    }

    /// Measures everything but a full store. What was stored stays while what is returned stays.
    fn fill(mut self, kind: &dyn CandidateKind, dir: &Path, allocated: Allocated) -> (Vec<Sample>, tempfile::TempDir) {
        let home = tempfile::tempdir_in(dir).expect("a directory for a candidate");
        let before = allocated.map(|allocated| allocated());
        let candidate = kind.open(home.path());
        self.put(&*candidate);
        self.memory(&*candidate, before, allocated);
        self.get(&*candidate);
        self.find_missing(&*candidate);
        let ((), close) = Usage::of(|| candidate.close());
        self.note("close", close.wall.as_secs_f64() * 1e3, Unit::Milliseconds);
        self.disk(home.path());
        self.restart(kind, home.path());
        (self.samples, home)
    }

    fn note(&mut self, measure: &str, value: f64, unit: Unit) {
        self.samples.push(Sample {
            workload: self.workload.name.clone(),
            candidate: self.candidate.clone(),
            measure: measure.to_owned(),
            value,
            unit,
        });
    }

    fn blobs(&self) -> f64 {
        count(self.workload.blobs.len() as u64)
    }

    fn put(&mut self, candidate: &dyn Candidate) {
        let batches = self.workload.batches();
        let ((), usage) = Usage::of(|| batches.into_iter().for_each(|batch| candidate.put_many(batch)));
        self.note("put, CPU", micros(usage.cpu) / self.blobs(), Unit::MicrosecondsABlob);
        self.note("put, clock", micros(usage.wall) / self.blobs(), Unit::MicrosecondsABlob);
    }

    fn memory(&mut self, candidate: &dyn Candidate, before: Option<u64>, allocated: Allocated) {
        let grown = allocated
            .zip(before)
            .map(|(allocated, before)| allocated().saturating_sub(before));
        if let Some(bytes) = grown.or_else(|| candidate.index_bytes()) {
            self.note("memory", count(bytes) / self.blobs(), Unit::BytesABlob);
        }
    }

    fn get(&mut self, candidate: &dyn Candidate) {
        let mut digests = self.workload.shuffled_digests(2);
        digests.truncate(GETS_MAX);
        let sum: u64 = digests.iter().map(Digest::size_bytes).sum();
        let usage = Usage::least(
            RUNS,
            || (),
            |()| assert_eq!(candidate.get_each(&digests), sum, "all bytes are read"),
        );
        let gets = count(digests.len() as u64);
        self.note("get warm, CPU", micros(usage.cpu) / gets, Unit::MicrosecondsABlob);
    }

    fn find_missing(&mut self, candidate: &dyn Candidate) {
        let mut digests = self.workload.shuffled_digests(3);
        let present = digests.len();
        let mut random = Random::new(4);
        digests.extend((0..present).map(|_| Digest::of(DigestFunction::Sha256, &random.bytes(32))));
        random.shuffle(&mut digests);
        let ask = |()| {
            let missing: usize = digests
                .chunks(QUESTION_DIGESTS)
                .map(|digests| candidate.find_missing(digests))
                .sum();
            assert_eq!(missing, present, "half of them is missing");
        };
        let usage = Usage::least(RUNS, || (), ask);
        let nanoseconds = micros(usage.cpu) * 1e3 / count(digests.len() as u64);
        self.note("find_missing, CPU", nanoseconds, Unit::NanosecondsADigest);
    }

    fn disk(&mut self, dir: &Path) {
        let (bytes, files) = disk_usage(dir);
        self.note("disk", count(bytes) / count(self.workload.bytes()), Unit::BytesAByte);
        self.note("files", count(files), Unit::Files);
    }

    fn restart(&mut self, kind: &dyn CandidateKind, dir: &Path) {
        let usage = Usage::least(RUNS, || (), |()| drop(kind.open(dir)));
        self.note("restart, clock", usage.wall.as_secs_f64() * 1e3, Unit::Milliseconds);
    }

    /// Puts the workload three times, each time with other contents, into a store that has room for about one.
    fn evict(mut self, kind: &dyn CandidateKind, dir: &Path) -> Vec<Sample> {
        let home = tempfile::tempdir_in(dir).expect("a directory for a candidate");
        let bytes_max = self.workload.bytes() + (self.workload.blobs.len() as u64) * 1024;
        let Some(candidate) = kind.open_bounded(home.path(), bytes_max) else {
            return Vec::new();
        };
        self.workload
            .batches()
            .into_iter()
            .for_each(|batch| candidate.put_many(batch));
        let mut random = Random::new(9);
        let others: Vec<Workload> = (0..2).map(|_| renewed(self.workload, &mut random)).collect();
        let put = || {
            for other in &others {
                other.batches().into_iter().for_each(|batch| candidate.put_many(batch));
            }
        };
        let ((), usage) = Usage::of(put);
        let blobs = self.blobs() * count(others.len() as u64);
        self.note("put when full, CPU", micros(usage.cpu) / blobs, Unit::MicrosecondsABlob);
        if let Some(moved) = candidate.moved_bytes() {
            let put: u64 = others.iter().map(Workload::bytes).sum();
            self.note("moved when full", count(moved) / count(put), Unit::BytesAByte);
        }
        candidate.close();
        self.samples
    }
}

/// Blobs of the same sizes with other contents.
fn renewed(workload: &Workload, random: &mut Random) -> Workload {
    let renew = |blob: &rootcellar_store::Verified| {
        rootcellar_store::Verified::of(DigestFunction::Sha256, random.bytes(blob.digest().size_bytes()))
    };
    Workload {
        name: workload.name.clone(),
        blobs: workload.blobs.iter().map(renew).collect(),
    }
}

/// Bytes of the disk that a directory takes, and its files.
pub(crate) fn disk_usage(dir: &Path) -> (u64, u64) {
    const BLOCK_BYTES: u64 = 512;
    let (mut bytes, mut files) = (0, 0);
    for entry in fs::read_dir(dir).expect("the directory can be listed") {
        let entry = entry.expect("the directory can be listed");
        let metadata = entry.metadata().expect("what is listed is there");
        bytes += metadata.blocks() * BLOCK_BYTES;
        if metadata.is_dir() {
            let (below, more) = disk_usage(&entry.path());
            bytes += below;
            files += more;
        } else {
            files += 1;
        }
    }
    (bytes, files)
}

pub(crate) fn micros(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn count(number: u64) -> f64 {
    number as f64
}
