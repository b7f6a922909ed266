//! Stored bytes that change behind the store's back: one damaged byte costs one blob, and is never served.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use futures_util::{StreamExt as _, TryStreamExt as _};
use rootcellar_digest::DigestFunction;
use rootcellar_store::testing::Seeded;
use rootcellar_store::{BlobStore as _, BlobStoreExt as _, ByteRange, ErrorKind, Leased, LocalStore as _};

use super::{assert_whole, open, path, put_some};

pub(crate) fn flip_a_byte(path: &Path, at: u64) {
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

pub(crate) fn cut(path: &Path, len: u64) {
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[tokio::test]
async fn a_flipped_byte_costs_its_blob_on_the_first_read_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let digests = put_some(&store, 1, 3).await;
    let damaged = path(&store, digests[1]);
    store.close().await.unwrap();
    drop(store);
    flip_a_byte(&damaged, 4999);

    let store = open(dir.path()).await;
    let range = ByteRange {
        offset: 0,
        len: Some(1),
    };
    let error = store.get(digests[1], range).await.unwrap_err();
    assert_eq!((error.kind(), error.digest()), (ErrorKind::DataLoss, Some(digests[1])));
    let error = store.get(digests[1], range).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(store.find_missing(&digests).await.unwrap(), [digests[1]]);
    assert_eq!(store.statistics().damaged_blobs, 1);
    assert!(!damaged.exists());

    assert_eq!(put_some(&store, 1, 3).await, digests);
    for digest in digests {
        assert_whole(&store, digest).await;
    }
}

#[tokio::test]
async fn a_batch_with_a_damaged_blob_yields_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let digests = put_some(&store, 2, 3).await;
    drop(store);
    let store = open(dir.path()).await;
    flip_a_byte(&path(&store, digests[0]), 0);
    let mut outcomes = store.get_many(&digests).await;
    assert_eq!(outcomes.remove(0).unwrap_err().kind(), ErrorKind::DataLoss);
    for outcome in outcomes {
        outcome.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_blob_is_not_leased() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let digests = put_some(&store, 3, 3).await;
    drop(store);
    let store = open(dir.path()).await;
    flip_a_byte(&path(&store, digests[2]), 7);
    let Leased::Missing(missing) = store.lease(&digests).await.unwrap() else {
        panic!("a damaged blob was leased")
    };
    assert_eq!(missing, [digests[2]]);
}

#[tokio::test]
async fn a_file_cut_off_while_the_store_runs_is_data_loss() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let digests = put_some(&store, 4, 2).await;
    cut(&path(&store, digests[0]), 4000);
    let error = store.get(digests[0], ByteRange::ALL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert_eq!(store.find_missing(&digests).await.unwrap(), [digests[0]]);
    assert_eq!(put_some(&store, 4, 2).await, digests);
    assert_whole(&store, digests[0]).await;
}

#[tokio::test]
async fn a_file_cut_off_while_it_is_read_ends_the_read_and_the_blob() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let blob = Seeded::new(8).blob(DigestFunction::Sha256, 1_000_000);
    let digest = blob.digest();
    store.put(blob.clone()).await.unwrap();
    let mut pieces = store.get(digest, ByteRange::ALL).await.unwrap().into_stream();
    pieces.next().await.unwrap().unwrap();
    cut(&path(&store, digest), 500_000);
    let error = pieces.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(!store.contains(digest).await.unwrap());
    store.put(blob).await.unwrap();
    assert_whole(&store, digest).await;
}

#[tokio::test]
async fn a_file_removed_by_somebody_else_can_be_put_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let digests = put_some(&store, 5, 2).await;
    fs::remove_file(path(&store, digests[0])).unwrap();
    let error = store.get(digests[0], ByteRange::ALL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!store.contains(digests[0]).await.unwrap());
    assert_eq!(put_some(&store, 5, 2).await, digests);
    assert_whole(&store, digests[0]).await;
}

#[tokio::test]
async fn a_stray_file_in_a_blobs_place_is_not_taken_for_the_blob() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let digests = put_some(&store, 6, 1).await;
    let place = path(&store, digests[0]);
    drop(store);
    fs::rename(&place, dir.path().join("aside")).unwrap();
    let store = open(dir.path()).await;
    fs::write(&place, b"stray").unwrap();
    assert_eq!(put_some(&store, 6, 1).await, digests);
    assert_whole(&store, digests[0]).await;
}

/// The lease of the damaged blob ends after the blob came back: it must not end the lease of the new one.
#[tokio::test]
async fn a_lease_on_a_lost_blob_does_not_end_a_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let blob = Seeded::new(7).blob(DigestFunction::Sha256, 5000);
    let digest = blob.digest();
    store.put(blob.clone()).await.unwrap();
    let lost = store.lease(&[digest]).await.unwrap();
    cut(&path(&store, digest), 0);
    store.get(digest, ByteRange::ALL).await.unwrap_err();
    assert_eq!(store.statistics().leased_bytes, 0);
    store.put(blob).await.unwrap();
    let held = store.lease(&[digest]).await.unwrap();
    let leased_bytes = store.statistics().leased_bytes;
    drop(lost);
    assert_eq!(store.statistics().leased_bytes, leased_bytes);
    drop(held);
    assert_eq!(store.statistics().leased_bytes, 0);
}
