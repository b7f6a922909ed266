//! Callers who come at the same time share calls.

use futures_util::future::join_all;
use rootcellar_grpc::client::RemoteLimits;
use rootcellar_store::{BlobStore, BlobStoreExt as _};

use crate::faulty::Faulty;

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
