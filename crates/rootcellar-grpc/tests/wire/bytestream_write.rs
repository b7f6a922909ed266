//! Writing blobs in pieces.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::bytestream::WriteRequest;
use rootcellar_proto::reapi::{BatchUpdateBlobsRequest, batch_update_blobs_request};
use tonic::{Code, Request};

use crate::feed::Feed;
use crate::server::{SHA256, Server, content, piece, pieces, proto, read_name, refused, write_name};

/// WR-6, WR-16: pieces of any size, one byte included.
#[tokio::test]
async fn a_blob_is_written_in_pieces_of_any_size() {
    let server = Server::start().await;
    for (len, size, seed) in [
        (1, 1, 1),
        (300, 1, 2),
        (100_000, 999, 3),
        (9 << 20, 2 << 20, 4),
        (3 << 20, 4_100_000, 5),
    ] {
        let data = content(len, seed);
        let digest = Digest::of(SHA256, &data);
        let committed = server
            .write(pieces(&write_name("u", digest), &data, size))
            .await
            .unwrap();
        assert_eq!(committed, i64::try_from(len).unwrap());
        assert!(server.read(read_name(digest)).await.unwrap() == data);
    }
    assert_eq!(server.spooled_files(), 0);
}

/// DIG-7, RN-1, RN-8: every function, instances with slashes, metadata behind the size.
#[tokio::test]
async fn every_function_is_written_under_any_instance() {
    let server = Server::start().await;
    for (seed, function) in (0..).zip(DigestFunction::ALL) {
        let data = content(200_000, seed);
        let digest = Digest::of(function, &data);
        let name = format!("main/sub/{}/some/meta/data", write_name("u", digest));
        assert_eq!(
            server.write(pieces(&name, &data, 70_000)).await.unwrap(),
            200_000,
            "{function}"
        );
        assert!(server.holds(digest).await, "{function}");
    }
}

/// DIG-14: the empty blob needs no message but the first.
#[tokio::test]
async fn the_empty_blob_can_be_written() {
    let server = Server::start().await;
    let name = write_name("u", Digest::empty(SHA256));
    assert_eq!(server.write(pieces(&name, &Bytes::new(), 1)).await.unwrap(), 0);
}

/// WR-1: later messages may repeat the name, and only that one.
#[tokio::test]
async fn later_messages_repeat_the_name_or_leave_it_out() {
    let server = Server::start().await;
    let data = content(100, 1);
    let name = write_name("u", Digest::of(SHA256, &data));
    let mut messages = pieces(&name, &data, 10);
    for message in &mut messages[3..] {
        message.resource_name.clone_from(&name);
    }
    let mut strange = messages.clone();
    strange[5].resource_name = write_name("other", Digest::of(SHA256, &data));
    refused(server.write(strange).await, Code::InvalidArgument);
    assert_eq!(server.write(messages).await.unwrap(), 100);
}

/// WR-1.
#[tokio::test]
async fn a_write_without_a_name_is_an_invalid_argument() {
    let server = Server::start().await;
    refused(server.write(Vec::new()).await, Code::InvalidArgument);
    refused(server.write(vec![WriteRequest::default()]).await, Code::InvalidArgument);
}

/// RN-9, RN-6, DIG-1.
#[tokio::test]
async fn write_names_that_do_not_parse_are_invalid_arguments() {
    let server = Server::start().await;
    let digest = Digest::of(SHA256, b"x");
    let hash = digest.hash_hex();
    for name in [
        read_name(digest),
        format!("uploads/blobs/{hash}/1"),
        format!("uploads/u/blobs/{hash}"),
        format!("uploads/u/blobs/{hash}/-1"),
        format!("uploads/u/blobs/{}/1", hash.to_string().to_uppercase()),
        format!("uploads/u/compressed-blobs/zstd/{hash}/1"),
        format!("uploads/u/compressed-blobs/identity/{hash}/1"),
        format!("operations/uploads/u/blobs/{hash}/1"),
    ] {
        let data = Bytes::from_static(b"x");
        refused(server.write(pieces(&name, &data, 1)).await, Code::InvalidArgument);
    }
    assert!(!server.holds(digest).await);
}

/// WR-2.
#[tokio::test]
async fn offsets_have_to_follow_each_other() {
    let server = Server::start().await;
    let data = content(100, 1);
    let name = write_name("u", Digest::of(SHA256, &data));
    for (index, offset) in [
        (0, 1),
        (0, -1),
        (0, 100),
        (0, i64::MAX),
        (1, 0),
        (1, 11),
        (1, -10),
        (5, 60),
    ] {
        let mut messages = pieces(&name, &data, 10);
        messages[index].write_offset = offset;
        refused(server.write(messages).await, Code::InvalidArgument);
    }
    assert_eq!(
        server.write(pieces(&name, &data, 10)).await.unwrap(),
        100,
        "starting again is allowed"
    );
}

