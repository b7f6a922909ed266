//! The bound on what a store takes: never exceeded, whatever happens, by whatever is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::testing::Seeded;
use rootcellar_store::{
    BlobStore as _, ByteCounter, ByteRange, DiskOptions, DiskStore, Durability, ErrorKind, Leased, LocalStore as _,
    Verified,
};

use super::mounted::Mounted;
use super::{LAYOUTS, blobs, digests, disk_bytes, open, options, put_all};

const BYTES_MAX: u64 = 16 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_files_together_never_exceed_the_bound() {
    for layout in LAYOUTS {
        let Some(filesystem) = Mounted::new(64) else { return };
        let filesystem = Arc::new(filesystem);
        let options = DiskOptions {
            durability: Durability::Interval(Duration::from_millis(10)),
            ..options(layout, BYTES_MAX)
        };
        let store = open(filesystem.path(), options).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let watcher = {
            let (filesystem, is_over) = (filesystem.clone(), is_over.clone());
            std::thread::spawn(move || {
                let mut most = 0;
                while !is_over.load(Ordering::Relaxed) {
                    most = filesystem.used_bytes().max(most);
                }
                most
            })
        };
        put_much(&store).await;
        is_over.store(true, Ordering::Relaxed);
        let most = watcher.join().unwrap();
        let statistics = store.statistics();
        assert!(most <= BYTES_MAX, "{layout}: {most} bytes");
        assert!(most > BYTES_MAX / 2, "{layout}: only {most} bytes were ever used");
        assert!(statistics.counters.evicted_blobs > 0, "{layout}");
        drop(store);
    }
}

const ROUNDS: u64 = 12;
const A_ROUND: usize = 400;

/// Puts four times as much as there is room for.
async fn put_much(store: &DiskStore) {
    let mut seeded = Seeded::new(5);
    for round in 0..ROUNDS {
        put_all(store, &blobs(round, A_ROUND)).await;
        let spooled = seeded.ingested(store.spool(), DigestFunction::Sha256, 1 << 20).await;
        store.put(spooled).await.unwrap();
    }
}

/// A pack goes when half of it is old, so what comes back costs at most as much again.
#[tokio::test]
async fn no_more_is_moved_than_is_put() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), options(layout, BYTES_MAX)).await;
        let kept: Vec<Digest> = put_all(&store, &blobs(99, A_ROUND))
            .await
            .into_iter()
            .step_by(3)
            .collect();
        let mut put_bytes = 0;
        for round in 0..ROUNDS {
            let new = blobs(round, A_ROUND);
            put_bytes += digests(&new).iter().map(Digest::size_bytes).sum::<u64>();
            put_all(&store, &new).await;
            store.find_missing(&kept).await.unwrap();
        }
        let moved_bytes = store.statistics().counters.moved_bytes;
        assert!(
            moved_bytes <= put_bytes,
            "{layout}: {moved_bytes} bytes were moved for {put_bytes}"
        );
        assert!(moved_bytes > 0 || layout == "loose", "{layout}");
    }
}

/// What a blob takes is much more than its size then, and what a pack loses is not what its blobs have.
#[tokio::test]
async fn no_more_blobs_are_moved_than_put_if_all_are_tiny() {
    const BLOBS: usize = 30_000;
    const BLOB_BYTES: usize = 32;
    for layout in ["packed", "hybrid"] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), options(layout, 4 << 20)).await;
        let mut seeded = Seeded::new(1);
        for _ in 0..BLOBS / 1000 {
            let batch = (0..1000).map(|_| seeded.blob(DigestFunction::Sha256, BLOB_BYTES));
            put_all(&store, &batch.collect::<Vec<_>>()).await;
        }
        let counters = store.statistics().counters;
        let moved = counters.moved_bytes / BLOB_BYTES as u64;
        assert!(counters.evicted_blobs > BLOBS as u64 / 2, "{layout}: {counters:?}");
        assert!(moved <= BLOBS as u64, "{layout}: {moved} were moved, of {BLOBS}");
    }
}

#[tokio::test]
async fn a_blob_beyond_the_whole_bound_is_refused_and_evicts_nothing() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), options(layout, 1 << 20)).await;
        let stored = put_all(&store, &blobs(1, 20)).await;
        let large = Seeded::new(2).blob(DigestFunction::Sha256, 2 << 20);
        assert_eq!(
            store.put(large).await.unwrap_err().kind(),
            ErrorKind::Exhausted,
            "{layout}"
        );
        assert_eq!(store.find_missing(&stored).await.unwrap(), [], "{layout}");
    }
}

