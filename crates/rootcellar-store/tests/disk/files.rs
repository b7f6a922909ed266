//! The files of published blobs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use rootcellar_digest::DigestFunction;
use rootcellar_store::testing::{self, Seeded};
use rootcellar_store::{BlobStore as _, LocalStore as _, Spool};

use super::{assert_whole, open, path};

#[tokio::test]
async fn published_files_are_read_only_and_have_one_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for len in [1, 5000, 500_000] {
        let blob = Seeded::new(1)
            .ingested(store.spool(), DigestFunction::Sha256, len)
            .await;
        let digest = blob.digest();
        store.put(blob).await.unwrap();
        let metadata = fs::metadata(path(&store, digest)).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o444);
        assert_eq!((metadata.len(), metadata.nlink()), (len as u64, 1));
    }
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn spooled_content_is_published_without_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let blob = Seeded::new(2)
        .ingested(store.spool(), DigestFunction::Sha256, 500_000)
        .await;
    let rootcellar_store::Content::Spooled(spooled) = blob.content() else {
        panic!("content of this size is spooled")
    };
    let inode = fs::metadata(spooled.path()).unwrap().ino();
    store.put(blob.clone()).await.unwrap();
    assert_eq!(fs::metadata(path(&store, blob.digest())).unwrap().ino(), inode);
}

#[tokio::test]
async fn content_spooled_on_another_filesystem_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = |path| fs::metadata(path).unwrap().dev();
    if device(dir.path()) == device(elsewhere.path()) {
        testing::skip("a temporary directory on another filesystem than /dev/shm");
        return;
    }
    let store = open(dir.path()).await;
    let blob = Seeded::new(3)
        .ingested(&Spool::new(elsewhere.path()), DigestFunction::Blake3, 500_000)
        .await;
    let digest = blob.digest();
    store.put(blob).await.unwrap();
    assert_whole(&store, digest).await;
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

/// The kernel refuses to run a file that anybody has open for writing (`ETXTBSY`), and a spool once kept its file open so.
#[tokio::test]
async fn a_published_program_runs_while_its_content_is_still_held() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let spool = store.spool().clone().with_memory_max_bytes(0);
    let program = fs::read("/bin/true").unwrap();
    let mut ingest = spool
        .ingest(rootcellar_digest::Digest::of(DigestFunction::Sha256, &program))
        .unwrap();
    ingest.write(program.into()).await.unwrap();
    let blob = ingest.finish().unwrap();
    store.put(blob.clone()).await.unwrap();
    let file = path(&store, blob.digest());
    fs::set_permissions(&file, Permissions::from_mode(0o555)).unwrap();
    assert!(Command::new(file).status().unwrap().success());
}
