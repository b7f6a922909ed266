//! Clients that mean harm, or are merely broken.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use rootcellar_digest::Digest;
use rootcellar_proto::asset::PushBlobRequest;
use rootcellar_proto::bytestream::ReadRequest;
use rootcellar_proto::bytestream::byte_stream_client::ByteStreamClient;
use rootcellar_proto::reapi::capabilities_client::CapabilitiesClient;
use rootcellar_proto::reapi::{ExecuteRequest, GetActionResultRequest, GetCapabilitiesRequest};
use tonic::Code;
use tonic::transport::Endpoint;

use crate::server::{SHA256, Server, Setup, connect, content, piece, pieces, read_name, refused, write_name};

/// Ten thousand uploads that are opened and left cost a bounded number of files and the server goes on.
#[tokio::test]
async fn ten_thousand_abandoned_uploads_leave_little_behind() {
    let server = Server::start().await;
    let abandon = async |n: u32| {
        let digest = Digest::of(SHA256, &n.to_le_bytes());
        let name = format!("uploads/u/blobs/{}/{}", digest.hash_hex(), 1_u64 << 40);
        let committed = server.write(vec![piece(&name, 0, content(1000, 1))]).await.unwrap();
        assert_eq!(committed, 1000);
    };
    stream::iter(0..10_000).for_each_concurrent(200, abandon).await;
    assert_eq!(server.spooled_files(), 256);
    still_works(&server).await;
}

/// Writes, reads and executions that are given up at once, hundreds on one connection.
#[tokio::test]
async fn calls_that_are_given_up_at_once_leave_nothing_behind() {
    let server = Server::start().await;
    let digest = Digest::of(SHA256, b"x");
    for round in 0..20 {
        let mut calls = Vec::new();
        for n in 0..200 {
            let mut client = server.bytes();
            let name = format!("uploads/{round}-{n}/blobs/{}/{}", digest.hash_hex(), 1_u64 << 40);
            let open = stream::iter([piece(&name, 0, content(10, 1))]).chain(stream::pending());
            calls.push(tokio::spawn(async move { client.write(open).await }));
        }
        tokio::task::yield_now().await;
        for call in &calls {
            call.abort();
        }
    }
    still_works(&server).await;
    assert!(server.spooled_files() <= 256);
}

/// Connections beyond the bound wait until another one ends.
#[tokio::test]
async fn connections_beyond_the_bound_wait() {
    let mut setup = Setup::default();
    setup.transport.connections_max = 2;
    let server = setup.start().await;
    let second = connect(server.address).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut third = CapabilitiesClient::new(endpoint.connect().await.unwrap());
    let mut call = Box::pin(third.get_capabilities(GetCapabilitiesRequest::default()));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut call).await;
    assert!(early.is_err(), "the kernel took the connection, the server did not");
    drop(second);
    call.await.unwrap();
}

/// Uploads beyond the bound are told to come back, with a delay (GEN-1).
#[tokio::test]
async fn uploads_beyond_the_bound_are_told_to_come_back() {
    let mut setup = Setup::default();
    setup.limits.uploads.active_max = 1;
    let server = setup.start().await;
    let first = Digest::of(SHA256, b"first");
    let open = stream::iter([piece(&write_name("u", first), 0, Bytes::from_static(b"fi"))]).chain(stream::pending());
    let mut client = server.bytes();
    let holding = tokio::spawn(async move { client.write(open).await });
    let second = content(10, 2);
    let name = write_name("u", Digest::of(SHA256, &second));
    let status = loop {
        match server.write(vec![piece(&name, 0, second.slice(..5))]).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
    let details: rootcellar_proto::rpc::Status = prost::Message::decode(status.details()).unwrap();
    assert_eq!(details.code, i32::from(Code::Unavailable));
    assert!(details.details[0].type_url.ends_with("google.rpc.RetryInfo"));
    holding.abort();
}

/// Sizes at the edge of what the wire can say.
#[tokio::test]
async fn giant_sizes_cost_nothing_until_bytes_come() {
    let server = Server::start().await;
    let hash = Digest::of(SHA256, b"x").hash_hex().to_string();
    let giant = format!("uploads/u/blobs/{hash}/{}", i64::MAX);
    assert_eq!(server.write(vec![piece(&giant, 0, Bytes::new())]).await.unwrap(), 0);
    let mut finish = piece(&giant, 0, Bytes::new());
    finish.finish_write = true;
    refused(server.write(vec![finish]).await, Code::InvalidArgument);
    refused(server.read(format!("blobs/{hash}/{}", i64::MAX)).await, Code::NotFound);
    assert_eq!(server.spooled_files(), 0);
    still_works(&server).await;
}

/// A reader that asks and does not read holds up nobody else. (On its own connection it does: the window is its own.)
#[tokio::test]
async fn slow_readers_hold_up_nobody() {
    let server = Server::start().await;
    let large = server.hold(SHA256, content(8 << 20, 1)).await;
    let mut client = ByteStreamClient::new(connect(server.address).await);
    let mut asleep = Vec::new();
    for _ in 0..50 {
        let request = ReadRequest {
            resource_name: read_name(large),
            ..Default::default()
        };
        asleep.push(client.read(request).await.unwrap());
    }
    still_works(&server).await;
}

/// GEN-6, RAP-8.
#[tokio::test]
async fn what_is_not_offered_is_unimplemented() {
    let setup = Setup {
        execution: None,
        ..Setup::default()
    };
    let server = setup.start().await;
    let execute = server.execution().execute(ExecuteRequest::default()).await;
    refused(execute, Code::Unimplemented);
    let result = server
        .action_cache()
        .get_action_result(GetActionResultRequest::default())
        .await;
    refused(result, Code::Unimplemented);
    let push = server.push().push_blob(PushBlobRequest::default()).await;
    refused(push, Code::Unimplemented);
}

/// MD-1: metadata that cannot be read is ignored.
#[tokio::test]
async fn garbage_in_the_request_metadata_is_ignored() {
    let server = Server::start().await;
    let mut request = tonic::Request::new(GetCapabilitiesRequest::default());
    let garbage = tonic::metadata::MetadataValue::from_bytes(&[0xff; 300]);
    request
        .metadata_mut()
        .insert_bin("build.bazel.remote.execution.v2.requestmetadata-bin", garbage);
    server.capabilities().get_capabilities(request).await.unwrap();
}

async fn still_works(server: &Server) {
    let data = content(300_000, 99);
    let digest = Digest::of(SHA256, &data);
    server
        .write(pieces(&write_name("u", digest), &data, 100_000))
        .await
        .unwrap();
    assert!(server.read(read_name(digest)).await.unwrap() == data);
}

/// What is reserved for an upload counts as what came of it does.
#[tokio::test]
async fn uploads_set_aside_take_no_more_room_than_is_allowed() {
    const MIB: usize = 1 << 20;
    let mut setup = Setup::default();
    setup.limits.uploads.parked_bytes_max = 3 * MIB as u64;
    let server = setup.start().await;
    for n in 0..2 {
        let name = format!(
            "uploads/u{n}/blobs/{}/{}",
            Digest::of(SHA256, b"x").hash_hex(),
            1_u64 << 40
        );
        let sent = server.write(vec![piece(&name, 0, content(MIB, n))]).await.unwrap();
        assert_eq!(sent, MIB as i64);
    }
    assert_eq!(server.spooled_files(), 1);
    still_works(&server).await;
}
