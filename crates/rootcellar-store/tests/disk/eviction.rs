//! The bound of a store, and who goes first.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::testing::{ManualClock, Seeded};
use rootcellar_store::{
    BlobStore as _, BlobStoreExt as _, ByteCounter, ByteRange, DiskOptions, DiskStore, ErrorKind, Leased,
    LocalStore as _, Verified, WhenFull,
};

use super::put_some;

const HOUR: Duration = Duration::from_secs(3600);
/// What one blob of `put_some` is counted with: two blocks and an inode.
const CHARGE: u64 = 2 * 4096 + 512;

struct Small {
    store: DiskStore,
    clock: Arc<ManualClock>,
    others: ByteCounter,
}

/// A store with room for ten blobs.
async fn small(dir: &Path, when_full: WhenFull, clock: Arc<ManualClock>) -> Small {
    let others = ByteCounter::default();
    let options = DiskOptions {
        bytes_max: 10 * CHARGE,
        when_full,
        others: others.clone(),
        ..DiskOptions::default()
    };
    let store = DiskStore::open(dir, options, clock.clone()).await.unwrap();
    Small { store, clock, others }
}

async fn put_one(store: &DiskStore, seed: u64) -> Result<Digest, rootcellar_store::Error> {
    let blob = Seeded::new(seed).blob(DigestFunction::Sha256, 5000);
    let digest = blob.digest();
    store.put(blob).await.map(|()| digest)
}

#[tokio::test]
async fn the_blobs_used_longest_ago_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let Small { store, clock, .. } = small(dir.path(), WhenFull::Shorten, Arc::default()).await;
    let digests = put_some(&store, 1, 10).await;
    clock.advance(4 * HOUR);
    store.get(digests[0], ByteRange::ALL).await.unwrap();
    assert!(store.contains(digests[1]).await.unwrap());
    put_some(&store, 2, 3).await;
    assert_eq!(store.find_missing(&digests).await.unwrap(), digests[2..5]);
    let statistics = store.statistics();
    assert_eq!((statistics.evicted_blobs, statistics.evicted_early_blobs), (3, 0));
    assert_eq!((statistics.blobs, statistics.bytes), (10, 10 * CHARGE));
    for digest in &digests[2..5] {
        assert!(
            !super::blob_files(dir.path())
                .iter()
                .any(|file| super::named_digest(file) == *digest)
        );
    }
}

#[tokio::test]
async fn a_full_store_shortens_lives_and_tells() {
    let dir = tempfile::tempdir().unwrap();
    let Small { store, clock, .. } = small(dir.path(), WhenFull::Shorten, Arc::default()).await;
    put_some(&store, 1, 10).await;
    clock.advance(HOUR);
    put_some(&store, 2, 1).await;
    let statistics = store.statistics();
    assert_eq!((statistics.evicted_blobs, statistics.evicted_early_blobs), (1, 1));
    assert_eq!(statistics.shortest_lifetime, Some(HOUR));
}

#[tokio::test]
async fn a_full_store_that_keeps_its_promise_refuses_puts_until_blobs_are_old() {
    let dir = tempfile::tempdir().unwrap();
    let Small { store, clock, .. } = small(dir.path(), WhenFull::Refuse, Arc::default()).await;
    let digests = put_some(&store, 1, 10).await;
    clock.advance(3 * HOUR - Duration::from_secs(1));
    assert_eq!(put_one(&store, 2).await.unwrap_err().kind(), ErrorKind::Exhausted);
    assert_eq!(store.find_missing(&digests[1..]).await.unwrap(), []);
    clock.advance(Duration::from_secs(1));
    put_one(&store, 2).await.unwrap();
    assert_eq!(store.find_missing(&digests).await.unwrap(), [digests[0]]);
}

#[tokio::test]
async fn a_store_full_of_leased_blobs_refuses_puts_until_a_lease_ends() {
    let dir = tempfile::tempdir().unwrap();
    let Small { store, clock, .. } = small(dir.path(), WhenFull::Shorten, Arc::default()).await;
    let digests = put_some(&store, 1, 10).await;
    let lease = store.lease(&digests).await.unwrap();
    clock.advance(100 * HOUR);
    assert_eq!(put_one(&store, 2).await.unwrap_err().kind(), ErrorKind::Exhausted);
    drop(lease);
    put_one(&store, 2).await.unwrap();
    assert_eq!(store.find_missing(&digests).await.unwrap(), [digests[0]]);
}

#[tokio::test]
async fn a_blob_beyond_the_whole_bound_is_refused_and_evicts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Small { store, .. } = small(dir.path(), WhenFull::Shorten, Arc::default()).await;
    let digests = put_some(&store, 1, 10).await;
    let large = Seeded::new(2).blob(DigestFunction::Sha256, 100_000);
    assert_eq!(store.put(large).await.unwrap_err().kind(), ErrorKind::Exhausted);
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
}

#[tokio::test]
async fn one_blob_of_a_batch_that_does_not_fit_is_the_only_one_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Small { store, .. } = small(dir.path(), WhenFull::Shorten, Arc::default()).await;
    let mut seeded = Seeded::new(1);
    let sizes = [5000, 100_000, 5000];
    let outcomes = store
        .put_many(sizes.map(|len| seeded.blob(DigestFunction::Sha256, len)).to_vec())
        .await;
    let kinds: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| outcome.err().map(|error| error.kind()))
        .collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Exhausted), None]);
}

