//! Batches and questions about them.

use bytes::Bytes;
use prost::Message as _;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::batch_update_blobs_request::Request as Update;
use rootcellar_proto::reapi::{
    self, BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse,
    FindMissingBlobsRequest, SpliceBlobRequest, SplitBlobRequest,
};
use rootcellar_reapi::functions::value;
use tonic::{Code, Status};

use crate::server::{SHA256, Server, Setup, content, proto, refused};

async fn find_missing(
    server: &Server,
    function: i32,
    digests: Vec<reapi::Digest>,
) -> Result<Vec<reapi::Digest>, Status> {
    let request = FindMissingBlobsRequest {
        blob_digests: digests,
        digest_function: function,
        ..Default::default()
    };
    let reply = server.cas().find_missing_blobs(request).await?;
    Ok(reply.into_inner().missing_blob_digests)
}

async fn update(server: &Server, function: i32, requests: Vec<Update>) -> Result<BatchUpdateBlobsResponse, Status> {
    let request = BatchUpdateBlobsRequest {
        requests,
        digest_function: function,
        ..Default::default()
    };
    Ok(server.cas().batch_update_blobs(request).await?.into_inner())
}

async fn read(server: &Server, digests: Vec<reapi::Digest>) -> Result<BatchReadBlobsResponse, Status> {
    let request = BatchReadBlobsRequest {
        digests,
        ..Default::default()
    };
    Ok(server.cas().batch_read_blobs(request).await?.into_inner())
}

fn item(digest: Digest, data: Bytes) -> Update {
    Update {
        digest: Some(proto(digest)),
        data,
        compressor: 0,
    }
}

fn codes(reply: &BatchUpdateBlobsResponse) -> Vec<Code> {
    let statuses = reply.responses.iter().map(|item| item.status.as_ref().unwrap().code);
    statuses.map(Code::from_i32).collect()
}

/// FM-1, FM-3, FM-4, DIG-14.
#[tokio::test]
async fn missing_blobs_are_told_once_and_the_empty_blob_never() {
    let server = Server::start().await;
    let held = server.hold(SHA256, "held").await;
    let missing = Digest::of(SHA256, b"missing");
    let empty = Digest::empty(SHA256);
    let asked = [held, missing, empty, missing, held].map(proto).to_vec();
    assert_eq!(find_missing(&server, 0, asked).await.unwrap(), [proto(missing)]);
}

/// FM-4, DIG-2.
#[tokio::test]
async fn a_wrong_size_is_another_blob() {
    let server = Server::start().await;
    let held = server.hold(SHA256, "held").await;
    let mut wrong = proto(held);
    wrong.size_bytes += 1;
    let mut hollow = proto(held);
    hollow.size_bytes = 0;
    let asked = vec![wrong.clone(), hollow.clone()];
    assert_eq!(find_missing(&server, 0, asked).await.unwrap(), [wrong, hollow]);
    assert!(server.holds(held).await, "asking does no harm");
}

/// FM-4, DIG-1, DIG-2.
#[tokio::test]
async fn malformed_digests_are_invalid_arguments() {
    let server = Server::start().await;
    let good = proto(Digest::of(SHA256, b"x"));
    let with_hash = |hash: String| reapi::Digest { hash, size_bytes: 1 };
    let negative = reapi::Digest {
        size_bytes: -1,
        ..good.clone()
    };
    for bad in [
        with_hash(String::new()),
        with_hash(good.hash.to_uppercase()),
        with_hash(good.hash[1..].to_owned()),
        with_hash(good.hash.replace(|_| true, "g")),
        with_hash(format!("../{}", &good.hash[3..])),
        negative,
    ] {
        refused(
            find_missing(&server, 0, vec![good.clone(), bad]).await,
            Code::InvalidArgument,
        );
    }
}

