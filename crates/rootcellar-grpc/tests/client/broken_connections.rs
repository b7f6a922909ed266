//! Connections that break in the middle, and a server that goes away.

use std::time::Duration;

use rootcellar_digest::DigestFunction;
use rootcellar_grpc::client::{Endpoint, Remote};
use rootcellar_grpc::server::Limits;
use rootcellar_store::testing::Seeded;
use rootcellar_store::{BlobStore, BlobStoreExt as _, ErrorKind, Verified};

use crate::proxy::Proxy;
use crate::servers;

const SHA256: DigestFunction = DigestFunction::Sha256;
const LEN: usize = 8 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_where_its_connection_broke() {
    let server = servers::own(1 << 30, Limits::default()).await;
    let blob = Seeded::new(1).blob(SHA256, LEN);
    server.store.put(blob.clone()).await.unwrap();

    let proxy = Proxy::start(server.address, &[3 << 20, 2 << 20]).await;
    let remote = Remote::new(servers::connect(proxy.address).await);
    let read = remote.read(blob.digest(), 1 << 30).await.unwrap();
    assert!(read == server.store.read(blob.digest(), 1 << 30).await.unwrap());
    assert_eq!(proxy.connections(), 3);
    // What was under way when a connection broke comes again, and nothing else does.
    assert!(
        remote.traffic().received_bytes() < LEN as u64 + 1,
        "{:?}",
        remote.traffic()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_its_connection_broke() {
    let server = servers::own(1 << 30, Limits::default()).await;
    let proxy = Proxy::start(server.address, &[3 << 20, 3 << 20]).await;
    let remote = Remote::new(servers::connect(proxy.address).await);
    let blob = Seeded::new(2).blob(SHA256, LEN);
    remote.put(blob.clone()).await.unwrap();
    assert!(server.store.contains(blob.digest()).await.unwrap());
    assert_eq!(proxy.connections(), 3);
    // Some of it was on its way when the connection broke; but not all of it went three times.
    assert!(remote.traffic().sent_bytes() < 2 * LEN as u64, "{:?}", remote.traffic());
}

#[tokio::test(flavor = "multi_thread")]
async fn small_calls_survive_a_broken_connection() {
    let server = servers::own(1 << 30, Limits::default()).await;
    let proxy = Proxy::start(server.address, &[100_000, 100_000]).await;
    let remote = Remote::new(servers::connect(proxy.address).await);
    let mut seeded = Seeded::new(3);
    let blobs: Vec<_> = (0..100).map(|_| seeded.blob(SHA256, 5000)).collect();
    for outcome in remote.put_many(blobs.clone()).await {
        outcome.unwrap();
    }
    let digests: Vec<_> = blobs.iter().map(Verified::digest).collect();
    for outcome in remote.get_many(&digests).await {
        outcome.unwrap();
    }
    assert_eq!(remote.find_missing(&digests).await.unwrap(), []);
    assert_eq!(proxy.connections(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_went_away_is_unavailable() {
    let server = servers::own(1 << 30, Limits::default()).await;
    let url = format!("http://{}", server.address);
    let mut retry = servers::impatient();
    retry.attempts_max = 2;
    retry.pause_max = Duration::from_millis(1);
    let endpoint = Endpoint::parse(&url, "").unwrap().with_retry(retry);
    // Nobody has listened there since.
    drop(server);
    let remote = Remote::new(endpoint.connect_lazily());
    let blob = Seeded::new(4).blob(SHA256, LEN);
    for error in [
        remote.put(blob.clone()).await.unwrap_err(),
        remote.read(blob.digest(), 1 << 30).await.unwrap_err(),
        remote.find_missing(&[blob.digest()]).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains(&url), "{error}");
    }
}
