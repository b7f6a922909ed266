//! The next start: what it trusts, what it hashes, and what it drops.
//!
//! A crash of the machine is played by writing another boot's id into the sync mark.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rootcellar_digest::Digest;
use rootcellar_store::{BlobStore as _, DiskOptions, DiskStore, Durability, ErrorKind};

use super::damage::{cut, flip_a_byte};
use super::{assert_whole, open, open_with, path, put_some};

/// Replaces the value of a field of the sync mark.
fn rewrite_mark(dir: &Path, field: &str, value: &str) {
    let file = dir.join("sync-mark");
    let text = fs::read_to_string(&file).unwrap();
    let rewrite = |line: &str| match line.split_once(' ') {
        Some((name, _)) if name == field => format!("{field} {value}\n"),
        _ => format!("{line}\n"),
    };
    fs::write(file, text.lines().map(rewrite).collect::<String>()).unwrap();
}

async fn open_unclosed(dir: &Path, durability: Durability) -> DiskStore {
    let options = DiskOptions {
        durability,
        ..DiskOptions::default()
    };
    open_with(dir, options).await.unwrap()
}

/// Puts three blobs, ends without closing, and flips a byte of the middle one.
async fn damaged_store(dir: &Path, durability: Durability) -> Vec<Digest> {
    let store = open_unclosed(dir, durability).await;
    let digests = put_some(&store, 1, 3).await;
    let damaged = path(&store, digests[1]);
    drop(store);
    flip_a_byte(&damaged, 2500);
    digests
}

#[tokio::test]
async fn after_a_crash_of_the_machine_what_was_not_synced_is_hashed() {
    for durability in [Durability::Interval(Duration::from_secs(3600)), Durability::None] {
        let dir = tempfile::tempdir().unwrap();
        let digests = damaged_store(dir.path(), durability).await;
        rewrite_mark(dir.path(), "boot", "another");
        let store = open(dir.path()).await;
        assert_eq!(
            store.find_missing(&digests).await.unwrap(),
            [digests[1]],
            "{durability:?}"
        );
        assert_eq!(store.statistics().damaged_blobs, 1);
        assert_whole(&store, digests[0]).await;
    }
}

#[tokio::test]
async fn after_a_crash_of_the_process_nothing_is_hashed_before_its_first_read() {
    let dir = tempfile::tempdir().unwrap();
    let digests = damaged_store(dir.path(), Durability::None).await;
    let store = open(dir.path()).await;
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
}

#[tokio::test]
async fn what_a_sync_covered_is_not_hashed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let digests = damaged_store(dir.path(), Durability::Interval(Duration::from_secs(3600))).await;
    rewrite_mark(dir.path(), "boot", "another");
    // The damage changed the file's change time, so only a mark from the far future is later.
    rewrite_mark(dir.path(), "began", "99999999999.0");
    let store = open(dir.path()).await;
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
}

#[tokio::test]
async fn what_was_synced_one_by_one_is_not_hashed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let digests = damaged_store(dir.path(), Durability::Always).await;
    rewrite_mark(dir.path(), "boot", "another");
    let store = open(dir.path()).await;
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
}

#[tokio::test]
async fn without_a_mark_everything_is_hashed() {
    for durability in [Durability::Always, Durability::None] {
        let dir = tempfile::tempdir().unwrap();
        let digests = damaged_store(dir.path(), durability).await;
        fs::remove_file(dir.path().join("sync-mark")).unwrap();
        let store = open(dir.path()).await;
        assert_eq!(store.find_missing(&digests).await.unwrap(), [digests[1]]);
    }
}

#[tokio::test]
async fn a_store_that_was_closed_is_trusted_whatever_the_boot() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_unclosed(dir.path(), Durability::None).await;
    let digests = put_some(&store, 2, 3).await;
    let damaged = path(&store, digests[0]);
    store.close().await.unwrap();
    drop(store);
    flip_a_byte(&damaged, 0);
    rewrite_mark(dir.path(), "boot", "another");
    let store = open(dir.path()).await;
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
}

#[tokio::test]
async fn a_closed_store_refuses_puts_and_still_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let digests = put_some(&store, 3, 1).await;
    store.close().await.unwrap();
    let blob = rootcellar_store::testing::Seeded::new(4).blob(rootcellar_digest::DigestFunction::Sha256, 10);
    assert_eq!(store.put(blob).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_whole(&store, digests[0]).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_file_cut_off_is_dropped_at_every_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let digests = put_some(&store, 5, 2).await;
    let damaged = path(&store, digests[0]);
    store.close().await.unwrap();
    drop(store);
    cut(&damaged, 4999);
    let store = open(dir.path()).await;
    assert_eq!(store.find_missing(&digests).await.unwrap(), [digests[0]]);
    assert_eq!(store.statistics().damaged_blobs, 1);
    assert!(!damaged.exists());
}

#[tokio::test]
async fn an_interval_sync_moves_the_mark_once_something_was_put() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_unclosed(dir.path(), Durability::Interval(Duration::from_millis(5))).await;
    let read_mark = || fs::read(dir.path().join("sync-mark")).unwrap();
    let first = read_mark();
    put_some(&store, 6, 1).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while read_mark() == first {
        assert!(Instant::now() < deadline, "no sync within a minute");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn odd_files_are_left_alone_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let digests = put_some(&store, 7, 1).await;
    let place = path(&store, digests[0]);
    drop(store);
    let odd = [
        dir.path().join("loose/notes.txt"),
        dir.path().join("loose/sha256/notes.txt"),
        place.with_file_name("notes.txt"),
        place.with_extension("tmp"),
    ];
    for file in &odd {
        fs::write(file, b"mine").unwrap();
    }
    fs::create_dir(dir.path().join("loose/md4")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", place.with_file_name("link")).unwrap();
    let store = open(dir.path()).await;
    assert_eq!(store.statistics().odd_files, 6);
    assert_eq!(store.statistics().blobs, 1);
    for file in odd {
        assert_eq!(fs::read(file).unwrap(), b"mine");
    }
    assert_whole(&store, digests[0]).await;
}
