//! Any `BlobStore` served in a tonic server that has other services too, and read from there.
//!
//!     cargo run -p rootcellar-grpc --example serve_any_store

#![allow(clippy::print_stdout, reason = "an example says what it does")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::DigestFunction;
use rootcellar_grpc::client::{Endpoint, Remote};
use rootcellar_grpc::server::Services;
use rootcellar_reapi::{ActionCache, ActionCacheOptions, Functions};
use rootcellar_store::{BlobStore, BlobStoreExt as _, MemoryRecords, MemoryStore, Observed, Spool, SystemClock};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The store: of this crate, made of others, or your own.
    let store = Arc::new(Observed::new(Arc::new(MemoryStore::new(1 << 30))));
    let blobs: Arc<dyn BlobStore> = store.clone();
    let records = Arc::new(MemoryRecords::new(64 << 20, Arc::new(SystemClock)));
    let cache = ActionCache::new(records, blobs.clone(), ActionCacheOptions::default());
    let uploads = tempfile::tempdir()?;
    let functions = Functions::new(vec![DigestFunction::Sha256, DigestFunction::Blake3])?;
    let served = Services::new(blobs, Spool::new(uploads.path()), functions)
        .with_action_cache(cache, true)
        .build();

    // Your server: its own settings, its own layers, and other services beside these with `add_service`.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::builder().add_routes(served.routes);
    let running = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    // And a client of it, which is a `BlobStore` again.
    let connection = Endpoint::parse(&format!("http://{address}"), "")?.connect().await?;
    let remote = Remote::new(connection);
    let digest = remote
        .put_bytes(DigestFunction::Sha256, Bytes::from_static(b"hello\n"))
        .await?;
    assert_eq!(remote.read(digest, 1 << 20).await?, "hello\n");
    println!("{remote} has {digest}; the store saw: {}", store.statistics());
    running.abort();
    Ok(())
}

#[test]
fn the_example_runs() {
    main().unwrap();
}
