//! Every store of this crate keeps its contract.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::sync::Arc;

use rootcellar_store::layout::{HybridKind, LayoutKind, LooseKind, PackedKind};
use rootcellar_store::testing::{check_blob_store, check_local_store, check_records};
use rootcellar_store::{
    DiskOptions, DiskRecords, DiskStore, Durability, MemoryRecords, MemoryStore, RecordsOptions, SystemClock,
};

#[tokio::test(flavor = "multi_thread")]
async fn memory_store_is_a_blob_store() {
    check_blob_store(async |bytes_max| Arc::new(MemoryStore::new(bytes_max)) as _).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_records_are_records() {
    check_records(async |bytes_max, clock| Arc::new(MemoryRecords::new(bytes_max, clock)) as _).await;
}

/// Makes stores in new directories below one that goes with it.
struct Disks {
    dir: tempfile::TempDir,
    options: DiskOptions,
}

impl Disks {
    fn new(layout: impl LayoutKind, durability: Durability) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            options: DiskOptions {
                layout: Arc::new(layout),
                durability,
                ..DiskOptions::default()
            },
        }
    }

    async fn make(&self, bytes_max: u64) -> Arc<DiskStore> {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        let options = DiskOptions {
            bytes_max,
            ..self.options.clone()
        };
        Arc::new(DiskStore::open(dir, options, Arc::new(SystemClock)).await.unwrap())
    }

    async fn check(&self) {
        check_blob_store(async |bytes_max| self.make(bytes_max).await as _).await;
        check_local_store(async |bytes_max| self.make(bytes_max).await as _).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loose_layout_makes_a_store() {
    Disks::new(LooseKind, Durability::default()).check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_packed_layout_makes_a_store() {
    Disks::new(PackedKind, Durability::default()).check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hybrid_layout_makes_a_store() {
    Disks::new(HybridKind::default(), Durability::None).check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_always_syncs_is_a_store() {
    Disks::new(HybridKind::default(), Durability::Always).check().await;
}

async fn check_disk_records(durability: Durability) {
    let dir = tempfile::tempdir().unwrap();
    check_records(async |bytes_max, clock| {
        let file = tempfile::tempdir_in(&dir).unwrap().keep().join("records.redb");
        let options = RecordsOptions {
            bytes_max,
            durability,
            ..RecordsOptions::default()
        };
        Arc::new(DiskRecords::open(file, options, clock).await.unwrap()) as _
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_records_are_records() {
    check_disk_records(Durability::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_records_that_always_sync_are_records() {
    check_disk_records(Durability::Always).await;
}
