//! What each layout of the engine costs under two mixes of sizes, cut small: puts, reads, questions, starts, and puts into a full
//! store. For a change that is being worked on; `rootcellar bench layouts` measures whole mixes, and shows them side by side.
//!
//! Elements are blobs, or digests that are asked for. Criterion shows time on the clock, the disk's included.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use rootcellar_bench::{Candidate, CandidateKind, DiskCandidate, Mix, Random, Workload};
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::Verified;
use rootcellar_store::layout::kind_named;
use tempfile::TempDir;

const LAYOUTS: [&str; 3] = ["loose", "packed", "hybrid"];
/// Very many small files, and object files.
const MIXES: [&str; 2] = ["node-modules", "c-kernel"];
/// Enough for a store that is bounded to so much to let go of a little at a time.
const MIX_BYTES: u64 = 16 << 20;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn layouts(criterion: &mut Criterion) {
    for mix in MIXES {
        let mix = Mix::named(mix).expect("a mix of rootcellar-bench");
        let workload = Workload::of_mix(&mix, 1, MIX_BYTES);
        for layout in LAYOUTS {
            let kind = DiskCandidate::new(kind_named(layout).expect("a layout of the engine"));
            let mut group = criterion.benchmark_group(format!("layouts/{}/{layout}", workload.name));
            group
                .sampling_mode(SamplingMode::Flat)
                .sample_size(10)
                .warm_up_time(Duration::from_millis(200))
                .measurement_time(Duration::from_secs(1));
            bench(&mut group, &kind, &workload);
            group.finish();
        }
    }
}

fn bench(group: &mut Group<'_>, kind: &DiskCandidate, workload: &Workload) {
    put_many(group, kind, workload);
    let home = home();
    let candidate = kind.open(home.path());
    put(&*candidate, workload.batches());
    get(group, &*candidate, workload);
    find_missing(group, &*candidate, workload);
    candidate.close();
    restart(group, kind, &home, workload);
    evict(group, kind, workload);
}

/// A directory for a store, on a real disk.
fn home() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for a store")
}

fn put(candidate: &dyn Candidate, batches: Vec<Vec<Verified>>) {
    for batch in batches {
        candidate.put_many(batch);
    }
}

/// The whole workload into a new store. Opening and removing it is not measured.
fn put_many(group: &mut Group<'_>, kind: &DiskCandidate, workload: &Workload) {
    let open = || {
        let home = home();
        (kind.open(home.path()), home, workload.batches())
    };
    group.throughput(Throughput::Elements(workload.blobs.len() as u64));
    group.bench_function("put_many", |bencher| {
        bencher.iter_batched(
            open,
            |(candidate, home, batches)| {
                put(&*candidate, batches);
                (candidate, home)
            },
            BatchSize::PerIteration,
        );
    });
}

/// Every blob once, in a random order; all of them are in the page cache.
fn get(group: &mut Group<'_>, candidate: &dyn Candidate, workload: &Workload) {
    let digests = workload.shuffled_digests(2);
    group.throughput(Throughput::Elements(digests.len() as u64));
    group.bench_function("get_warm", |bencher| bencher.iter(|| candidate.get_each(&digests)));
}

/// One question, half of which is present.
fn find_missing(group: &mut Group<'_>, candidate: &dyn Candidate, workload: &Workload) {
    let mut random = Random::new(4);
    let mut digests = workload.shuffled_digests(3);
    let present = digests.len();
    digests.extend((0..present).map(|_| Digest::of(DigestFunction::Sha256, &random.bytes(32))));
    random.shuffle(&mut digests);
    group.throughput(Throughput::Elements(digests.len() as u64));
    group.bench_function("find_missing", |bencher| {
        bencher.iter(|| assert_eq!(candidate.find_missing(&digests), present, "half is there"));
    });
}

/// A start that finds the workload, after one that did not end in good order.
fn restart(group: &mut Group<'_>, kind: &DiskCandidate, home: &TempDir, workload: &Workload) {
    group.throughput(Throughput::Elements(workload.blobs.len() as u64));
    group.bench_function("restart", |bencher| bencher.iter(|| drop(kind.open(home.path()))));
}

/// Blobs of the same sizes into a store that has room for about one workload: as much has to go.
fn evict(group: &mut Group<'_>, kind: &DiskCandidate, workload: &Workload) {
    let home = home();
    let blobs = workload.blobs.len() as u64;
    // What a sector and a log add, as `rootcellar bench layouts` has it.
    let bytes_max = workload.bytes() + blobs * 1024;
    let open = kind.open_bounded(home.path(), bytes_max);
    let candidate = open.expect("the engine can be bounded");
    put(&*candidate, workload.batches());
    let mut random = Random::new(9);
    group.throughput(Throughput::Elements(blobs));
    group.bench_function("evict", |bencher| {
        bencher.iter_batched(
            || renewed(workload, &mut random).batches(),
            |batches| put(&*candidate, batches),
            BatchSize::PerIteration,
        );
    });
}

/// Blobs of the same sizes with other contents.
fn renewed(workload: &Workload, random: &mut Random) -> Workload {
    let mut renew = |blob: &Verified| Verified::of(DigestFunction::Sha256, random.bytes(blob.digest().size_bytes()));
    Workload {
        name: workload.name.clone(),
        blobs: workload.blobs.iter().map(&mut renew).collect(),
    }
}

criterion_group!(benches, layouts);
criterion_main!(benches);
