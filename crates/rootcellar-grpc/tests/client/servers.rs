//! Servers that run until they are dropped, and clients of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rootcellar_digest::DigestFunction;
use rootcellar_grpc::client::{Connection, Endpoint, Retry};
use rootcellar_grpc::server::{Health, Limits, Served, Services, Transport, serve};
use rootcellar_reapi::{ActionCache, ActionCacheOptions, AssetIndex, AssetOptions, Functions};
use rootcellar_store::{BlobStore, MemoryRecords, MemoryStore, Spool, SystemClock};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::service::Routes;

/// A server that runs until this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<dyn BlobStore>,
    task: JoinHandle<()>,
    _spool_dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The project's own server, with every digest function, over a store in memory of `bytes_max`. It executes nothing.
pub(crate) async fn own(bytes_max: u64, limits: Limits) -> Server {
    let store: Arc<dyn BlobStore> = Arc::new(MemoryStore::new(bytes_max));
    let spool_dir = tempfile::tempdir().unwrap();
    let functions = Functions::new(DigestFunction::ALL.to_vec()).unwrap();
    let clock = Arc::new(SystemClock);
    let records = Arc::new(MemoryRecords::new(bytes_max, clock.clone()));
    let action_cache = ActionCache::new(records.clone(), store.clone(), ActionCacheOptions::default());
    let assets = AssetIndex::new(records, store.clone(), clock, AssetOptions::default());
    let services = Services::new(store.clone(), Spool::new(spool_dir.path()), functions)
        .with_limits(limits)
        .with_action_cache(action_cache, true)
        .with_assets(assets);
    let Served { routes, health } = services.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = serve(listener, routes, health, Transport::default(), std::future::pending());
    let task = tokio::spawn(async { serving.await.unwrap() });
    Server {
        address,
        store,
        task,
        _spool_dir: spool_dir,
    }
}

/// A server that tells what it holds, for as long as the test runs.
pub(crate) async fn telling(store: Arc<MemoryStore>) -> SocketAddr {
    let functions = Functions::new(DigestFunction::ALL.to_vec()).unwrap();
    let spool = Spool::new("/nonexistent");
    any(Services::new(store.clone(), spool, functions)
        .with_inventory(store)
        .build()
        .routes)
    .await
}

/// Serves `routes`, whatever they are, for as long as the test runs.
pub(crate) async fn any(routes: Routes) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = serve(
        listener,
        routes,
        Health::new([]),
        Transport::default(),
        std::future::pending(),
    );
    tokio::spawn(async { serving.await.unwrap() });
    address
}

/// Pauses so short that a test does not notice them.
pub(crate) fn impatient() -> Retry {
    let mut retry = Retry::default();
    retry.pause_first = Duration::from_millis(1);
    retry.pause_max = Duration::from_millis(5);
    retry
}

pub(crate) async fn connect(address: SocketAddr) -> Connection {
    connect_to_instance(address, "").await
}

pub(crate) async fn connect_to_instance(address: SocketAddr, instance: &str) -> Connection {
    let endpoint = Endpoint::parse(&format!("http://{address}"), instance).unwrap();
    endpoint.with_retry(impatient()).connect().await.unwrap()
}
