//! Assets that clients push and fetch.

use rootcellar_digest::Digest;
use rootcellar_proto::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, PushBlobRequest, PushDirectoryRequest, Qualifier,
};
use tonic::{Code, Status};

use crate::server::{SHA256, Server, proto, refused};
use crate::worker::Parts;

const URI: &str = "urn:fdc:buildstream.build:2020:artifact:project/element/key";

fn uris(uris: &[&str]) -> Vec<String> {
    uris.iter().map(|uri| (*uri).to_owned()).collect()
}

async fn push(server: &Server, names: &[&str], blob: Digest) -> Result<(), Status> {
    let request = PushBlobRequest {
        uris: uris(names),
        blob_digest: Some(proto(blob)),
        ..Default::default()
    };
    server.push().push_blob(request).await.map(drop)
}

async fn fetch(server: &Server, names: &[&str]) -> FetchBlobResponse {
    let request = FetchBlobRequest {
        uris: uris(names),
        ..Default::default()
    };
    server.fetch().fetch_blob(request).await.unwrap().into_inner()
}

fn code(response: &FetchBlobResponse) -> Code {
    Code::from_i32(response.status.as_ref().map_or(0, |status| status.code))
}

/// RAF-1, RAP-1: BuildStream probes exactly this.
#[tokio::test]
async fn a_request_without_a_uri_is_an_invalid_argument() {
    let server = Server::start().await;
    let (mut fetch, mut push) = (server.fetch(), server.push());
    refused(
        fetch.fetch_blob(FetchBlobRequest::default()).await,
        Code::InvalidArgument,
    );
    refused(
        fetch.fetch_directory(FetchDirectoryRequest::default()).await,
        Code::InvalidArgument,
    );
    refused(push.push_blob(PushBlobRequest::default()).await, Code::InvalidArgument);
    refused(
        push.push_directory(PushDirectoryRequest::default()).await,
        Code::InvalidArgument,
    );
    let unnamed = PushBlobRequest {
        uris: uris(&[URI]),
        ..Default::default()
    };
    refused(push.push_blob(unnamed).await, Code::InvalidArgument);
}

/// RAF-4: what was never pushed is not found, inside the response.
#[tokio::test]
async fn a_miss_is_not_found() {
    let server = Server::start().await;
    let response = fetch(&server, &[URI]).await;
    assert_eq!(code(&response), Code::NotFound);
    assert_eq!((response.uri.as_str(), response.blob_digest), (URI, None));
    let request = FetchDirectoryRequest {
        uris: uris(&[URI]),
        ..Default::default()
    };
    let response = server.fetch().fetch_directory(request).await.unwrap().into_inner();
    assert_eq!(response.status.unwrap().code, i32::from(Code::NotFound));
}

/// RAF-2, RAF-9, RAP-1, RAP-4: any URI leads to what was pushed last under it.
#[tokio::test]
async fn a_pushed_blob_is_fetched_under_each_of_its_uris() {
    let server = Server::start().await;
    let first = server.hold(SHA256, "first").await;
    push(&server, &[URI, "weak"], first).await.unwrap();
    for names in [&[URI][..], &["weak"], &["unknown", "weak"]] {
        let response = fetch(&server, names).await;
        assert_eq!(code(&response), Code::Ok);
        assert_eq!(response.blob_digest, Some(proto(first)));
        assert_eq!(response.uri, *names.last().unwrap());
        assert_eq!(response.digest_function, 1);
    }
    let second = server.hold(SHA256, "second").await;
    push(&server, &["weak"], second).await.unwrap();
    assert_eq!(fetch(&server, &["weak"]).await.blob_digest, Some(proto(second)));
    assert_eq!(fetch(&server, &[URI]).await.blob_digest, Some(proto(first)));
}

/// RAP-1: blobs and directories are different names.
#[tokio::test]
async fn a_pushed_directory_is_not_a_blob() {
    let server = Server::start().await;
    let parts = Parts::new("x");
    parts.hold(&server).await;
    let root = server.hold_message(&parts.root).await;
    let request = PushDirectoryRequest {
        uris: uris(&[URI]),
        root_directory_digest: Some(proto(root)),
        ..Default::default()
    };
    server.push().push_directory(request).await.unwrap();
    assert_eq!(code(&fetch(&server, &[URI]).await), Code::NotFound);
    let request = FetchDirectoryRequest {
        uris: uris(&[URI]),
        ..Default::default()
    };
    let response = server.fetch().fetch_directory(request).await.unwrap().into_inner();
    assert_eq!(response.root_directory_digest, Some(proto(root)));
}

/// RAP-2.
#[tokio::test]
async fn content_has_to_be_uploaded_before_it_is_pushed() {
    let server = Server::start().await;
    let outcome = push(&server, &[URI], Digest::of(SHA256, b"not there")).await;
    refused(outcome, Code::FailedPrecondition);
}

/// RAF-1: a qualifier has one value.
#[tokio::test]
async fn a_qualifier_that_is_given_twice_is_an_invalid_argument() {
    let server = Server::start().await;
    let qualifier = |value: &str| Qualifier {
        name: "vcs.branch".to_owned(),
        value: value.to_owned(),
    };
    let request = FetchBlobRequest {
        uris: uris(&[URI]),
        qualifiers: vec![qualifier("a"), qualifier("b")],
        ..Default::default()
    };
    refused(server.fetch().fetch_blob(request).await, Code::InvalidArgument);
}

/// RAF-6: qualifiers that content was pushed with are part of its name.
#[tokio::test]
async fn qualifiers_are_part_of_the_name() {
    let server = Server::start().await;
    let blob = server.hold(SHA256, "held").await;
    let qualifier = |name: &str, value: &str| Qualifier {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let (a, b) = (qualifier("a", "1"), qualifier("b", "2"));
    let request = PushBlobRequest {
        uris: uris(&[URI]),
        qualifiers: vec![a.clone(), b.clone()],
        blob_digest: Some(proto(blob)),
        ..Default::default()
    };
    server.push().push_blob(request).await.unwrap();
    let fetch_with = async |qualifiers| {
        let request = FetchBlobRequest {
            uris: uris(&[URI]),
            qualifiers,
            ..Default::default()
        };
        code(&server.fetch().fetch_blob(request).await.unwrap().into_inner())
    };
    assert_eq!(fetch_with(vec![b, a]).await, Code::Ok);
    assert_eq!(fetch_with(Vec::new()).await, Code::NotFound);
}
