//! Ways to read a stored record that is in memory: what each costs the reader. `docs/design/0006-read-paths.md`
//! compares them; cold reads, threads and failing disks are measured in `benches/experiments/read_paths`.
#![allow(unsafe_code, reason = "mapping a file is one of the ways that are compared")]

use std::fs::File;
use std::hint::black_box;
use std::io::{IoSliceMut, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use rootcellar_benches::content;
use rustix::io::ReadWriteFlags;
use rustix::mm::{MapFlags, ProtFlags};
use tokio::runtime::{Builder, Runtime};

const FILE_BYTES: usize = 64 << 20;
const RECORD_SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

fn read_paths(criterion: &mut Criterion) {
    let file = Arc::new(pack());
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    for size in RECORD_SIZES {
        let mut group = criterion.benchmark_group(format!("read_paths/{size}"));
        group.throughput(Throughput::Bytes(size as u64));
        calls(&mut group, &file, size);
        pool(&mut group, &runtime, &file, size);
        mappings(&mut group, &file, size);
        group.finish();
    }
}

/// A file as a pack is, all of it in the page cache.
fn pack() -> File {
    let mut file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).expect("a file on a real disk");
    file.write_all(&content(1, FILE_BYTES)).expect("room for 64 MiB");
    file.sync_all().expect("a disk that works");
    file
}

/// Positions of records, in an order that no readahead guesses.
fn places(size: usize) -> impl FnMut() -> u64 {
    let (slots, mut at) = (FILE_BYTES / size, 0);
    move || {
        at = (at + slots / 2 + 7) % slots;
        (at * size) as u64
    }
}

fn calls(group: &mut BenchmarkGroup<'_, WallTime>, file: &File, size: usize) {
    let (mut place, mut buffer) = (places(size), vec![0; size]);
    group.bench_function("pread", |bencher| {
        bencher.iter(|| file.read_exact_at(black_box(&mut buffer), place()).expect("a record"));
    });
    group.bench_function("preadv2_nowait", |bencher| {
        bencher.iter(|| read_cached(file, black_box(&mut buffer), place()));
    });
    group.bench_function("preadv2_nowait_into_new", |bencher| {
        bencher.iter(|| {
            let mut fresh = vec![0; size];
            read_cached(file, &mut fresh, place());
            fresh
        });
    });
}

/// What the engine does. Somebody may have emptied the page cache meanwhile: then a read that waits.
fn read_cached(file: &File, buffer: &mut [u8], at: u64) {
    let wanted = buffer.len();
    let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT);
    if read != Ok(wanted) {
        file.read_exact_at(buffer, at).expect("a record");
    }
}

fn pool(group: &mut BenchmarkGroup<'_, WallTime>, runtime: &Runtime, file: &Arc<File>, size: usize) {
    let mut place = places(size);
    let mut buffer = vec![0; size];
    group.bench_function("pread_spawn_blocking", |bencher| {
        bencher.iter(|| {
            let (file, at, mut taken) = (file.clone(), place(), std::mem::take(&mut buffer));
            let job = move || {
                file.read_exact_at(&mut taken, at).expect("a record");
                taken
            };
            buffer = runtime.block_on(runtime.spawn_blocking(job)).expect("no panic");
        });
    });
}

fn mappings(group: &mut BenchmarkGroup<'_, WallTime>, file: &File, size: usize) {
    let (mut place, mut buffer) = (places(size), vec![0; size]);
    let kept = Mapping::new(file, 0, FILE_BYTES);
    group.bench_function("mapping_kept", |bencher| {
        bencher.iter(|| {
            let at = usize::try_from(place()).expect("within the file");
            black_box(&mut buffer).copy_from_slice(&kept.bytes()[at..at + size]);
        });
    });
    group.bench_function("mapping_each", |bencher| {
        bencher.iter(|| black_box(&mut buffer).copy_from_slice(Mapping::new(file, place(), size).bytes()));
    });
}

/// A part of a file, mapped.
struct Mapping {
    at: *mut std::ffi::c_void,
    len: usize,
}

impl Mapping {
    fn new(file: &File, at: u64, len: usize) -> Self {
        // SAFETY: the kernel chooses the address, so nothing of ours lies there.
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, at) };
        let at = at.expect("a part of a file");
        Self { at, len }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped for as long as `self` lives; the file has no name, and nobody writes to it
        // or cuts it.
        unsafe { std::slice::from_raw_parts(self.at.cast(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: what `bytes` lends cannot outlive `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.at, self.len) };
        unmapped.expect("a mapping of ours");
    }
}

criterion_group!(benches, read_paths);
criterion_main!(benches);
