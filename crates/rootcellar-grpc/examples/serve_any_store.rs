//! Serves a store in memory, or any other [`BlobStore`], from inside a program of one's own.
//!
//! `cargo run -p rootcellar-grpc --example serve_any_store -- 127.0.0.1:8980`, then point a client of the Remote Execution API at
//! it: it has a CAS, an action cache and assets, and forgets everything when it ends. With a shared runtime, TLS or other
//! services beside these, add `served.routes` to a `tonic` server instead of calling [`serve`].

#![allow(clippy::print_stdout, reason = "an example says what it does")]

use std::error::Error;
use std::sync::Arc;

use rootcellar_grpc::server::{Services, Transport, serve};
use rootcellar_reapi::{ActionCache, ActionCacheOptions, AssetIndex, AssetOptions, Functions};
use rootcellar_store::{BlobStore, MemoryRecords, MemoryStore, Spool, SystemClock};
use tokio::net::TcpListener;

const STORE_BYTES_MAX: u64 = 1 << 30;
const RECORDS_BYTES_MAX: u64 = 64 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("serving on grpc://{}", listener.local_addr()?);

    let store: Arc<dyn BlobStore> = Arc::new(MemoryStore::new(STORE_BYTES_MAX));
    let clock = Arc::new(SystemClock);
    let records = Arc::new(MemoryRecords::new(RECORDS_BYTES_MAX, clock.clone()));
    let spool_dir = tempfile::tempdir()?;
    let cache = ActionCache::new(records.clone(), store.clone(), ActionCacheOptions::default());
    let assets = AssetIndex::new(records, store.clone(), clock, AssetOptions::default());

    let served = Services::new(store, Spool::new(spool_dir.path()), Functions::default())
        .with_action_cache(cache, true)
        .with_assets(assets)
        .build();
    let forever = std::future::pending();
    serve(listener, served.routes, served.health, Transport::default(), forever).await?;
    Ok(())
}
