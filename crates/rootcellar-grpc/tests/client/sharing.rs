//! Callers who come at the same time share calls.

use futures_util::future::join_all;
use rootcellar_digest::DigestFunction;
use rootcellar_grpc::client::{Remote, RemoteLimits};
use rootcellar_grpc::server::Limits;
use rootcellar_store::testing::Seeded;
use rootcellar_store::{BlobStore, BlobStoreExt as _, Verified};

use crate::faulty::Faulty;
use crate::servers;

const CALLERS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_make_few_calls() {
    let (faulty, remote) = Faulty::start(1000, &[]).await;
    let mut limits = RemoteLimits::default();
    limits.shared_calls_max = 2;
    let remote = &remote.with_limits(limits);
    let blob = &faulty.blob;

    let read = async |_| assert!(remote.read(blob.digest(), 1000).await.unwrap() == faulty.content);
    join_all((0..CALLERS).map(read)).await;
    let ask = async |_| assert!(remote.find_missing(&[blob.digest()]).await.unwrap().is_empty());
    join_all((0..CALLERS).map(ask)).await;
    join_all((0..CALLERS).map(async |_| remote.put(blob.clone()).await.unwrap())).await;

    let calls = faulty.calls();
    for kind in ["batch read", "find missing", "update"] {
        let count = calls.iter().filter(|call| *call == kind).count();
        assert!((1..CALLERS / 10).contains(&count), "{count} times {kind}");
    }
    // Each of them was asked for once in a call, however many callers wanted it.
    let traffic = remote.traffic();
    assert!(traffic.received_bytes() < 1000 * CALLERS as u64 / 10);
    assert!(traffic.sent_bytes() < 1000 * CALLERS as u64 / 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_a_blob_does_not_keep_what_others_read_with_it() {
    let server = servers::own(1 << 20, Limits::default()).await;
    let mut seeded = Seeded::new(1);
    let blobs: Vec<Verified> = (1..=50).map(|len| seeded.blob(DigestFunction::Sha256, len)).collect();
    for outcome in server.store.put_many(blobs.clone()).await {
        outcome.unwrap();
    }
    let mut limits = RemoteLimits::default();
    limits.shared_calls_max = 1;
    let remote = &Remote::new(servers::connect(server.address).await).with_limits(limits);
    let read = blobs.iter().map(|blob| remote.read(blob.digest(), 100));
    let contents: Vec<_> = join_all(read).await.into_iter().map(Result::unwrap).collect();
    // A part of an answer would share it with the other parts, which are all here.
    assert!(contents.iter().all(bytes::Bytes::is_unique));
}
