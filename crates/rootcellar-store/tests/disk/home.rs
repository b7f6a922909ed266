//! The directory of a store: one process at a time, and nobody else's directory.

use std::fs;

use rootcellar_store::{DiskOptions, ErrorKind};

use super::{open, open_with, put_some};

async fn refusal(dir: &std::path::Path) -> (ErrorKind, String) {
    let error = open_with(dir, DiskOptions::default()).await.unwrap_err();
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn a_second_user_is_refused_and_told_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (kind, message) = refusal(dir.path()).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    let process = format!("in use by process {}", std::process::id());
    assert!(message.contains(&process), "{message}");
    drop(store);
    open(dir.path()).await;
}

#[tokio::test]
async fn a_store_keeps_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).await.id().to_owned();
    assert_eq!(open(dir.path()).await.id(), first);
    let other = tempfile::tempdir().unwrap();
    assert_ne!(open(other.path()).await.id(), first);
}

#[tokio::test]
async fn a_directory_with_other_things_in_it_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), b"dear").unwrap();
    let (kind, message) = refusal(dir.path()).await;
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(message.contains("thesis.tex"), "{message}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_a_crash_in_the_making_leaves_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("lock"), b"").unwrap();
    fs::write(dir.path().join("FORMAT.new"), b"rootcel").unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    put_some(&open(dir.path()).await, 1, 1).await;
}

#[tokio::test]
async fn a_newer_or_foreign_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).await);
    let format = dir.path().join("FORMAT");
    let original = fs::read_to_string(&format).unwrap();
    for (text, expected) in [
        (original.replace("version 1", "version 7"), ["version 7", "version 1"]),
        (original.replace("layout loose", "layout packed"), ["packed", "loose"]),
        ("something else\n".to_owned(), ["something else's", "no store"]),
        (String::new(), ["something else's", "no store"]),
        ("rootcellar store\nversion\n".to_owned(), ["names", "no version"]),
        (
            "rootcellar store\nversion 1\nlayout loose\n".to_owned(),
            ["FORMAT", "cut off"],
        ),
    ] {
        fs::write(&format, text).unwrap();
        let (kind, message) = refusal(dir.path()).await;
        assert_eq!(kind, ErrorKind::InvalidArgument, "{message}");
        for part in expected {
            assert!(message.contains(part), "{message}");
        }
    }
    fs::write(&format, original).unwrap();
    open(dir.path()).await;
}
