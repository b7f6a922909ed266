//! What a server does wrong is found out, and what it cannot do now is tried again.

use rootcellar_grpc::client::{Remote, RemoteLimits};
use rootcellar_store::{BlobStore, BlobStoreExt as _, ByteRange, Error, ErrorKind};

use crate::faulty::{Fault, Faulty};
use crate::servers;

const SMALL: usize = 10_000;
const LARGE: usize = 1_000_000;

/// One that makes a call of its own for each blob.
fn one_by_one(remote: Remote) -> Remote {
    let mut limits = RemoteLimits::default();
    limits.batched_blob_bytes_max = 0;
    remote.with_limits(limits)
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_never_taken_for_a_blob() {
    for len in [1, SMALL, LARGE] {
        for fault in [Fault::WrongByte, Fault::EndsEarly, Fault::SendsMore] {
            let (faulty, remote) = Faulty::start(len, &[fault; 2]).await;
            for remote in [remote.clone(), one_by_one(remote)] {
                let error = remote.read(faulty.blob.digest(), 1 << 30).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::DataLoss, "{fault:?} of {len}: {error}");
                assert_eq!(error.digest(), Some(faulty.blob.digest()));
            }
            assert_eq!(faulty.calls().contains(&"batch read".to_owned()), len < LARGE);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_blob_has_the_length_asked_for_or_is_an_error() {
    let range = ByteRange {
        offset: 5,
        len: Some(2000),
    };
    for (fault, kind) in [
        (Fault::EndsEarly, ErrorKind::DataLoss),
        (Fault::SendsMore, ErrorKind::DataLoss),
        (Fault::FailsAtTheEnd, ErrorKind::DataLoss),
    ] {
        let (faulty, remote) = Faulty::start(SMALL, &[fault]).await;
        let outcome = match remote.get(faulty.blob.digest(), range).await {
            Ok(blob) => blob.into_bytes().await,
            Err(error) => Err(error),
        };
        assert_eq!(outcome.unwrap_err().kind(), kind, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_proven_right_are_taken_whatever_happens_behind_them() {
    let (faulty, remote) = Faulty::start(SMALL, &[Fault::FailsAtTheEnd]).await;
    let remote = one_by_one(remote);
    assert!(remote.read(faulty.blob.digest(), 1 << 30).await.unwrap() == faulty.content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_goes_on_where_it_broke_off() {
    let faults = [Fault::Unavailable, Fault::BreaksHalfway, Fault::BreaksHalfway];
    let (faulty, remote) = Faulty::start(SMALL, &faults).await;
    let content = one_by_one(remote).read(faulty.blob.digest(), 1 << 30).await.unwrap();
    assert!(content == faulty.content);
    assert_eq!(faulty.calls(), ["read 0", "read 0", "read 5000", "read 7500"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_goes_on_where_it_broke_off() {
    let faults = [Fault::Unavailable, Fault::BreaksHalfway];
    let (faulty, remote) = Faulty::start(LARGE, &faults).await;
    remote.put(faulty.blob.clone()).await.unwrap();
    assert!(faulty.received() == faulty.content);
    // In pieces of 256 KiB: one was there when the server gave up first, two when it gave up again.
    assert_eq!(faulty.calls(), ["write 0", "write 262144", "write 524288"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_which_less_was_committed_is_an_error() {
    let (faulty, remote) = Faulty::start(LARGE, &[Fault::CommitsLess]).await;
    let error = remote.put(faulty.blob.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("999999"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_asked_for_ever() {
    let (faulty, remote) = Faulty::start(SMALL, &[Fault::Unavailable; 20]).await;
    let error = remote.find_missing(&[faulty.blob.digest()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let attempts = servers::impatient().attempts_max as usize;
    assert_eq!(faulty.calls().len(), attempts);
    remote.read(faulty.blob.digest(), 1 << 30).await.unwrap_err();
    assert_eq!(faulty.calls().len(), 2 * attempts);
}

async fn get_one(remote: &impl BlobStore, faulty: &Faulty) -> Result<bytes::Bytes, Error> {
    remote.get_many(&[faulty.blob.digest()]).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_item_of_an_answer_is_checked() {
    for (fault, kind) in [
        (Fault::WrongByte, ErrorKind::DataLoss),
        (Fault::LeavesOut, ErrorKind::Internal),
    ] {
        let (faulty, remote) = Faulty::start(SMALL, &[fault]).await;
        assert_eq!(get_one(&remote, &faulty).await.unwrap_err().kind(), kind, "{fault:?}");
        assert!(
            get_one(&remote, &faulty).await.unwrap() == faulty.content,
            "after {fault:?}"
        );
    }
    let (faulty, remote) = Faulty::start(SMALL, &[Fault::LeavesOut]).await;
    let error = remote.put(faulty.blob.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_read_alone_where_batches_do_not_have_it() {
    for fault in [Fault::IsNotOffered, Fault::LeavesOut, Fault::HasNoRoom] {
        let (faulty, remote) = Faulty::start(SMALL, &[fault]).await;
        assert!(remote.read(faulty.blob.digest(), 1 << 30).await.unwrap() == faulty.content);
        assert_eq!(faulty.calls(), ["batch read", "read 0"], "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_batch_cannot_do_now_is_done_alone() {
    let (faulty, remote) = Faulty::start(SMALL, &[Fault::HasNoRoom]).await;
    assert!(get_one(&remote, &faulty).await.unwrap() == faulty.content);
    assert_eq!(faulty.calls(), ["batch read", "read 0"]);
    let (faulty, remote) = Faulty::start(SMALL, &[Fault::HasNoRoom]).await;
    remote.put(faulty.blob.clone()).await.unwrap();
    assert_eq!(faulty.calls(), ["update", "write 0"]);
}