#[tokio::test]
async fn what_others_keep_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let Small { store, others, .. } = small(dir.path(), WhenFull::Shorten, Arc::default()).await;
    let digests = put_some(&store, 1, 10).await;
    others.set(2 * CHARGE);
    put_some(&store, 2, 1).await;
    assert_eq!(store.find_missing(&digests).await.unwrap(), digests[..3]);
    others.set(11 * CHARGE);
    assert_eq!(put_one(&store, 3).await.unwrap_err().kind(), ErrorKind::Exhausted);
}

#[tokio::test]
async fn what_is_being_ingested_is_counted_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let Small { store, .. } = small(dir.path(), WhenFull::Shorten, Arc::default()).await;
    let content = Seeded::new(1).bytes(200_000);
    let digest = Digest::of(DigestFunction::Sha256, &content);
    let mut ingest = store.spool().ingest(digest).unwrap();
    ingest.write(content.slice(..50_000)).await.unwrap();
    assert_eq!(store.statistics().spooled_bytes, 50_000);
    let error = ingest.write(content.slice(50_000..)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    drop(ingest);
    assert_eq!(store.statistics().spooled_bytes, 0);
}

#[tokio::test]
async fn a_published_spool_file_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = super::open(dir.path()).await;
    let blob = Seeded::new(1)
        .ingested(store.spool(), DigestFunction::Sha256, 200_000)
        .await;
    assert_eq!(store.statistics().spooled_bytes, 200_000);
    store.put(blob.clone()).await.unwrap();
    let statistics = store.statistics();
    assert_eq!((statistics.spooled_bytes, statistics.bytes), (0, 49 * 4096 + 512));
    drop(blob);
    assert_eq!(store.statistics().spooled_bytes, 0);
}

#[tokio::test]
async fn recency_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock: Arc<ManualClock> = Arc::default();
    let digests = {
        let Small { store, clock, .. } = small(dir.path(), WhenFull::Shorten, clock.clone()).await;
        let mut digests = put_some(&store, 1, 5).await;
        clock.advance(2 * HOUR);
        digests.extend(put_some(&store, 2, 5).await);
        clock.advance(2 * HOUR);
        assert!(store.contains(digests[0]).await.unwrap());
        store.close().await.unwrap();
        digests
    };
    let Small { store, .. } = small(dir.path(), WhenFull::Shorten, clock).await;
    put_some(&store, 3, 4).await;
    // The four that were neither used again nor put late.
    let mut missing = store.find_missing(&digests).await.unwrap();
    missing.sort_unstable();
    let mut expected = digests[1..5].to_vec();
    expected.sort_unstable();
    assert_eq!(missing, expected);
}

#[tokio::test]
async fn a_restart_does_not_shorten_the_promised_lifetime() {
    let dir = tempfile::tempdir().unwrap();
    let clock: Arc<ManualClock> = Arc::default();
    let Small { store, .. } = small(dir.path(), WhenFull::Refuse, clock.clone()).await;
    let digests = put_some(&store, 1, 10).await;
    // Within the hour in which a use is not written to the disk again.
    clock.advance(HOUR - Duration::from_secs(1));
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
    drop(store);
    let Small { store, .. } = small(dir.path(), WhenFull::Refuse, clock.clone()).await;
    clock.advance(3 * HOUR - Duration::from_secs(1));
    assert_eq!(put_one(&store, 2).await.unwrap_err().kind(), ErrorKind::Exhausted);
}

#[tokio::test]
async fn a_smaller_bound_is_kept_from_the_start_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = super::open(dir.path()).await;
    put_some(&store, 1, 30).await;
    drop(store);
    let Small { store, .. } = small(dir.path(), WhenFull::Shorten, Arc::default()).await;
    assert_eq!(store.statistics().blobs, 10);
    assert_eq!(super::blob_files(dir.path()).len(), 10);
}

#[tokio::test]
async fn a_blob_of_no_bytes_takes_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let Small { store, .. } = small(dir.path(), WhenFull::Refuse, Arc::default()).await;
    store.put_bytes(DigestFunction::Sha256, Bytes::new()).await.unwrap();
    assert_eq!(store.statistics().blobs, 0);
    assert!(super::blob_files(dir.path()).is_empty());
}

/// Tasks put, read and lease a few blobs, of which half fit: each is evicted and put again all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eviction_and_puts_of_the_same_blobs_do_not_meet() {
    const TASKS: u64 = 8;
    const STEPS: usize = 400;
    let dir = tempfile::tempdir().unwrap();
    let Small { store, .. } = small(dir.path(), WhenFull::Shorten, Arc::default()).await;
    let store = Arc::new(store);
    let task = |task: u64| {
        let (store, mut choice) = (store.clone(), Seeded::new(task));
        async move {
            for _ in 0..STEPS {
                let seed = choice.below(20);
                // A large one makes several go at once.
                let len = if seed < 4 { 60_000 } else { 5000 };
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
    assert!(statistics.evicted_blobs > 50, "{statistics:?}");
    assert_eq!((statistics.damaged_blobs, statistics.leased_bytes), (0, 0));
    assert_eq!(statistics.blobs, super::blob_files(dir.path()).len() as u64);
    assert!(statistics.bytes <= statistics.bytes_max);
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
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
            for _ in 0..3 {
                let bytes = std::fs::read(super::path(store, digest)).unwrap();
                assert_eq!(Digest::of(DigestFunction::Sha256, &bytes), digest);
                tokio::task::yield_now().await;
            }
        }
    }
}
