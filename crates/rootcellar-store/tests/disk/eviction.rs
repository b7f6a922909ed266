//! Who goes first, and who stays.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rootcellar_digest::Digest;
use rootcellar_store::testing::ManualClock;
use rootcellar_store::{BlobStore as _, DiskOptions, DiskStore, ErrorKind, Leased, LocalStore as _, Result, WhenFull};

use super::{LAYOUTS, blobs, options, put_all};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const BYTES_MAX: u64 = 16 << 20;
/// Blobs that nearly fill a store, and a part of them.
const MANY: usize = 1100;
const SOME: usize = 600;

async fn open(dir: &Path, layout: &str, when_full: WhenFull, clock: &Arc<ManualClock>) -> DiskStore {
    let options = DiskOptions {
        when_full,
        ..options(layout, BYTES_MAX)
    };
    DiskStore::open(dir, options, clock.clone()).await.unwrap()
}

/// Puts blobs until one is refused.
async fn fill(store: &DiskStore, seed: u64) -> Result<()> {
    for blob in blobs(seed, 4 * MANY) {
        store.put(blob).await?;
    }
    Ok(())
}

fn every_second(digests: &[Digest]) -> Vec<Digest> {
    digests.iter().copied().step_by(2).collect()
}

#[tokio::test]
async fn what_was_used_lately_outlives_what_was_not() {
    for layout in LAYOUTS {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::default());
        let store = open(dir.path(), layout, WhenFull::Shorten, &clock).await;
        let old = put_all(&store, &blobs(1, MANY)).await;
        clock.advance(4 * HOUR);
        let used = every_second(&old);
        assert_eq!(store.find_missing(&used).await.unwrap(), [], "{layout}");
        clock.advance(HOUR);
        let new = put_all(&store, &blobs(2, SOME)).await;
        let counters = store.statistics().counters;
        assert!(counters.evicted_blobs > 0, "{layout}");
        assert_few_missing(&store, &used, layout).await;
        assert_few_missing(&store, &new, layout).await;
    }
}

/// Nearly every pack has about as much of the one as of the other then.
#[tokio::test]
async fn what_is_always_in_use_stays_even_if_it_is_a_large_part_of_the_store() {
    for layout in LAYOUTS {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::default());
        let store = open(dir.path(), layout, WhenFull::Shorten, &clock).await;
        // Of sorts that do not go together with which blobs lie alone.
        let first = put_all(&store, &blobs(1, MANY + 100)).await;
        assert_eq!(store.statistics().counters.evicted_blobs, 0, "{layout}");
        let in_use: Vec<Digest> = first.chunks(4).step_by(2).flatten().copied().collect();
        for round in 0..30 {
            store.find_missing(&in_use).await.unwrap();
            put_all(&store, &blobs(2 + round, 100)).await;
        }
        assert!(store.statistics().counters.evicted_blobs > 2000, "{layout}");
        assert_few_missing(&store, &in_use, layout).await;
    }
}

#[tokio::test]
async fn recency_survives_a_restart() {
    for layout in LAYOUTS {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::default());
        let store = open(dir.path(), layout, WhenFull::Shorten, &clock).await;
        let old = put_all(&store, &blobs(1, MANY)).await;
        clock.advance(4 * HOUR);
        let used = every_second(&old);
        assert_eq!(store.find_missing(&used).await.unwrap(), [], "{layout}");
        store.close().await.unwrap();
        drop(store);
        clock.advance(HOUR);
        let store = open(dir.path(), layout, WhenFull::Shorten, &clock).await;
        put_all(&store, &blobs(2, SOME)).await;
        assert!(store.statistics().counters.evicted_blobs > 0, "{layout}");
        assert_few_missing(&store, &used, layout).await;
    }
}

/// The order of uses is approximate, in packs above all: one in fifty may go too early.
async fn assert_few_missing(store: &DiskStore, digests: &[Digest], layout: &str) {
    let missing = store.find_missing(digests).await.unwrap().len();
    assert!(
        missing <= digests.len() / 50,
        "{layout}: {missing} of {}",
        digests.len()
    );
}

