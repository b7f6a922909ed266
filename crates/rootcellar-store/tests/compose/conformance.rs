//! The suite, over each composition, and again over parts that fail.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use rootcellar_store::testing::{check_blob_store, check_local_store, check_unbounded_records};
use rootcellar_store::{
    BehindOptions, BlobStore, Checked, ExistenceCached, Limited, Limits, MemoryRecords, Observed, PresenceOptions,
    RecordShard, Shard, Sharded, ShardedOptions, ShardedRecords, SystemClock, Tiered, TieredOptions,
};

use crate::ground::{Ground, memory, persistent};

/// A slow store does not keep what only a fast one knows to be in use, so it is made large enough for any clause.
const SLOW_BYTES: u64 = 1 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_checked_store_is_a_store() {
    check_blob_store(async |bytes_max| Arc::new(Checked::new(memory(bytes_max))) as _).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_store_is_a_store() {
    let limits = Limits {
        operations: NonZero::new(4),
        read_bytes_per_second: NonZero::new(1 << 30),
        write_bytes_per_second: NonZero::new(1 << 30),
    };
    check_blob_store(async |bytes_max| Arc::new(Limited::new(memory(bytes_max), limits.clone())) as _).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observed_store_is_a_store() {
    check_blob_store(async |bytes_max| Arc::new(Observed::new(memory(bytes_max))) as _).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_existence_is_cached_is_a_store() {
    // It tells uses only when it asks: the store behind it has to keep what is remembered.
    check_blob_store(async |_| Arc::new(existence_cached(memory(SLOW_BYTES))) as _).await;
}

fn existence_cached(inner: Arc<impl BlobStore>) -> ExistenceCached<impl BlobStore> {
    ExistenceCached::new(inner, PresenceOptions::default(), Arc::new(SystemClock))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiered_store_is_a_store() {
    let ground = Ground::new();
    let make = async |bytes_max| ground.tiered(ground.disk(bytes_max).await, memory(SLOW_BYTES));
    check_blob_store(async |bytes_max| Arc::new(make(bytes_max).await) as _).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiered_store_in_memory_is_a_store() {
    let ground = Ground::new();
    check_blob_store(async |bytes_max| {
        let options = TieredOptions::default();
        let clock = Arc::new(SystemClock);
        Arc::new(Tiered::new(
            memory(bytes_max),
            memory(SLOW_BYTES),
            ground.spool(),
            &options,
            clock,
        )) as _
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_writes_behind_is_a_store() {
    let ground = Ground::new();
    check_blob_store(async |bytes_max| {
        let tiered = ground.tiered(ground.disk(bytes_max).await, memory(SLOW_BYTES));
        let options = BehindOptions::default().with_bytes_max(1 << 20);
        Arc::new(tiered.write_behind(&ground.path(), options).await.unwrap()) as _
    })
    .await;
}

fn sharded(ground: &Ground, stores: [Arc<dyn BlobStore>; 3], replicas: usize) -> Sharded {
    let shards = stores.into_iter().enumerate().map(|(number, store)| Shard {
        name: number.to_string(),
        weight: 1.0,
        store,
        inventory: None,
    });
    let options = ShardedOptions::default().with_replicas(replicas);
    Sharded::new(shards.collect(), ground.spool(), options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sharded_store_is_a_store() {
    let ground = Ground::new();
    for replicas in 1..=3 {
        check_blob_store(async |bytes_max| {
            let stores = [(); 3].map(|()| memory(bytes_max) as _);
            Arc::new(sharded(&ground, stores, replicas)) as _
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_shards_reach_nobody_as_content() {
    let ground = Ground::new();
    check_blob_store(async |bytes_max| {
        let stores = [(); 3].map(|()| ground.unreliable(bytes_max));
        persistent(sharded(&ground, stores, 1))
    })
    .await;
    // One of them fails; nobody has to try again.
    check_blob_store(async |bytes_max| {
        let stores = [ground.unreliable(bytes_max), memory(bytes_max), memory(bytes_max)];
        Arc::new(sharded(&ground, stores, 2)) as _
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_composition_of_everything_is_a_store() {
    let ground = Ground::new();
    check_blob_store(async |bytes_max| {
        let stores = [(); 3].map(|()| Arc::new(Observed::new(ground.unreliable(SLOW_BYTES))) as _);
        let slow = Limited::new(Arc::new(sharded(&ground, stores, 2)), Limits::default());
        let slow = ExistenceCached::new(Arc::new(slow), PresenceOptions::default(), Arc::new(SystemClock));
        persistent(ground.tiered(ground.disk(bytes_max).await, Arc::new(slow)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sharded_records_are_records() {
    for replicas in 1..=3 {
        check_unbounded_records(async |bytes_max, clock| {
            let shards = (0..3).map(|number| RecordShard {
                name: number.to_string(),
                weight: 1.0,
                records: Arc::new(MemoryRecords::new(bytes_max, clock.clone())),
            });
            let patience = Duration::from_secs(10);
            Arc::new(ShardedRecords::new(shards.collect(), replicas, patience, Arc::new(SystemClock)).unwrap()) as _
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_a_store_reach_nobody_as_content() {
    let ground = Ground::new();
    check_blob_store(async |bytes_max| persistent(Checked::new(ground.faulty(bytes_max)))).await;
    let limits = Limits {
        operations: NonZero::new(3),
        ..Limits::default()
    };
    check_blob_store(async |bytes_max| persistent(Limited::new(ground.unreliable(bytes_max), limits.clone()))).await;
    check_blob_store(async |bytes_max| persistent(Observed::new(ground.unreliable(bytes_max)))).await;
    check_blob_store(async |_| {
        let inner = ground.unreliable(SLOW_BYTES);
        persistent(ExistenceCached::new(
            inner,
            PresenceOptions::default(),
            Arc::new(SystemClock),
        ))
    })
    .await;
    assert!(ground.injected() > 100, "{} faults", ground.injected());
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_a_slow_store_reach_nobody_as_content() {
    let ground = Ground::new();
    // Not even with a slow store that does not check what it reads: what is brought is.
    check_blob_store(async |bytes_max| {
        persistent(ground.tiered(ground.disk(bytes_max).await, ground.faulty(SLOW_BYTES)))
    })
    .await;
    check_blob_store(async |bytes_max| {
        let tiered = ground.tiered(ground.disk(bytes_max).await, ground.faulty(SLOW_BYTES));
        let options = BehindOptions::default().with_bytes_max(1 << 20);
        persistent(tiered.write_behind(&ground.path(), options).await.unwrap())
    })
    .await;
    assert!(ground.injected() > 100, "{} faults", ground.injected());
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_a_fast_store_reach_nobody_as_content() {
    let ground = Ground::new();
    check_blob_store(async |bytes_max| {
        let (fast, slow) = (ground.unreliable(bytes_max), memory(SLOW_BYTES));
        let options = TieredOptions::default();
        persistent(Tiered::new(fast, slow, ground.spool(), &options, Arc::new(SystemClock)))
    })
    .await;
    assert!(ground.injected() > 100, "{} faults", ground.injected());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiered_store_leases_what_it_brings() {
    let ground = Ground::new();
    // What is to be evicted has to be gone from both.
    check_local_store(async |bytes_max| Arc::new(ground.tiered(ground.disk(bytes_max).await, memory(bytes_max))) as _)
        .await;
}
