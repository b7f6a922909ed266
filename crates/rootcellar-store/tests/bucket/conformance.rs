//! The suites, over buckets of several sorts.

use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use rootcellar_store::SystemClock;
use rootcellar_store::bucket::{Bucket, BucketOptions};
use rootcellar_store::testing::{Persistent, check_blob_store, check_unbounded_records};

use crate::faulty::FaultyObjects;

/// So that some blobs of the suite are sent in parts.
fn options() -> BucketOptions {
    BucketOptions::default().with_single_put_bytes_max(300_000)
}

fn compressing() -> BucketOptions {
    options().with_zstd_level(Some(1))
}

fn bucket(objects: impl object_store::ObjectStore, options: BucketOptions) -> Bucket {
    Bucket::new(Arc::new(objects), "some/where", options, Arc::new(SystemClock)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_a_store() {
    check_blob_store(async |_| Arc::new(bucket(InMemory::new(), options())) as _).await;
    check_blob_store(async |_| Arc::new(bucket(InMemory::new(), compressing())) as _).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_as_a_bucket_is_a_store() {
    let dir = tempfile::tempdir().unwrap();
    check_blob_store(async |_| {
        let below = tempfile::tempdir_in(dir.path()).unwrap().keep();
        Arc::new(bucket(LocalFileSystem::new_with_prefix(below).unwrap(), options())) as _
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_a_service_reach_nobody_as_content() {
    for options in [options(), compressing()] {
        let mut injected = 0;
        for seed in 0..3 {
            let objects = Arc::new(std::sync::Mutex::new(Vec::new()));
            let made = objects.clone();
            check_blob_store(async |_| {
                let faulty = Arc::new(FaultyObjects::new(InMemory::new(), seed, 7));
                made.lock().unwrap().push(faulty.clone());
                Arc::new(Persistent::new(Arc::new(bucket(faulty, options.clone())))) as _
            })
            .await;
            injected += objects
                .lock()
                .unwrap()
                .iter()
                .map(|faulty| faulty.injected())
                .sum::<u64>();
        }
        assert!(injected > 300, "{injected} faults");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_bucket_are_records() {
    check_unbounded_records(async |_, clock| {
        let bucket = Bucket::new(Arc::new(InMemory::new()), "", BucketOptions::default(), clock).unwrap();
        Arc::new(bucket.records()) as _
    })
    .await;
}
