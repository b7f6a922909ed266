//! What becomes of a store whose bytes, files or directory are not what it left: one damaged byte costs one blob, and nothing
//! damaged is ever handed out.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod damage;
mod fsck;
mod golden;
mod home;
mod log_damage;
mod scrub;

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::layout::kind_named;
use rootcellar_store::testing::{Lane, Next, Seeded, SteppedStore};
use rootcellar_store::{
    BlobStore as _, BlobStoreExt as _, Content, DiskOptions, DiskStore, LocalStore as _, Location, SystemClock,
    Verified,
};

const LAYOUTS: [&str; 3] = ["loose", "packed", "hybrid"];
/// Small ones, the largest that the hybrid layout packs, and two above that.
const SIZES: [usize; 6] = [100, 700, 5000, 16 << 10, 20_000, 70_000];

fn options(layout: &str) -> DiskOptions {
    DiskOptions {
        layout: kind_named(layout).unwrap(),
        bytes_max: 64 << 20,
        scrub: None,
        ..DiskOptions::default()
    }
}

async fn open(dir: &Path, layout: &str) -> DiskStore {
    DiskStore::open(dir, options(layout), Arc::new(SystemClock))
        .await
        .unwrap()
}

fn blobs_of(seed: u64, sizes: &[usize]) -> Vec<Verified> {
    let mut seeded = Seeded::new(seed);
    let blob = |size: &usize| seeded.blob(DigestFunction::Sha256, *size);
    sizes.iter().map(blob).collect()
}

fn digests_of(blobs: &[Verified]) -> Vec<Digest> {
    blobs.iter().map(Verified::digest).collect()
}

fn content_of(blob: &Verified) -> &Bytes {
    match blob.content() {
        Content::Bytes(bytes) => bytes,
        _ => panic!("blobs of these tests are in memory"),
    }
}

async fn put_all(store: &DiskStore, blobs: &[Verified]) {
    for outcome in store.put_many(blobs.to_vec()).await {
        outcome.unwrap();
    }
}

/// Asserts that each of `blobs` is present and reads back whole, but for `missing`, which is absent.
async fn assert_present_but(store: &DiskStore, blobs: &[Verified], missing: &[Digest]) {
    assert_eq!(store.find_missing(&digests_of(blobs)).await.unwrap(), missing);
    for blob in blobs.iter().filter(|blob| !missing.contains(&blob.digest())) {
        let read = store.read(blob.digest(), u64::MAX).await.unwrap();
        assert!(read == content_of(blob), "{} is another one", blob.digest());
    }
}

/// The file that holds a blob, and the blob's first byte in it.
fn place_of(store: &DiskStore, digest: Digest) -> (PathBuf, u64) {
    match store.locate(digest).unwrap() {
        Location::Loose { path } => (path.to_path_buf(), 0),
        Location::Packed { path, offset } => (path.to_path_buf(), offset),
        _ => panic!("an unknown sort of place"),
    }
}

fn writable(path: &Path) -> File {
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}

/// Flips a bit behind the store's back.
fn flip(path: &Path, at: u64) {
    let (file, mut byte) = (writable(path), [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Every directory below `dir`, and every file with its bytes.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut snapshot(&path));
            found.insert(path, None);
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, Some(bytes));
        }
    }
    found
}

/// Has a stepped store take blobs in.
fn put_stepped(store: &SteppedStore, blobs: &[Verified]) {
    let mut put = store.put(blobs.to_vec()).unwrap();
    let outcomes = (0..100).find_map(|_| {
        store.step(Lane::Commit);
        put.outcomes()
    });
    for outcome in outcomes.unwrap() {
        outcome.unwrap();
    }
}

/// Takes steps of the upkeep lane as long as there is something to do at once.
fn settle(store: &SteppedStore) {
    let is_done = (0..1000).any(|_| store.step(Lane::Upkeep) != Next::Again);
    assert!(is_done, "the upkeep lane does not come to rest");
}
