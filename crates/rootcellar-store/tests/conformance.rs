//! Every store of this crate keeps its contract.

use std::sync::Arc;

use rootcellar_store::testing::{check_blob_store, check_records};
use rootcellar_store::{MemoryRecords, MemoryStore};

#[tokio::test(flavor = "multi_thread")]
async fn memory_store_is_a_blob_store() {
    check_blob_store(async |bytes_max| Arc::new(MemoryStore::new(bytes_max)) as _).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_records_are_records() {
    check_records(async |bytes_max, clock| Arc::new(MemoryRecords::new(bytes_max, clock)) as _).await;
}