/// WR-3: empty messages keep a stream alive, and one may finish it.
#[tokio::test]
async fn empty_messages_are_legal_and_one_may_finish() {
    let server = Server::start().await;
    let data = content(20, 1);
    let digest = Digest::of(SHA256, &data);
    let name = write_name("u", digest);
    let finish = WriteRequest {
        finish_write: true,
        ..piece("", 20, Bytes::new())
    };
    let messages = vec![
        piece(&name, 0, Bytes::new()),
        piece("", 0, data.slice(..10)),
        piece("", 10, Bytes::new()),
        piece("", 10, data.slice(10..)),
        piece("", 20, Bytes::new()),
        finish,
    ];
    assert_eq!(server.write(messages).await.unwrap(), 20);
    assert!(server.holds(digest).await);
}

/// WR-3.
#[tokio::test]
async fn a_message_after_the_last_is_an_error() {
    let server = Server::start().await;
    let data = content(20, 1);
    let name = write_name("u", Digest::of(SHA256, &data));
    let mut messages = pieces(&name, &data, 20);
    messages.push(piece("", 20, Bytes::new()));
    refused(server.write(messages).await, Code::InvalidArgument);
}

/// WR-4.
#[tokio::test]
async fn a_write_that_is_not_finished_stores_nothing() {
    let server = Server::start().await;
    for len in [20, 500_000] {
        let data = content(len, 1);
        let digest = Digest::of(SHA256, &data);
        let name = write_name("u", digest);
        let mut messages = pieces(&name, &data, len / 2);
        messages.last_mut().unwrap().finish_write = false;
        assert_eq!(server.write(messages).await.unwrap(), i64::try_from(len).unwrap());
        assert!(!server.holds(digest).await);
    }
}

/// WR-5.
#[tokio::test]
async fn wrong_content_is_refused_and_forgotten() {
    let server = Server::start().await;
    for len in [100, 300_000] {
        let digest = Digest::of(SHA256, &content(len, 1));
        let name = write_name("u", digest);
        refused(
            server.write(pieces(&name, &content(len, 2), 50_000)).await,
            Code::InvalidArgument,
        );
        refused(
            server.write(pieces(&name, &content(len - 1, 1), 50_000)).await,
            Code::InvalidArgument,
        );
        refused(
            server.write(pieces(&name, &content(len + 1, 1), 50_000)).await,
            Code::InvalidArgument,
        );
        assert!(!server.holds(digest).await);
        assert_eq!(server.spooled_files(), 0);
        let right = server.write(pieces(&name, &content(len, 1), 50_000)).await;
        assert_eq!(right.unwrap(), i64::try_from(len).unwrap());
    }
}

/// WR-5: more bytes than the size are refused before the client finishes.
#[tokio::test]
async fn too_many_bytes_are_refused_at_once() {
    let server = Server::start().await;
    let name = write_name("u", Digest::of(SHA256, &content(10, 1)));
    let feed = Feed::open(&server);
    feed.send(piece(&name, 0, content(11, 1))).await;
    refused(feed.reply.await.unwrap(), Code::InvalidArgument);
}

/// WR-7, WR-8: a client that never stops sending hears of success.
#[tokio::test]
async fn the_write_of_a_blob_that_exists_ends_early() {
    let server = Server::start().await;
    let data = content(1 << 20, 1);
    let digest = server.hold(SHA256, data.clone()).await;
    let name = write_name("u", digest);
    let first = stream::iter([piece(&name, 0, data.slice(..10))]);
    let endless = first.chain(stream::pending());
    let reply = server.bytes().write(endless).await.unwrap();
    assert_eq!(reply.into_inner().committed_size, 1 << 20);
}

/// WR-7, WR-8: the client's data is not read to its end.
#[tokio::test]
async fn a_client_that_floods_an_early_end_still_hears_ok() {
    let server = Server::start().await;
    let data = content(64 << 20, 1);
    let digest = server.hold(SHA256, data.clone()).await;
    for upload in ["a", "b", "c", "d"] {
        let messages = pieces(&write_name(upload, digest), &data, 1 << 20);
        assert_eq!(server.write(messages).await.unwrap(), 64 << 20);
    }
}

/// WR-7: somebody else is faster.
#[tokio::test]
async fn a_write_ends_early_when_another_one_completes_the_blob() {
    let server = Server::start().await;
    for len in [1000, 1_000_000] {
        let data = content(len, 1);
        let digest = Digest::of(SHA256, &data);
        let slow = Feed::open(&server);
        slow.send(piece(&write_name("slow", digest), 0, data.slice(..10))).await;
        server.until_known(&write_name("slow", digest)).await;
        server
            .write(pieces(&write_name("fast", digest), &data, 1 << 20))
            .await
            .unwrap();
        assert_eq!(slow.reply.await.unwrap().unwrap(), i64::try_from(len).unwrap());
    }
    assert_eq!(server.spooled_files(), 0);
}

