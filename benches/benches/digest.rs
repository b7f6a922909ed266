//! How fast each digest function hashes, by blob size. The bound for everything that takes content in.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rootcellar_benches::{BLOB_SIZES, content};
use rootcellar_digest::{Digest, DigestFunction};

fn digest(criterion: &mut Criterion) {
    for function in DigestFunction::ALL {
        let mut group = criterion.benchmark_group(function.name());
        for size in BLOB_SIZES {
            let blob = content(1, size);
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_with_input(BenchmarkId::from_parameter(size), &blob, |bencher, blob| {
                bencher.iter(|| Digest::of(function, blob));
            });
        }
        group.finish();
    }
}

/// What it brings to hash two contents in turns.
fn two_in_turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sha256 of two");
    for size in BLOB_SIZES {
        let blobs = [1, 2].map(|seed| content(seed, size));
        let contents = blobs.each_ref().map(|blob| (DigestFunction::Sha256, &blob[..]));
        group.throughput(Throughput::Bytes(2 * size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &contents, |bencher, contents| {
            bencher.iter(|| Digest::of_each(contents));
        });
    }
    group.finish();
}

criterion_group!(benches, digest, two_in_turns);
criterion_main!(benches);
