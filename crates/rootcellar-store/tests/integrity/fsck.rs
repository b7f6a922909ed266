//! Checking a store that nobody uses: what is wrong is told, and nothing is changed unless it is asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::slice;

use rootcellar_digest::Digest;
use rootcellar_store::{ErrorKind, FsckOptions, FsckReport, fsck};

use super::{LAYOUTS, SIZES, assert_present_but, blobs_of, digests_of, flip, open, place_of, put_all, snapshot};

fn run(dir: &Path, repair: bool) -> FsckReport {
    let options = FsckOptions {
        repair,
        ..FsckOptions::default()
    };
    fsck(dir, &options, |_| {}).unwrap()
}

/// Checks a store, and that doing so changes nothing.
pub(super) fn look(dir: &Path) -> FsckReport {
    let before = snapshot(dir);
    let report = run(dir, false);
    assert!(snapshot(dir) == before, "a check changed something");
    report
}

fn assert_clean(dir: &Path, blobs: u64) {
    let report = look(dir);
    assert!(
        report.is_clean() && report.blobs == blobs && report.twice == 0,
        "{report}"
    );
}

/// Puts blobs, tells where they lie, and ends in good order or as a kill does.
async fn make(dir: &Path, layout: &str, is_closed: bool) -> Vec<(PathBuf, u64)> {
    let blobs = blobs_of(20, &SIZES);
    let store = open(dir, layout).await;
    put_all(&store, &blobs).await;
    if is_closed {
        store.close().await.unwrap();
    }
    let places = digests_of(&blobs).into_iter().map(|digest| place_of(&store, digest));
    places.collect()
}

#[tokio::test]
async fn a_store_that_was_closed_or_killed_is_clean() {
    for layout in LAYOUTS {
        for is_closed in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            make(dir.path(), layout, is_closed).await;
            assert_clean(dir.path(), 6);
            let report = look(dir.path());
            assert_eq!(report.layout, layout);
            assert_eq!(report.bytes, SIZES.iter().sum::<usize>() as u64);
        }
    }
}

#[tokio::test]
async fn every_blob_is_told_of_while_it_is_checked() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), layout, true).await;
        let mut told = Vec::new();
        fsck(dir.path(), &FsckOptions::default(), |progress| told.push(progress)).unwrap();
        let blobs: Vec<u64> = told.iter().map(|progress| progress.blobs).collect();
        assert_eq!(blobs, [1, 2, 3, 4, 5, 6]);
        assert!(told.iter().all(|progress| progress.bytes <= progress.bytes_in_all));
    }
}

#[tokio::test]
async fn a_flipped_byte_is_told_with_its_digest_and_its_blob_dropped_by_a_repair() {
    let blobs = blobs_of(20, &SIZES);
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let places = make(dir.path(), layout, true).await;
        let lost = [blobs[1].digest(), blobs[5].digest()];
        flip(&places[1].0, places[1].1 + 699);
        flip(&places[5].0, places[5].1);

        let report = look(dir.path());
        assert_damaged(&report, &lost);
        assert!(report.to_string().contains(&lost[0].to_string()), "{report}");
        assert_damaged(&run(dir.path(), true), &lost);
        assert_clean(dir.path(), 4);
        let store = open(dir.path(), layout).await;
        assert_present_but(&store, &blobs, &lost).await;
        put_all(&store, &blobs).await;
        store.close().await.unwrap();
        drop(store);
        assert_clean(dir.path(), 6);
    }
}

fn assert_damaged(report: &FsckReport, lost: &[Digest]) {
    let mut damaged: Vec<Digest> = report.damaged.iter().map(|(digest, _)| *digest).collect();
    let mut lost = lost.to_vec();
    damaged.sort_unstable();
    lost.sort_unstable();
    assert_eq!(damaged, lost, "{report}");
    assert_eq!(
        (report.blobs, report.torn.len(), report.damaged_log_slots),
        (4, 0, 0),
        "{report}"
    );
}

#[tokio::test]
async fn a_file_that_no_log_speaks_of_is_told_and_removed_by_a_repair() {
    for layout in ["loose", "hybrid"] {
        for is_closed in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            make(dir.path(), layout, is_closed).await;
            let stray = blobs_of(21, &[30_000]).remove(0).digest();
            let hash = stray.hash_hex().to_string();
            let orphan = dir.path().join("loose/sha256").join(&hash[..2]).join(&hash);
            fs::create_dir_all(orphan.parent().unwrap()).unwrap();
            fs::write(&orphan, vec![7; 30_000]).unwrap();

            let report = look(dir.path());
            assert_eq!(report.orphans, slice::from_ref(&orphan), "{report}");
            assert!(!report.is_clean());
            assert_eq!(run(dir.path(), true).orphans, slice::from_ref(&orphan));
            assert!(!orphan.exists());
            assert_clean(dir.path(), 6);
            assert_present_but(&open(dir.path(), layout).await, &blobs_of(20, &SIZES), &[]).await;
        }
    }
}

#[tokio::test]
async fn half_of_a_pack_is_told_and_removed_by_a_repair() {
    for layout in ["packed", "hybrid"] {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), layout, true).await;
        let orphan = dir.path().join("packs/00000099.data");
        fs::write(&orphan, [7; 1000]).unwrap();
        assert_eq!(look(dir.path()).orphans, slice::from_ref(&orphan));
        run(dir.path(), true);
        assert!(!orphan.exists());
        assert_clean(dir.path(), 6);
        assert_present_but(&open(dir.path(), layout).await, &blobs_of(20, &SIZES), &[]).await;
    }
}

#[tokio::test]
async fn a_flipped_byte_of_a_log_is_told() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), layout, true).await;
        let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
        let log = snapshot(dir.path()).into_keys().find(is_log).unwrap();
        // The size in the first entry.
        flip(&log, 64 + 8);
        let report = look(dir.path());
        assert!(report.damaged_log_slots > 0 && report.blobs == 5, "{report}");
    }
}

#[tokio::test]
async fn a_store_in_use_is_not_checked() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let _store = open(dir.path(), layout).await;
        for repair in [false, true] {
            let options = FsckOptions {
                repair,
                ..FsckOptions::default()
            };
            let error = fsck(dir.path(), &options, |_| {}).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let process = format!("in use by process {}", std::process::id());
            assert!(error.to_string().contains(&process), "{error}");
        }
    }
}

#[test]
fn a_directory_that_is_no_store_is_not_checked() {
    let dir = tempfile::tempdir().unwrap();
    for repair in [false, true] {
        let options = FsckOptions {
            repair,
            ..FsckOptions::default()
        };
        let error = fsck(dir.path(), &options, |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("no store here"), "{error}");
        assert!(snapshot(dir.path()).is_empty());
    }
}