#[tokio::test]
async fn of_a_batch_only_the_blob_that_does_not_fit_is_refused() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), options(layout, 2 << 20)).await;
        let leased = put_all(&store, &blobs(1, 100)).await;
        let Leased::Held(_lease) = store.lease(&leased).await.unwrap() else {
            panic!("{layout}: they were put just now")
        };
        let mut seeded = Seeded::new(2);
        // Less than the bound, and more than there is beside what is leased.
        let batch = [5000, 3 << 19, 5000].map(|len| seeded.blob(DigestFunction::Sha256, len));
        let outcomes = store.put_many(batch.to_vec()).await;
        let kinds: Vec<_> = outcomes
            .into_iter()
            .map(|outcome| outcome.err().map(|error| error.kind()))
            .collect();
        assert_eq!(kinds, [None, Some(ErrorKind::Exhausted), None], "{layout}");
        let missing = store.find_missing(&digests(&batch)).await.unwrap();
        assert_eq!(missing, [batch[1].digest()], "{layout}");
    }
}

#[tokio::test]
async fn a_batch_larger_than_the_store_leaves_as_much_of_it_as_fits() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), options(layout, 32 << 20)).await;
        let mut seeded = Seeded::new(3);
        let batch: Vec<Verified> = (0..4000).map(|_| seeded.blob(DigestFunction::Sha256, 12_000)).collect();
        for outcome in store.put_many(batch.clone()).await {
            outcome.unwrap();
        }
        let missing = store.find_missing(&digests(&batch)).await.unwrap().len();
        assert!(
            missing > 1000 && missing < 3000,
            "{layout}: {missing} of {} are missing",
            batch.len()
        );
    }
}

#[tokio::test]
async fn what_others_keep_is_counted() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let others = ByteCounter::default();
        let options = DiskOptions {
            others: others.clone(),
            ..options(layout, 4 << 20)
        };
        let store = open(dir.path(), options).await;
        let stored = put_all(&store, &blobs(1, 200)).await;
        let share = others.share();
        share.add(2 << 20);
        put_all(&store, &blobs(2, 20)).await;
        assert!(!store.find_missing(&stored).await.unwrap().is_empty(), "{layout}");
        let statistics = store.statistics();
        let sum = statistics.bytes + statistics.spooled_bytes + statistics.other_bytes;
        assert!(sum <= statistics.bytes_max, "{layout}: {statistics:?}");
    }
}

#[tokio::test]
async fn what_is_being_ingested_is_counted_and_bounded() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), options(layout, 1 << 20)).await;
        let content = Seeded::new(1).bytes(2 << 20);
        let digest = Digest::of(DigestFunction::Sha256, &content);
        let mut ingest = store.spool().ingest(digest).unwrap();
        ingest.write(content.slice(..300_000)).await.unwrap();
        // It is written while the next piece is waited for. As much again is reserved.
        let counted = async {
            while store.statistics().spooled_bytes != 600_000 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), counted).await.unwrap();
        let error = ingest.write(content.slice(300_000..)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{layout}: {error}");
        drop(ingest);
        assert_eq!(store.statistics().spooled_bytes, 0, "{layout}");
    }
}

/// Tasks put, read and lease a few blobs, of which half fit: each is evicted and put again all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eviction_and_puts_of_the_same_blobs_do_not_meet() {
    const TASKS: u64 = 8;
    const STEPS: usize = 300;
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(open(dir.path(), options(layout, 1 << 20)).await);
        let task = |task: u64| {
            let (store, mut choice) = (store.clone(), Seeded::new(task));
            async move {
                for _ in 0..STEPS {
                    let seed = choice.below(100);
                    let len = if seed < 10 { 60_000 } else { 12_000 };
                    let blob = Seeded::new(seed).blob(DigestFunction::Sha256, len);
                    act(&store, &blob, choice.below(3)).await;
                }
            }
        };
        let tasks: Vec<_> = (0..TASKS).map(|n| tokio::spawn(task(n))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        let statistics = store.statistics();
        assert!(statistics.counters.evicted_blobs > 50, "{layout}: {statistics:?}");
        assert_eq!(
            (statistics.counters.damaged_blobs, statistics.leased_bytes),
            (0, 0),
            "{layout}"
        );
        assert!(disk_bytes(dir.path()) <= statistics.bytes_max, "{layout}");
    }
}

async fn act(store: &DiskStore, blob: &Verified, choice: u64) {
    let digest = blob.digest();
    match choice {
        0 => match store.put(blob.clone()).await {
            Ok(()) => {}
            // All others are being put or leased at this moment.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}"),
        },
        1 => match store.get(digest, ByteRange::ALL).await {
            Ok(found) => {
                let bytes = found.into_bytes().await.unwrap();
                assert_eq!(Digest::of(DigestFunction::Sha256, &bytes), digest);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        },
        _ => {
            let Leased::Held(_lease) = store.lease(&[digest]).await.unwrap() else {
                return;
            };
            let place = store.locate(digest).unwrap();
            for _ in 0..3 {
                super::assert_whole(store, digest).await;
                assert_eq!(store.locate(digest).unwrap(), place, "a leased blob stays where it is");
            }
        }
    }
}
