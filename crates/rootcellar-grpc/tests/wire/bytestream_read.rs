//! Reading blobs in pieces.

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::bytestream::ReadRequest;
use tonic::{Code, Request};

use crate::server::{SHA256, Server, content, read_name, refused, write_name};

/// RN-3, RN-5, INST-1, INST-3.
#[tokio::test]
async fn a_blob_is_read_under_any_instance_and_in_every_function() {
    let server = Server::start().await;
    for function in DigestFunction::ALL {
        let data = content(5000, 1);
        let digest = server.hold(function, data.clone()).await;
        for instance in ["", "main/", "main/sub/"] {
            let read = server.read(format!("{instance}{}", read_name(digest))).await.unwrap();
            assert_eq!(read, data, "{function}");
        }
    }
}

/// RN-5: naming a function that need not be named does no harm.
#[tokio::test]
async fn a_redundant_function_in_a_name_is_accepted() {
    let server = Server::start().await;
    let digest = server.hold(SHA256, "held").await;
    let name = format!("blobs/sha256/{}/4", digest.hash_hex());
    assert_eq!(server.read(name).await.unwrap(), b"held");
}

/// RN-9.
#[tokio::test]
async fn names_that_do_not_parse_are_invalid_arguments() {
    let server = Server::start().await;
    let digest = server.hold(SHA256, "held").await;
    let hash = digest.hash_hex();
    for name in [
        String::new(),
        "garbage".to_owned(),
        "blobs".to_owned(),
        format!("blobs/{hash}"),
        format!("blobs/{hash}/-1"),
        format!("blobs/{hash}/4x"),
        format!("blobs/{hash}/4/extra"),
        format!("blobs/{hash}/99999999999999999999"),
        format!("blobs/{}/4", hash.to_string().to_uppercase()),
        format!("blobs/{}/4", "z".repeat(64)),
        format!("/blobs/{hash}/4"),
        format!("main/actions/blobs/{hash}/4"),
        format!("compressed-blobs/{hash}/4"),
        format!("compressed-blobs/identity/{hash}/4"),
        format!("blobs/md4/{hash}/4"),
        write_name("u", digest),
        "x".repeat(10_000),
        "blobs/\u{0}/é/\u{1F980}".to_owned(),
    ] {
        refused(server.read(name).await, Code::InvalidArgument);
    }
}

/// RN-6.
#[tokio::test]
async fn a_compressor_that_is_not_announced_is_an_invalid_argument() {
    let server = Server::start().await;
    let digest = server.hold(SHA256, "held").await;
    for compressor in ["zstd", "deflate", "brotli", "gzip"] {
        let name = format!("compressed-blobs/{compressor}/{}/4", digest.hash_hex());
        refused(server.read(name).await, Code::InvalidArgument);
    }
}

/// RD-1.
#[tokio::test]
async fn an_offset_at_the_end_reads_nothing_and_one_behind_it_is_out_of_range() {
    let server = Server::start().await;
    let name = read_name(server.hold(SHA256, "held").await);
    assert_eq!(server.read_range(&name, 4, 0).await.unwrap(), b"");
    assert_eq!(server.read_range(&name, 1, 0).await.unwrap(), b"eld");
    for offset in [5, i64::MAX, -1, i64::MIN] {
        refused(server.read_range(&name, offset, 0).await, Code::OutOfRange);
    }
}

/// RD-2, RD-3.
#[tokio::test]
async fn a_limit_bounds_what_is_read_and_may_be_larger_than_the_blob() {
    let server = Server::start().await;
    let name = read_name(server.hold(SHA256, "held").await);
    assert_eq!(server.read_range(&name, 0, 3).await.unwrap(), b"hel");
    assert_eq!(server.read_range(&name, 2, 1).await.unwrap(), b"l");
    assert_eq!(server.read_range(&name, 2, 100).await.unwrap(), b"ld");
    assert_eq!(server.read_range(&name, 2, i64::MAX).await.unwrap(), b"ld");
    refused(server.read_range(&name, 0, -1).await, Code::InvalidArgument);
}

/// RD-5, DIG-2.
#[tokio::test]
async fn a_missing_blob_is_not_found_before_any_data() {
    let server = Server::start().await;
    let held = server.hold(SHA256, "held").await;
    let wrong_size = format!("blobs/{}/5", held.hash_hex());
    let hollow = format!("blobs/{}/0", held.hash_hex());
    for name in [read_name(Digest::of(SHA256, b"missing")), wrong_size, hollow] {
        let request = ReadRequest {
            resource_name: name,
            ..Default::default()
        };
        refused(server.bytes().read(request).await, Code::NotFound);
    }
}

/// DIG-14.
#[tokio::test]
async fn the_empty_blob_is_readable_in_every_function() {
    let server = Server::start().await;
    for function in DigestFunction::ALL {
        let name = read_name(Digest::empty(function));
        assert_eq!(server.read(name).await.unwrap(), b"", "{function}");
    }
}

/// GEN-3: no message is larger than what clients accept by default.
#[tokio::test]
async fn a_large_blob_comes_in_pieces_that_fit_a_message() {
    let server = Server::start().await;
    let data = content(20 << 20, 1);
    let digest = server.hold(SHA256, data.clone()).await;
    assert!(server.read(read_name(digest)).await.unwrap() == data);
}

/// RN-10.
#[tokio::test]
async fn a_header_that_names_another_resource_is_an_invalid_argument() {
    let server = Server::start().await;
    let name = read_name(server.hold(SHA256, "held").await);
    let with_header = |header: &str| {
        let mut request = Request::new(ReadRequest {
            resource_name: name.clone(),
            ..Default::default()
        });
        let key = "build.bazel.remote.execution.v2.resource-name";
        request.metadata_mut().insert(key, header.parse().unwrap());
        request
    };
    server.bytes().read(with_header(&name)).await.unwrap();
    refused(
        server.bytes().read(with_header("blobs/other/1")).await,
        Code::InvalidArgument,
    );
}