/// DIG-5, DIG-6, DIG-9: SHA-256 and BLAKE3 hashes look alike.
#[tokio::test]
async fn functions_that_look_alike_do_not_share_blobs() {
    let server = Server::start().await;
    let blake3 = DigestFunction::Blake3;
    let digest = server.hold(blake3, "held").await;
    let asked = vec![proto(digest)];
    let unset = find_missing(&server, 0, asked.clone()).await.unwrap();
    assert_eq!(unset, asked, "64 digits without a function are SHA-256");
    let named = find_missing(&server, value(blake3).into(), asked).await.unwrap();
    assert!(named.is_empty());
}

/// DIG-7: every announced function works.
#[tokio::test]
async fn every_function_goes_through_update_and_find() {
    let server = Server::start().await;
    for function in DigestFunction::ALL {
        let data = content(2050, 1);
        let digest = Digest::of(function, &data);
        let number = value(function).into();
        let reply = update(&server, number, vec![item(digest, data)]).await.unwrap();
        assert_eq!(codes(&reply), [Code::Ok], "{function}");
        let missing = find_missing(&server, number, vec![proto(digest)]).await.unwrap();
        assert!(missing.is_empty(), "{function}");
    }
}

/// GEN-5, INST-2: a reserved segment in an instance name.
#[tokio::test]
async fn reserved_instance_names_are_invalid_arguments() {
    let server = Server::start().await;
    let request = FindMissingBlobsRequest {
        instance_name: "a/blobs".to_owned(),
        ..Default::default()
    };
    refused(server.cas().find_missing_blobs(request).await, Code::InvalidArgument);
}

/// FM-5: as many digests as fit a message of 4 MiB.
#[tokio::test]
async fn fifty_thousand_digests_are_one_question() {
    let server = Server::start().await;
    let asked: Vec<_> = (0..50_000_u32)
        .map(|n| proto(Digest::of(SHA256, &n.to_le_bytes())))
        .collect();
    let missing = find_missing(&server, 0, asked.clone()).await.unwrap();
    assert_eq!(missing, asked);
}

/// BU-1, BU-3, BU-4.
#[tokio::test]
async fn one_bad_item_of_a_batch_does_not_hurt_the_others() {
    let server = Server::start().await;
    let (good, other) = (content(100, 1), content(100, 2));
    let good_digest = Digest::of(SHA256, &good);
    let other_digest = Digest::of(SHA256, &other);
    let malformed = Update {
        digest: Some(reapi::Digest {
            hash: "xyz".to_owned(),
            size_bytes: 1,
        }),
        ..Default::default()
    };
    let unnamed = Update {
        data: Bytes::from_static(b"x"),
        ..Default::default()
    };
    let requests = vec![
        item(good_digest, good),
        item(other_digest, content(100, 3)),
        malformed.clone(),
        unnamed,
        item(Digest::empty(SHA256), Bytes::new()),
    ];
    let reply = update(&server, 0, requests).await.unwrap();
    let bad = Code::InvalidArgument;
    assert_eq!(codes(&reply), [Code::Ok, bad, bad, bad, Code::Ok]);
    assert_eq!(reply.responses[1].digest, Some(proto(other_digest)));
    assert_eq!(reply.responses[2].digest, malformed.digest);
    assert!(server.holds(good_digest).await);
    assert!(!server.holds(other_digest).await);
}

/// DIG-2: the size has to be the data's own.
#[tokio::test]
async fn an_update_with_a_wrong_size_is_refused() {
    let server = Server::start().await;
    let data = content(100, 1);
    let mut wrong = item(Digest::of(SHA256, &data), data);
    wrong.digest.as_mut().unwrap().size_bytes = 99;
    let reply = update(&server, 0, vec![wrong]).await.unwrap();
    assert_eq!(codes(&reply), [Code::InvalidArgument]);
}

/// BU-2.
#[tokio::test]
async fn a_batch_over_the_limit_is_refused_as_a_whole() {
    let server = Server::start().await;
    let halves = [content(3 << 19, 1), content((3 << 19) + 1, 2)];
    let digests = halves.each_ref().map(|data| Digest::of(SHA256, data));
    let requests: Vec<_> = digests
        .into_iter()
        .zip(halves)
        .map(|(digest, data)| item(digest, data))
        .collect();
    refused(update(&server, 0, requests.clone()).await, Code::InvalidArgument);
    assert!(!server.holds(digests[0]).await);
    update(&server, 0, requests[..1].to_vec()).await.unwrap();
}

