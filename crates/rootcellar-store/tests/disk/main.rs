//! What a store on disk promises beyond the contracts: about crashes, damage, bounds, and its directory.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]
#![expect(
    clippy::print_stdout,
    reason = "so is the captured output, and a child's acknowledgements"
)]

mod crash;
mod damage;
mod eviction;
mod files;
mod full;
mod home;
mod model;
mod start;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::testing::Seeded;
use rootcellar_store::{
    BlobStore as _, BlobStoreExt as _, DiskOptions, DiskStore, LocalStore as _, Location, Result, SystemClock,
};

async fn open(dir: &Path) -> DiskStore {
    open_with(dir, DiskOptions::default()).await.unwrap()
}

async fn open_with(dir: &Path, options: DiskOptions) -> Result<DiskStore> {
    DiskStore::open(dir, options, Arc::new(SystemClock)).await
}

/// Puts blobs of 5,000 bytes, and tells their names.
async fn put_some(store: &DiskStore, seed: u64, count: usize) -> Vec<Digest> {
    let mut seeded = Seeded::new(seed);
    let blobs: Vec<_> = (0..count).map(|_| seeded.blob(DigestFunction::Sha256, 5000)).collect();
    let digests = blobs.iter().map(rootcellar_store::Verified::digest).collect();
    for outcome in store.put_many(blobs).await {
        outcome.unwrap();
    }
    digests
}

fn path(store: &DiskStore, digest: Digest) -> PathBuf {
    let Location::Loose { path } = store.locate(digest).unwrap() else {
        panic!("this layout has files")
    };
    path
}

/// Reads a blob and compares it with its name.
async fn assert_whole(store: &DiskStore, digest: Digest) {
    let bytes = store.read(digest, u64::MAX).await.unwrap();
    assert_eq!(Digest::of(digest.function(), &bytes), digest);
}

/// All files among a store's blobs.
fn blob_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.join("loose")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

/// The digest that a file in the loose layout is named for.
fn named_digest(path: &Path) -> Digest {
    let name = path.file_name().unwrap().to_str().unwrap();
    let function = path.parent().unwrap().parent().unwrap().file_name().unwrap();
    let text = format!("{}/{}", function.to_str().unwrap(), name.replace('-', "/"));
    text.parse().unwrap()
}
