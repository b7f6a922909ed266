//! What a blob costs in memory, asked of the allocator, beside what the store says of its index.
//!
//! ```text
//!   cargo bench -p rootcellar-benches --bench index_memory              200,000 blobs: seconds
//!   cargo bench -p rootcellar-benches --bench index_memory -- --full    1 M and 5 M blobs, with the limit: 4 GiB of disk
//! ```
//!
//! Blobs have 32 bytes, so that the index is nearly all that grows. What is counted is what is allocated when the batches are gone, less
//! what an empty store with the same settings takes. So whatever else the engine keeps about what it was given counts too: times of use,
//! what is to be synced. "After a start" is the same store opened again.
//!
//! With `--full`, more than 64 bytes a blob is a failure. As a test (`cargo test --benches`) it does nearly nothing.
#![allow(unsafe_code, reason = "an allocator that counts is an allocator")]
#![allow(clippy::print_stdout, reason = "the answer")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rootcellar_bench::Workload;
use rootcellar_store::layout::HybridKind;
use rootcellar_store::{BlobStore as _, DiskOptions, DiskStore, SystemClock};
use tokio::runtime::{Builder, Runtime};

/// `rootcellar bench layouts --figures` has the same limit.
const BLOB_COST_MAX: u64 = 64;
const BLOB_BYTES: u64 = 32;
const BATCH: usize = 1000;
/// What a blob takes on the disk: a sector, an entry of a log, and a sixteenth that the engine keeps free.
const DISK_BYTES: u64 = (512 + 64) * 17 / 16;

struct Counting;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it is; counting does not touch what it returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`; the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn allocated() -> u64 {
    ALLOCATED.load(Ordering::Relaxed)
}

fn main() -> ExitCode {
    let sizes = Sizes::asked_for();
    let mut costs = Vec::new();
    println!("blobs      when            allocated, B/blob  index_bytes, B/blob");
    for blobs in sizes.fills {
        costs.extend(fill(*blobs));
    }
    costs.push(churn(sizes.churned));
    if sizes.is_full && costs.iter().any(|cost| *cost > BLOB_COST_MAX) {
        println!("more than {BLOB_COST_MAX} bytes a blob");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// How many blobs.
struct Sizes {
    fills: &'static [usize],
    churned: usize,
    is_full: bool,
}

impl Sizes {
    /// `cargo bench` says `--bench`, and `cargo test --benches` does not. Whatever else is said is for other benchmarks.
    fn asked_for() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let has = |name: &str| arguments.iter().any(|argument| argument == name);
        let is_test = has("--test") || !has("--bench");
        let is_full = has("--full") && !is_test;
        let (fills, churned): (&[usize], usize) = match (is_test, is_full) {
            (true, _) => (&[1000], 1000),
            (_, true) => (&[1_000_000, 5_000_000], 1_000_000),
            (_, false) => (&[200_000], 200_000),
        };
        Self {
            fills,
            churned,
            is_full,
        }
    }
}

/// Fills a store, and opens it again.
fn fill(blobs: usize) -> [u64; 2] {
    let home = home();
    let filled = {
        let open = Open::new(home.path(), DiskOptions::default().bytes_max);
        open.put(5, blobs);
        open.cost("filled")
    };
    [
        filled,
        Open::new(home.path(), DiskOptions::default().bytes_max).cost("after a start"),
    ]
}

/// Fills a store that has room for so many blobs, and puts half as many more.
fn churn(blobs: usize) -> u64 {
    let home = home();
    let open = Open::new(home.path(), (blobs as u64 * DISK_BYTES).max(1 << 20));
    open.put(6, blobs);
    open.put(7, blobs / 2);
    let evicted = open.store.statistics().counters.evicted_blobs;
    let cost = open.cost("half replaced");
    println!("           ({evicted} evicted)");
    cost
}

/// A directory for a store, on a real disk.
fn home() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for a store")
}

/// A store, and what was allocated before it knew of any blob.
struct Open {
    store: DiskStore,
    runtime: Runtime,
    before: u64,
}

impl Open {
    fn new(dir: &Path, bytes_max: u64) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).build();
        let runtime = runtime.expect("a runtime starts");
        let options = DiskOptions {
            layout: Arc::new(HybridKind::default()),
            bytes_max,
            scrub: None,
            ..DiskOptions::default()
        };
        let open = |dir: &Path| runtime.block_on(DiskStore::open(dir, options.clone(), Arc::new(SystemClock)));
        // An empty store with the same settings: what it allocates is not for blobs.
        let empty_home = home();
        let start = allocated();
        let empty = open(empty_home.path()).expect("the store opens");
        let own = allocated().saturating_sub(start);
        drop(empty);
        let before = allocated() + own;
        let store = open(dir).expect("the store opens");
        Self { store, runtime, before }
    }

    fn put(&self, seed: u64, blobs: usize) {
        for batch in 0..blobs.div_ceil(BATCH) {
            let seed = seed << 32 | batch as u64;
            let workload = Workload::uniform(seed, BLOB_BYTES, BATCH.min(blobs - batch * BATCH));
            for outcome in self.runtime.block_on(self.store.put_many(workload.blobs)) {
                outcome.expect("the blob is stored");
            }
        }
    }

    /// Shows what a blob costs in bytes, rounded up.
    fn cost(&self, when: &str) -> u64 {
        let grown = allocated().saturating_sub(self.before);
        let statistics = self.store.statistics();
        let blobs = statistics.blobs;
        let index = tenths(statistics.index_bytes, blobs);
        println!("{blobs:<9}  {when:<14}  {:>17}  {index:>19}", tenths(grown, blobs));
        grown.div_ceil(blobs.max(1))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.runtime.block_on(self.store.close()).expect("the store closes");
    }
}

fn tenths(bytes: u64, blobs: u64) -> String {
    let tenths = bytes * 10 / blobs.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}
