//! The directory of a store: one process at a time, and nobody else's directory.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rootcellar_store::{DiskStore, ErrorKind, SystemClock};

use super::{LAYOUTS, SIZES, assert_present_but, blobs_of, open, options, put_all, snapshot};

/// Asserts that `dir` is refused with a message that has all of `parts` in it, and left as it is.
async fn assert_refused(dir: &Path, layout: &str, parts: &[&str]) {
    let before = snapshot(dir);
    let error = DiskStore::open(dir, options(layout), Arc::new(SystemClock))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let message = error.to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert!(snapshot(dir) == before, "something was changed: {message}");
}

#[tokio::test]
async fn a_directory_with_other_things_in_it_is_refused_and_left_as_it_is() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), b"dear").unwrap();
        assert_refused(
            dir.path(),
            layout,
            &["no store", "thesis.tex", "choose an empty directory"],
        )
        .await;
    }
}

#[tokio::test]
async fn a_format_that_is_not_this_one_is_refused_by_name_and_left_as_it_is() {
    let blobs = blobs_of(30, &SIZES);
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), layout).await;
        put_all(&store, &blobs).await;
        store.close().await.unwrap();
        drop(store);
        let format = dir.path().join("FORMAT");
        let original = fs::read_to_string(&format).unwrap();
        let found = format!("layout {layout}");
        for (text, parts) in [
            (original.replace("version 2", "version 7"), ["version 7", "version 2"]),
            (
                original.replace("version 2", "version 1"),
                ["version 1", "never released"],
            ),
            (original.replace("version 2", "version"), ["FORMAT", "no version"]),
            (original.replace(&found, "layout upright"), ["upright", layout]),
            (
                original.lines().take(3).collect::<Vec<_>>().join("\n"),
                ["FORMAT", "cut off"],
            ),
            (original[..original.len() - 4].to_owned(), ["FORMAT", "cut off"]),
            ("something else\n".to_owned(), ["no store", "something else's"]),
            (String::new(), ["no store", "something else's"]),
        ] {
            fs::write(&format, text).unwrap();
            assert_refused(dir.path(), layout, &parts).await;
        }
        fs::write(&format, original).unwrap();
        assert_present_but(&open(dir.path(), layout).await, &blobs, &[]).await;
    }
}

#[tokio::test]
async fn another_layout_than_the_one_it_was_made_with_is_refused() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), layout).await);
        assert_eq!(DiskStore::layout_of(dir.path()).unwrap().unwrap(), layout);
        for other in LAYOUTS.into_iter().filter(|other| *other != layout) {
            assert_refused(dir.path(), other, &[layout, other]).await;
        }
        open(dir.path(), layout).await;
    }
}

#[tokio::test]
async fn a_second_user_is_refused_and_told_of_the_first() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), layout).await;
        let second = DiskStore::open(dir.path(), options(layout), Arc::new(SystemClock)).await;
        let error = second.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let process = format!("in use by process {}", std::process::id());
        assert!(error.to_string().contains(&process), "{error}");
        drop(store);
        open(dir.path(), layout).await;
    }
}

#[tokio::test]
async fn what_was_arriving_when_a_process_ended_is_removed_by_the_start() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), layout).await);
        let left = dir.path().join("tmp/left-behind");
        fs::write(&left, b"half of a bl").unwrap();
        let store = open(dir.path(), layout).await;
        assert!(!left.exists());
        assert_eq!(store.statistics().spooled_bytes, 0);
    }
}

#[tokio::test]
async fn what_a_new_filesystem_or_a_crash_in_the_making_leaves_is_no_obstacle() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        let store = open(dir.path(), layout).await;
        let blobs = blobs_of(31, &SIZES);
        put_all(&store, &blobs).await;
        assert_present_but(&store, &blobs, &[]).await;

        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lock"), b"").unwrap();
        fs::write(dir.path().join("FORMAT.new"), b"rootcel").unwrap();
        put_all(&open(dir.path(), layout).await, &blobs).await;
    }
}

#[tokio::test]
async fn a_store_keeps_its_id() {
    for layout in LAYOUTS {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = open(dir.path(), layout).await.id();
        assert_eq!(open(dir.path(), layout).await.id(), id);
        assert_ne!(open(other.path(), layout).await.id(), id);
    }
}
