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

criterion_group!(benches, digest);
criterion_main!(benches);