/// CAP-7: a batch of exactly the announced size goes both ways.
#[tokio::test]
async fn a_batch_at_the_limit_is_taken_and_given() {
    let server = Server::start().await;
    let data = content(3 << 20, 1);
    let digest = Digest::of(SHA256, &data);
    let reply = update(&server, 0, vec![item(digest, data.clone())]).await.unwrap();
    assert_eq!(codes(&reply), [Code::Ok]);
    let reply = read(&server, vec![proto(digest)]).await.unwrap();
    assert_eq!(reply.responses[0].data, data);
}

/// BU-5.
#[tokio::test]
async fn data_in_an_unannounced_compression_is_refused_item_by_item() {
    let server = Server::start().await;
    let data = content(10, 1);
    let plain = item(Digest::of(SHA256, &data), data);
    let squeezed = Update {
        compressor: 1,
        ..plain.clone()
    };
    let reply = update(&server, 0, vec![squeezed, plain]).await.unwrap();
    assert_eq!(codes(&reply), [Code::InvalidArgument, Code::Ok]);
}

/// An unsupported digest function fails the whole call.
#[tokio::test]
async fn an_unknown_digest_function_is_an_invalid_argument() {
    let server = Server::start().await;
    for function in [4, 7, 99, -1] {
        refused(update(&server, function, Vec::new()).await, Code::InvalidArgument);
    }
}

/// BR-2, BR-3, BR-4, DIG-14.
#[tokio::test]
async fn each_digest_of_a_batch_is_answered() {
    let server = Server::start().await;
    let held = server.hold(SHA256, "held").await;
    let missing = Digest::of(SHA256, b"missing");
    let mut wrong_size = proto(held);
    wrong_size.size_bytes = 3;
    let mut negative = proto(held);
    negative.size_bytes = -4;
    let asked = vec![
        proto(held),
        proto(missing),
        proto(Digest::empty(SHA256)),
        proto(held),
        wrong_size,
        negative,
    ];
    let reply = read(&server, asked.clone()).await.unwrap();
    let answers: Vec<_> = reply
        .responses
        .iter()
        .map(|item| {
            (
                item.digest.clone().unwrap(),
                Code::from_i32(item.status.as_ref().unwrap().code),
                &item.data[..],
            )
        })
        .collect();
    let expected = [
        (Code::Ok, &b"held"[..]),
        (Code::NotFound, b""),
        (Code::Ok, b""),
        (Code::Ok, b"held"),
        (Code::NotFound, b""),
        (Code::InvalidArgument, b""),
    ];
    let expected = asked
        .into_iter()
        .zip(expected)
        .map(|(digest, (code, data))| (digest, code, data));
    assert_eq!(answers, expected.collect::<Vec<_>>());
    assert!(reply.responses.iter().all(|item| item.compressor == 0));
}

/// BR-1: the sizes asked for count, whether the blobs exist or not.
#[tokio::test]
async fn a_batch_read_over_the_limit_is_refused_as_a_whole() {
    let server = Server::start().await;
    let held = server.hold(SHA256, "held").await;
    let huge = reapi::Digest {
        size_bytes: i64::MAX,
        ..proto(held)
    };
    refused(
        read(&server, vec![proto(held), huge.clone(), huge]).await,
        Code::InvalidArgument,
    );
}

/// BR-5, GEN-3: forty thousand tiny blobs are few bytes, and yet too many for one message.
#[tokio::test]
async fn a_reply_fits_a_message_whatever_its_overhead() {
    let server = Server::start().await;
    let mut asked = Vec::new();
    for n in 0..40_000_u32 {
        asked.push(proto(server.hold(SHA256, format!("{n:060}")).await));
    }
    let reply = read(&server, asked.clone()).await.unwrap();
    assert!(prost::Message::encoded_len(&reply) < 4 << 20);
    assert_eq!(reply.responses.len(), asked.len());
    let last = reply.responses.last().unwrap().status.as_ref().unwrap();
    assert_eq!(Code::from_i32(last.code), Code::ResourceExhausted);
    let read = reply.responses.iter().filter(|item| !item.data.is_empty()).count();
    assert!(read > 10_000, "only {read} were read");
}

