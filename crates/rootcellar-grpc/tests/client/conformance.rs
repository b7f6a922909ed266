//! A server's CAS keeps the contract of a store, seen through the client.

use std::sync::{Arc, Mutex};

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_grpc::client::{Remote, RemoteLimits};
use rootcellar_grpc::server::Limits;
use rootcellar_store::testing::{Seeded, check_blob_store};
use rootcellar_store::{BlobStore, BlobStoreExt as _};

use crate::servers::{self, Server};

/// Runs the suite on servers with `announced` as their limits.
async fn check(announced: Limits, limits: RemoteLimits) {
    let servers: Mutex<Vec<Server>> = Mutex::default();
    check_blob_store(async |bytes_max| {
        let server = servers::own(bytes_max, announced.clone()).await;
        let remote = Remote::new(servers::connect(server.address).await).with_limits(limits.clone());
        servers.lock().unwrap().push(server);
        Arc::new(remote) as _
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_is_a_blob_store() {
    check(Limits::default(), RemoteLimits::default()).await;
}

/// The same with calls so small that everything is split.
#[tokio::test(flavor = "multi_thread")]
async fn remote_is_a_blob_store_in_small_calls() {
    let mut announced = Limits::default();
    announced.batch_total_bytes_max = 10_000;
    announced.read_piece_bytes = 1000;
    let mut limits = RemoteLimits::default();
    limits.batch_blobs_max = 3;
    limits.find_missing_max = 2;
    limits.calls_max = 2;
    check(announced, limits).await;
}

/// The same with one call of a kind at a time, so that callers share them.
#[tokio::test(flavor = "multi_thread")]
async fn remote_is_a_blob_store_in_shared_calls() {
    let mut limits = RemoteLimits::default();
    limits.shared_calls_max = 1;
    check(Limits::default(), limits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_shows_where_it_is() {
    let server = servers::own(1 << 20, Limits::default()).await;
    let remote = Remote::new(servers::connect(server.address).await);
    assert_eq!(remote.to_string(), format!("remote http://{}", server.address));
    let error = remote
        .read(Digest::of(DigestFunction::Blake3, b"x"), 1)
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&server.address.to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_with_slashes_are_named_in_every_call() {
    let server = servers::own(1 << 30, Limits::default()).await;
    let remote = Remote::new(servers::connect_to_instance(server.address, "main/of two").await);
    let mut seeded = Seeded::new(1);
    for function in DigestFunction::ALL {
        for len in [10, 700_000] {
            let blob = seeded.blob(function, len);
            let digest = blob.digest();
            remote.put(blob).await.unwrap();
            assert_eq!(
                Digest::of(function, &remote.read(digest, 1 << 20).await.unwrap()),
                digest
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_counts_the_bytes_of_blobs() {
    let server = servers::own(1 << 30, Limits::default()).await;
    let remote = Remote::new(servers::connect(server.address).await);
    let traffic = remote.traffic();
    let mut seeded = Seeded::new(2);
    let (small, large) = (
        seeded.blob(DigestFunction::Sha256, 10_000),
        seeded.blob(DigestFunction::Sha256, 1_000_000),
    );
    for outcome in remote.put_many(vec![small.clone(), large.clone()]).await {
        outcome.unwrap();
    }
    assert_eq!((traffic.sent_bytes(), traffic.received_bytes()), (1_010_000, 0));
    for outcome in remote.get_many(&[small.digest(), large.digest()]).await {
        outcome.unwrap();
    }
    assert_eq!((traffic.sent_bytes(), traffic.received_bytes()), (1_010_000, 1_010_000));
}
