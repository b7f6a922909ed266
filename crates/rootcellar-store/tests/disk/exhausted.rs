//! A disk that is full, and a process that may open no more files: puts are refused, nothing is torn, and it passes by itself.

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use rootcellar_digest::DigestFunction;
use rootcellar_store::testing::Seeded;
use rootcellar_store::{
    BlobStore as _, ByteRange, DiskOptions, DiskStore, Durability, ErrorKind, LocalStore as _, Verified,
};

use super::child::{self, Job};
use super::mounted::Mounted;
use super::{LAYOUTS, assert_whole, assert_whole_or_gone, blobs, digests, open, options, put_all};

const QUICKLY: Durability = Durability::Interval(Duration::from_millis(5));

/// Puts a blob until there is room for it. Only a want of room may keep it out.
async fn put_at_last(store: &DiskStore, blob: &Verified) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match store.put(blob.clone()).await {
            Ok(()) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}"),
        }
        let statistics = store.statistics();
        assert!(
            Instant::now() < deadline,
            "{store}: no room after a minute: {statistics:?}"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_store_on_a_full_disk_makes_room_and_goes_on() {
    for layout in LAYOUTS {
        let Some(filesystem) = Mounted::new(8) else {
            return;
        };
        // The bound says that there is far more room than there is.
        let options = DiskOptions {
            durability: QUICKLY,
            ..options(layout, 1 << 30)
        };
        let store = open(filesystem.path(), options.clone()).await;
        let blobs = blobs(1, 2000);
        for blob in &blobs {
            put_at_last(&store, blob).await;
        }
        let counters = store.statistics().counters;
        assert!(counters.evicted_blobs > 0, "{layout}: {counters:?}");
        check_present(&store, &blobs, layout).await;
        drop(store);
        let store = open(filesystem.path(), options).await;
        check_present(&store, &blobs, layout).await;
        put_at_last(&store, &Seeded::new(2).blob(DigestFunction::Sha256, 5000)).await;
    }
}

/// What is present is whole, and some of it is.
async fn check_present(store: &DiskStore, blobs: &[Verified], layout: &str) {
    let missing = store.find_missing(&digests(blobs)).await.unwrap();
    assert!(missing.len() < blobs.len(), "{layout}: everything is gone");
    for blob in blobs {
        if !missing.contains(&blob.digest()) {
            assert_whole_or_gone(store, blob.digest()).await;
        }
    }
    assert_eq!(store.statistics().counters.damaged_blobs, 0, "{layout}");
}

#[tokio::test]
async fn a_full_disk_of_leased_blobs_refuses_puts_until_the_lease_ends() {
    for layout in LAYOUTS {
        let Some(filesystem) = Mounted::new(8) else {
            return;
        };
        let store = open(filesystem.path(), options(layout, 1 << 30)).await;
        let kept = put_all(&store, &blobs(1, 300)).await;
        let lease = store.lease(&kept).await.unwrap();
        let mut seeded = Seeded::new(3);
        let error = loop {
            let blob = seeded.blob(DigestFunction::Sha256, 30_000);
            match store.put(blob.clone()).await {
                Ok(()) => drop(store.lease(&[blob.digest()]).await.unwrap()),
                Err(error) => break error,
            }
            if store.statistics().counters.evicted_blobs > 0 {
                // What is not leased gave way, which is as good.
                break store
                    .put(seeded.blob(DigestFunction::Sha256, 20 << 20))
                    .await
                    .unwrap_err();
            }
        };
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{layout}: {error}");
        assert_eq!(store.find_missing(&kept).await.unwrap(), [], "{layout}");
        for digest in &kept {
            assert_whole(&store, *digest).await;
        }
        drop(lease);
        put_at_last(&store, &seeded.blob(DigestFunction::Sha256, 30_000)).await;
    }
}

/// Files that the child may have open.
const FILES: &str = "96";

#[test]
fn a_process_that_may_open_no_more_files_refuses_and_recovers() {
    let test = "exhausted::a_process_that_may_open_no_more_files_refuses_and_recovers";
    if let Some(job) = child::job() {
        return starve(&job);
    }
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let child = child::command(test, dir.path(), layout);
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", FILES]);
        limited.arg(child.get_program()).args(child.get_args());
        for (name, value) in child.get_envs() {
            limited.env(name, value.unwrap());
        }
        let output = limited.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{layout}:\n{told}\n{complained}");
    }
}

#[tokio::main]
async fn starve(job: &Job) {
    let options = DiskOptions {
        durability: QUICKLY,
        ..options(&job.words[0], 64 << 20)
    };
    let store = open(&job.dir, options).await;
    let stored = blobs(1, 40);
    put_all(&store, &stored).await;
    let mut files = open_files_until_there_are_no_more();
    let mut refused = 0;
    for blob in &blobs(2, 40) {
        // The store may have closed one meanwhile, and one is enough for a put.
        files.extend(open_files_until_there_are_no_more());
        match store.put(blob.clone()).await {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
                refused += 1;
            }
        }
    }
    for blob in &stored {
        let read = async {
            let found = store.get(blob.digest(), ByteRange::ALL).await?;
            found.into_bytes().await
        };
        match read.await {
            Ok(bytes) => assert_eq!(bytes.len() as u64, blob.digest().size_bytes()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
                refused += 1;
            }
        }
    }
    // Packs stay open, so nothing need be refused there.
    assert!(refused > 0 || job.words[0] == "packed", "nothing was refused");
    drop(files);
    for blob in &blobs(2, 40) {
        put_at_last(&store, blob).await;
        assert_whole(&store, blob.digest()).await;
    }
    for blob in &stored {
        assert_whole(&store, blob.digest()).await;
    }
    assert_eq!(store.statistics().counters.damaged_blobs, 0);
    store.close().await.unwrap();
}

fn open_files_until_there_are_no_more() -> Vec<File> {
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    files
}