/// GEN-6.
#[tokio::test]
async fn chunking_is_not_offered() {
    let server = Server::start().await;
    let split = server.cas().split_blob(SplitBlobRequest::default()).await;
    refused(split, Code::Unimplemented);
    let splice = server.cas().splice_blob(SpliceBlobRequest::default()).await;
    refused(splice, Code::Unimplemented);
}

/// Calls that say how their messages are encoded go through the codec; they are answered alike.
#[tokio::test]
async fn a_call_that_names_its_encoding_is_answered_like_others() {
    let server = Server::start().await;
    let blob = content(100_000, 7);
    let digest = Digest::of(SHA256, &blob);
    let update = BatchUpdateBlobsRequest {
        requests: vec![item(digest, blob.clone()), item(digest, content(100_000, 8))],
        ..Default::default()
    };
    let absent = Digest::of(SHA256, b"absent");
    let mut invalid = proto(digest);
    invalid.hash.pop();
    let read = |digests| BatchReadBlobsRequest {
        digests,
        ..Default::default()
    };
    let reads = [
        vec![proto(digest), proto(Digest::empty(SHA256))],
        vec![proto(digest), proto(absent), proto(digest)],
        vec![proto(digest), invalid],
        Vec::new(),
    ];

    let encoded = server.cas().batch_update_blobs(identity(update.clone())).await.unwrap();
    let plain = server.cas().batch_update_blobs(update).await.unwrap();
    assert_eq!(encoded.into_inner(), plain.into_inner());
    for digests in reads {
        let encoded = server
            .cas()
            .batch_read_blobs(identity(read(digests.clone())))
            .await
            .unwrap();
        let plain = server.cas().batch_read_blobs(read(digests)).await.unwrap();
        assert_eq!(encoded.into_inner(), plain.into_inner());
    }

    let directory = reapi::Directory {
        symlinks: vec![reapi::SymlinkNode {
            name: "link".to_owned(),
            target: "target".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let tree = reapi::GetTreeRequest {
        root_digest: Some(proto(server.hold(SHA256, directory.encode_to_vec()).await)),
        ..Default::default()
    };
    let mut encoded = server
        .cas()
        .get_tree(identity(tree.clone()))
        .await
        .unwrap()
        .into_inner();
    let mut plain = server.cas().get_tree(tree).await.unwrap().into_inner();
    let page = plain.message().await.unwrap().unwrap();
    assert_eq!(page.directories, [directory]);
    assert_eq!(encoded.message().await.unwrap().unwrap(), page);
    assert_eq!(encoded.message().await.unwrap(), plain.message().await.unwrap());
}

/// Compressed messages are not taken, and the client is told so.
#[tokio::test]
async fn a_compressed_call_is_refused() {
    let server = Server::start().await;
    let mut request = identity(BatchReadBlobsRequest::default());
    request.metadata_mut().insert("grpc-encoding", "gzip".parse().unwrap());
    refused(server.cas().batch_read_blobs(request).await, Code::Unimplemented);
}

fn identity<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request
        .metadata_mut()
        .insert("grpc-encoding", "identity".parse().unwrap());
    request
}

/// Items that are nothing are answered with more bytes than they came with.
#[tokio::test]
async fn an_answer_that_would_be_too_long_is_an_error() {
    let mut setup = Setup::default();
    setup.limits.request_bytes_max = 64 << 10;
    let server = setup.start().await;
    let nothing = |count| vec![Update::default(); count];
    assert_eq!(update(&server, 0, nothing(100)).await.unwrap().responses.len(), 100);
    refused(update(&server, 0, nothing(30_000)).await, Code::OutOfRange);
}