#[tokio::test]
async fn a_full_store_shortens_lives_and_tells() {
    for layout in LAYOUTS {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::default());
        let store = open(dir.path(), layout, WhenFull::Shorten, &clock).await;
        put_all(&store, &blobs(1, MANY)).await;
        clock.advance(HOUR);
        put_all(&store, &blobs(2, SOME)).await;
        let counters = store.statistics().counters;
        assert!(counters.evicted_early_blobs > 0, "{layout}: {counters:?}");
        let shortest = counters.shortest_lifetime.unwrap();
        // Uses are known to a sixteenth.
        assert!(shortest <= HOUR && shortest > HOUR / 2, "{layout}: {shortest:?}");
    }
}

#[tokio::test]
async fn a_store_that_keeps_its_promise_refuses_puts_until_blobs_are_old() {
    for layout in LAYOUTS {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::default());
        let store = open(dir.path(), layout, WhenFull::Refuse, &clock).await;
        let kept = put_all(&store, &blobs(1, SOME)).await;
        let refused = fill(&store, 2).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Exhausted, "{layout}: {refused}");
        clock.advance(3 * HOUR - MINUTE);
        assert_eq!(
            fill(&store, 3).await.unwrap_err().kind(),
            ErrorKind::Exhausted,
            "{layout}"
        );
        assert_eq!(store.statistics().counters.evicted_blobs, 0, "{layout}");
        // Now `kept` is used again.
        assert_eq!(store.find_missing(&kept).await.unwrap(), [], "{layout}");
        clock.advance(HOUR);
        put_all(&store, &blobs(4, SOME)).await;
        let counters = store.statistics().counters;
        assert!(counters.evicted_blobs > 0, "{layout}");
        assert_eq!(counters.evicted_early_blobs, 0, "{layout}");
        assert_eq!(store.find_missing(&kept).await.unwrap(), [], "{layout}");
    }
}

/// A process that is killed forgets the uses of its last ten minutes, so blobs are kept longer than is promised.
#[tokio::test]
async fn a_killed_process_does_not_shorten_the_promised_lifetime() {
    for layout in LAYOUTS {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::default());
        let store = open(dir.path(), layout, WhenFull::Refuse, &clock).await;
        let used = put_all(&store, &blobs(1, SOME)).await;
        assert_eq!(
            fill(&store, 2).await.unwrap_err().kind(),
            ErrorKind::Exhausted,
            "{layout}"
        );
        clock.advance(9 * MINUTE);
        assert_eq!(store.find_missing(&used).await.unwrap(), [], "{layout}");
        drop(store);
        let store = open(dir.path(), layout, WhenFull::Refuse, &clock).await;
        clock.advance(3 * HOUR - MINUTE);
        assert_eq!(
            fill(&store, 3).await.unwrap_err().kind(),
            ErrorKind::Exhausted,
            "{layout}"
        );
        assert_eq!(store.find_missing(&used).await.unwrap(), [], "{layout}");
    }
}

#[tokio::test]
async fn what_is_leased_stays_whatever_comes() {
    for layout in LAYOUTS {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::default());
        let store = open(dir.path(), layout, WhenFull::Shorten, &clock).await;
        let leased = put_all(&store, &blobs(1, SOME)).await;
        let Leased::Held(lease) = store.lease(&leased).await.unwrap() else {
            panic!("{layout}: they were put just now")
        };
        clock.advance(100 * HOUR);
        put_all(&store, &blobs(2, 2 * MANY)).await;
        assert!(store.statistics().counters.evicted_blobs > 0, "{layout}");
        assert_eq!(store.find_missing(&leased).await.unwrap(), [], "{layout}");
        drop(lease);
        clock.advance(100 * HOUR);
        put_all(&store, &blobs(3, 2 * MANY)).await;
        assert!(!store.find_missing(&leased).await.unwrap().is_empty(), "{layout}");
    }
}

#[tokio::test]
async fn a_smaller_bound_is_kept_after_the_next_start() {
    for layout in LAYOUTS {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::default());
        let store = open(dir.path(), layout, WhenFull::Shorten, &clock).await;
        put_all(&store, &blobs(1, MANY)).await;
        store.close().await.unwrap();
        drop(store);
        let bound = BYTES_MAX / 4;
        let store = DiskStore::open(dir.path(), options(layout, bound), clock)
            .await
            .unwrap();
        put_all(&store, &blobs(2, 40)).await;
        assert!(store.statistics().bytes <= bound, "{layout}: {:?}", store.statistics());
        assert!(super::disk_bytes(dir.path()) <= bound, "{layout}");
    }
}