/// WR-7, WR-12: the copy comes in a batch.
#[tokio::test]
async fn a_write_ends_early_when_a_batch_brings_the_blob() {
    let server = Server::start().await;
    let data = content(1000, 1);
    let digest = Digest::of(SHA256, &data);
    let slow = Feed::open(&server);
    slow.send(piece(&write_name("slow", digest), 0, data.slice(..10))).await;
    server.until_known(&write_name("slow", digest)).await;
    let item = batch_update_blobs_request::Request {
        digest: Some(proto(digest)),
        data,
        compressor: 0,
    };
    let batch = BatchUpdateBlobsRequest {
        requests: vec![item],
        ..Default::default()
    };
    server.cas().batch_update_blobs(batch).await.unwrap();
    assert_eq!(slow.reply.await.unwrap().unwrap(), 1000);
}

/// WR-15, BU-3: a store without room says so.
#[tokio::test]
async fn a_blob_that_does_not_fit_is_resource_exhausted() {
    let setup = crate::server::Setup {
        store: std::sync::Arc::new(rootcellar_store::MemoryStore::new(10_000)),
        ..Default::default()
    };
    let server = setup.start().await;
    let data = content(20_000, 1);
    let digest = Digest::of(SHA256, &data);
    let write = server.write(pieces(&write_name("u", digest), &data, 5000)).await;
    refused(write, Code::ResourceExhausted);
    let item = batch_update_blobs_request::Request {
        digest: Some(proto(digest)),
        data,
        compressor: 0,
    };
    let batch = BatchUpdateBlobsRequest {
        requests: vec![item],
        ..Default::default()
    };
    let reply = server.cas().batch_update_blobs(batch).await.unwrap().into_inner();
    let status = reply.responses[0].status.as_ref().unwrap();
    assert_eq!(Code::from_i32(status.code), Code::ResourceExhausted);
}

/// WR-12, RN-7: one UUID, many blobs, and the same blob many times.
#[tokio::test]
async fn one_upload_name_serves_any_number_of_writes_at_once() {
    let server = Server::start().await;
    let write = async |seed: u8| {
        let data = content(200_000, seed);
        let digest = Digest::of(SHA256, &data);
        let committed = server.write(pieces(&write_name("one", digest), &data, 10_000)).await;
        assert_eq!(committed.unwrap(), 200_000);
        assert!(server.holds(digest).await);
    };
    let seeds = (0..40).map(|n| n % 8);
    stream::iter(seeds).for_each_concurrent(None, write).await;
    assert_eq!(server.spooled_files(), 0);
}

/// CAP-10.
#[tokio::test]
async fn a_blob_larger_than_announced_is_refused() {
    let mut setup = crate::server::Setup::default();
    setup.limits.blob_bytes_max = Some(1000);
    let server = setup.start().await;
    let data = content(1001, 1);
    let name = write_name("u", Digest::of(SHA256, &data));
    refused(server.write(pieces(&name, &data, 1001)).await, Code::InvalidArgument);
}

/// RN-10.
#[tokio::test]
async fn a_header_may_name_the_resource_and_has_to_be_right() {
    let server = Server::start().await;
    let data = content(10, 1);
    let name = write_name("u", Digest::of(SHA256, &data));
    let with_header = |header: &str| {
        let mut request = Request::new(stream::iter(pieces(&name, &data, 10)));
        let key = "build.bazel.remote.execution.v2.resource-name";
        request.metadata_mut().insert(key, header.parse().unwrap());
        request
    };
    refused(
        server.bytes().write(with_header("uploads/x")).await,
        Code::InvalidArgument,
    );
    server.bytes().write(with_header(&name)).await.unwrap();
}

/// A writer that falls silent does not hold its place for ever, and can continue.
#[tokio::test]
async fn a_silent_writer_is_set_aside() {
    let mut setup = crate::server::Setup::default();
    setup.limits.uploads.silence_max = Duration::from_millis(50);
    let server = setup.start().await;
    let data = content(300_000, 1);
    let digest = Digest::of(SHA256, &data);
    let name = write_name("u", digest);
    let feed = Feed::open(&server);
    feed.send(piece(&name, 0, data.slice(..200_000))).await;
    let status = feed.reply.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let mut rest = piece(&name, 200_000, data.slice(200_000..));
    rest.finish_write = true;
    assert_eq!(server.write(vec![rest]).await.unwrap(), 300_000);
}

/// Closing is not needed: the answer comes after the last message.
#[tokio::test]
async fn a_client_that_does_not_close_its_side_is_answered() {
    let server = Server::start().await;
    let data = content(10, 1);
    let feed = Feed::open(&server);
    let mut only = piece(&write_name("u", Digest::of(SHA256, &data)), 0, data);
    only.finish_write = true;
    feed.send(only).await;
    assert_eq!(feed.reply.await.unwrap().unwrap(), 10);
    let closed = Feed::open(&server);
    refused(closed.close().await, Code::InvalidArgument);
}
