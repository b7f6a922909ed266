//! A filesystem that has no room left.

use std::path::Path;
use std::process::Command;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::testing::{self, Seeded};
use rootcellar_store::{BlobStore as _, ErrorKind, LocalStore as _};

use super::{assert_whole, blob_files, open};

const FILESYSTEM: &str = "size=4m";
const BLOB_BYTES: usize = 600_000;

/// A small filesystem in memory, unmounted when dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// `None` without the privilege to mount.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", FILESYSTEM, "tmpfs"])
            .arg(dir.path())
            .status();
        mount.is_ok_and(|status| status.success()).then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(self.path()).status().unwrap();
        assert!(status.success());
    }
}

#[tokio::test]
async fn a_full_filesystem_refuses_puts_and_tears_nothing() {
    let Some(filesystem) = Mounted::new() else {
        testing::skip("root, to mount a filesystem");
        return;
    };
    let store = open(filesystem.path()).await;
    let mut seeded = Seeded::new(1);
    let mut put: Vec<Digest> = Vec::new();
    let error = loop {
        let blob = seeded.blob(DigestFunction::Sha256, BLOB_BYTES);
        let digest = blob.digest();
        match store.put(blob).await {
            Ok(()) => put.push(digest),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(put.len() >= 3, "{} blobs fitted", put.len());

    let content = seeded.bytes(BLOB_BYTES);
    let mut ingest = store
        .spool()
        .ingest(Digest::of(DigestFunction::Sha256, &content))
        .unwrap();
    let error = ingest.write(content).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    drop(ingest);

    assert_eq!(store.statistics().blobs, put.len() as u64);
    assert_eq!(blob_files(filesystem.path()).len(), put.len());
    assert_eq!(std::fs::read_dir(filesystem.path().join("tmp")).unwrap().count(), 0);
    for digest in put {
        assert_whole(&store, digest).await;
    }
    let small = seeded.blob(DigestFunction::Sha256, 100);
    store.put(small.clone()).await.unwrap();
    assert_whole(&store, small.digest()).await;
}
