//! Results of actions.

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::{
    ActionResult, GetActionResultRequest, OutputDirectory, OutputFile, UpdateActionResultRequest,
};
use rootcellar_reapi::functions::value;
use tonic::{Code, Status};

use crate::server::{SHA256, Server, Setup, content, proto, refused};
use crate::worker::{self, Parts};

async fn get(server: &Server, action: Digest) -> Result<ActionResult, Status> {
    let request = GetActionResultRequest {
        action_digest: Some(proto(action)),
        ..Default::default()
    };
    Ok(server.action_cache().get_action_result(request).await?.into_inner())
}

async fn update(server: &Server, action: Digest, result: ActionResult) -> Result<ActionResult, Status> {
    let request = UpdateActionResultRequest {
        action_digest: Some(proto(action)),
        action_result: Some(result),
        ..Default::default()
    };
    Ok(server.action_cache().update_action_result(request).await?.into_inner())
}

/// AC-1, AC-2, AC-8.
#[tokio::test]
async fn a_result_is_kept_and_served() {
    let server = Server::start().await;
    let action = Parts::new("a").hold(&server).await;
    refused(get(&server, action).await, Code::NotFound);
    let result = worker::result(&server, 0).await;
    let kept = update(&server, action, result.clone()).await.unwrap();
    assert_eq!(kept.stdout_digest, result.stdout_digest);
    let got = get(&server, action).await.unwrap();
    assert_eq!(got, kept);
    assert!(got.stdout_raw.is_empty(), "nothing is inlined that was not asked for");
}

/// AC-1, DIG-9: function and size are part of the key.
#[tokio::test]
async fn the_whole_digest_is_the_key() {
    let server = Server::start().await;
    let action = Parts::new("a").hold(&server).await;
    update(&server, action, worker::result(&server, 0).await).await.unwrap();
    let other_size = Digest::new(SHA256, action.hash(), action.size_bytes() + 1).unwrap();
    refused(get(&server, other_size).await, Code::NotFound);
    let request = GetActionResultRequest {
        action_digest: Some(proto(action)),
        digest_function: value(DigestFunction::Blake3).into(),
        ..Default::default()
    };
    refused(server.action_cache().get_action_result(request).await, Code::NotFound);
}

/// AC-3.
#[tokio::test]
async fn contents_are_inlined_on_request_and_keep_their_digests() {
    let server = Server::start().await;
    let action = Parts::new("a").hold(&server).await;
    let file = |path: &str, digest| OutputFile {
        path: path.to_owned(),
        digest: Some(proto(digest)),
        ..Default::default()
    };
    let small = server.hold(SHA256, "small").await;
    let huge = server.hold(SHA256, content(5 << 20, 1)).await;
    let result = ActionResult {
        output_files: vec![file("small", small), file("huge", huge), file("other", small)],
        ..worker::result(&server, 0).await
    };
    update(&server, action, result).await.unwrap();
    let request = GetActionResultRequest {
        action_digest: Some(proto(action)),
        inline_stdout: true,
        inline_stderr: true,
        inline_output_files: ["huge", "small", "unknown"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let got = server
        .action_cache()
        .get_action_result(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(&got.stdout_raw[..], b"said");
    assert!(got.stdout_digest.is_some());
    let contents: Vec<_> = got.output_files.iter().map(|file| &file.contents[..]).collect();
    assert_eq!(
        contents,
        [&b"small"[..], b"", b""],
        "what does not fit into a message is left out"
    );
    assert!(got.output_files.iter().all(|file| file.digest.is_some()));
}

/// LT-2: a result whose blobs are not all there is none. AC-7: nor is it taken.
#[tokio::test]
async fn a_result_with_missing_blobs_is_refused() {
    let server = Server::start().await;
    let action = Parts::new("a").hold(&server).await;
    let result = ActionResult {
        stdout_digest: Some(proto(Digest::of(SHA256, b"not there"))),
        ..Default::default()
    };
    refused(update(&server, action, result).await, Code::FailedPrecondition);
    refused(get(&server, action).await, Code::NotFound);
}

/// AC-10: BuildStream's results have no tree.
#[tokio::test]
async fn a_result_with_a_root_directory_only_is_complete() {
    let server = Server::start().await;
    let action = Parts::new("a").hold(&server).await;
    let root = server.hold_message(&Parts::new("x").root).await;
    server.hold(SHA256, Parts::new("x").input).await;
    let directory = |digest| ActionResult {
        output_directories: vec![OutputDirectory {
            path: ".".to_owned(),
            root_directory_digest: Some(proto(digest)),
            ..Default::default()
        }],
        ..Default::default()
    };
    for digest in [root, Digest::empty(SHA256)] {
        update(&server, action, directory(digest)).await.unwrap();
        let got = get(&server, action).await.unwrap();
        assert_eq!(got.output_directories, directory(digest).output_directories);
    }
}

/// AC-9, AC-12.
#[tokio::test]
async fn inlined_contents_are_not_lost_and_no_result_is_empty() {
    let server = Server::start().await;
    let action = Parts::new("a").hold(&server).await;
    let result = ActionResult {
        stdout_raw: "said inline".into(),
        ..Default::default()
    };
    update(&server, action, result).await.unwrap();
    let got = get(&server, action).await.unwrap();
    assert_eq!(got.stdout_digest, Some(proto(Digest::of(SHA256, b"said inline"))));
    update(&server, action, ActionResult::default()).await.unwrap();
    assert!(prost::Message::encoded_len(&get(&server, action).await.unwrap()) > 0);
}

/// AC-7.
#[tokio::test]
async fn updates_can_be_switched_off() {
    let setup = Setup {
        takes_results: false,
        ..Setup::default()
    };
    let server = setup.start().await;
    let action = Parts::new("a").hold(&server).await;
    let outcome = update(&server, action, ActionResult::default()).await;
    refused(outcome, Code::PermissionDenied);
}

/// AC-6.
#[tokio::test]
async fn an_action_that_must_not_be_cached_is_not() {
    let server = Server::start().await;
    let mut parts = Parts::new("a");
    parts.action.do_not_cache = true;
    let action = parts.hold(&server).await;
    let outcome = update(&server, action, worker::result(&server, 0).await).await;
    refused(outcome, Code::InvalidArgument);
    refused(get(&server, action).await, Code::NotFound);
}

/// AC-7, DIG-1.
#[tokio::test]
async fn malformed_requests_are_invalid_arguments() {
    let server = Server::start().await;
    let mut client = server.action_cache();
    refused(
        client.get_action_result(GetActionResultRequest::default()).await,
        Code::InvalidArgument,
    );
    let empty = UpdateActionResultRequest::default();
    refused(client.update_action_result(empty).await, Code::InvalidArgument);
    let no_result = UpdateActionResultRequest {
        action_digest: Some(proto(Digest::of(SHA256, b"x"))),
        ..Default::default()
    };
    refused(client.update_action_result(no_result).await, Code::InvalidArgument);
}
