//! What a store on disk promises beyond the contracts: under kills, on full disks, at its bound. Each claim holds for every layout.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]
#![expect(
    clippy::print_stdout,
    reason = "so is the captured output, and a child's acknowledgements"
)]

mod bound;
mod child;
mod commit;
mod eviction;
mod exhausted;
mod kill;
mod model;
mod mounted;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::layout::{LayoutKind, kind_named};
use rootcellar_store::testing::Seeded;
use rootcellar_store::{BlobStore, BlobStoreExt as _, DiskOptions, DiskStore, ErrorKind, SystemClock, Verified};

const LAYOUTS: [&str; 3] = ["loose", "packed", "hybrid"];

fn layout(name: &str) -> Arc<dyn LayoutKind> {
    kind_named(name).unwrap()
}

/// Options for a small store.
fn options(name: &str, bytes_max: u64) -> DiskOptions {
    DiskOptions {
        layout: layout(name),
        bytes_max,
        ..DiskOptions::default()
    }
}

/// Opens a store. Another test of this binary may be starting a child at the moment, which has the lock of a store that was just
/// dropped until it runs its own program.
async fn open(dir: &Path, options: DiskOptions) -> DiskStore {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match DiskStore::open(dir, options.clone(), Arc::new(SystemClock)).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {
                tokio::task::yield_now().await;
            }
            opened => return opened.unwrap(),
        }
    }
}

/// Blobs of which every fourth lies alone in the hybrid layout.
fn blobs(seed: u64, count: usize) -> Vec<Verified> {
    let mut seeded = Seeded::new(seed);
    let blob = |n| seeded.blob(DigestFunction::Sha256, if n % 4 == 3 { 30_000 } else { 3000 });
    (0..count).map(blob).collect()
}

fn digests(blobs: &[Verified]) -> Vec<Digest> {
    blobs.iter().map(Verified::digest).collect()
}

/// Puts blobs a few at a time, and tells their names.
async fn put_all(store: &dyn BlobStore, blobs: &[Verified]) -> Vec<Digest> {
    for batch in blobs.chunks(20) {
        for outcome in store.put_many(batch.to_vec()).await {
            outcome.unwrap();
        }
    }
    digests(blobs)
}

/// Reads a blob and compares it with its name.
async fn assert_whole(store: &dyn BlobStore, digest: Digest) {
    let bytes = store.read(digest, u64::MAX).await.unwrap();
    assert_eq!(Digest::of(digest.function(), &bytes), digest);
}

/// The same, for a store that may let go of it at any moment.
async fn assert_whole_or_gone(store: &dyn BlobStore, digest: Digest) {
    match store.read(digest, u64::MAX).await {
        Ok(bytes) => assert_eq!(Digest::of(digest.function(), &bytes), digest),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
    }
}

/// Bytes of the disk that the files below a directory take; what goes meanwhile is left out.
fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        // A name that was removed may still be listed.
        Ok(metadata) if metadata.nlink() > 0 => metadata.blocks() * 512 / metadata.nlink(),
        _ => 0,
    };
    entries.flatten().map(bytes).sum()
}
