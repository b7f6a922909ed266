//! Execute and WaitExecution.

use std::time::Duration;

use prost::Message as _;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_grpc::server::ExecutionOptions;
use rootcellar_proto::longrunning::operation::Result as Outcome;
use rootcellar_proto::longrunning::{CancelOperationRequest, Operation};
use rootcellar_proto::reapi::execution_stage::Value as Stage;
use rootcellar_proto::reapi::{
    Directory, DirectoryNode, ExecuteOperationMetadata, ExecuteRequest, ExecuteResponse, FileNode,
    UpdateActionResultRequest, WaitExecutionRequest,
};
use rootcellar_proto::rpc;
use tonic::{Code, Status, Streaming};

use crate::server::{SHA256, Server, Setup, proto, refused};
use crate::worker::{self, Parts};

fn request(action: Digest) -> ExecuteRequest {
    ExecuteRequest {
        action_digest: Some(proto(action)),
        ..Default::default()
    }
}

async fn execute(server: &Server, request: ExecuteRequest) -> Result<Streaming<Operation>, Status> {
    Ok(server.execution().execute(request).await?.into_inner())
}

async fn wait(server: &Server, name: &str) -> Result<Streaming<Operation>, Status> {
    let request = WaitExecutionRequest { name: name.to_owned() };
    Ok(server.execution().wait_execution(request).await?.into_inner())
}

/// What the server promises of every operation it sends (EX-3 to EX-6, EX-11).
fn checked(operation: &Operation) -> (Stage, Option<ExecuteResponse>) {
    assert!(!operation.name.is_empty());
    let metadata = operation.metadata.as_ref().unwrap();
    assert_eq!(
        metadata.type_url,
        "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteOperationMetadata"
    );
    let metadata: ExecuteOperationMetadata = metadata.to_msg().unwrap();
    assert!(metadata.action_digest.is_some() && metadata.digest_function != 0);
    assert_eq!(operation.done, metadata.stage() == Stage::Completed);
    let response = match &operation.result {
        None => None,
        Some(Outcome::Response(any)) => Some(any.to_msg::<ExecuteResponse>().unwrap()),
        Some(Outcome::Error(error)) => panic!("an operation never has an error: {error:?}"),
    };
    assert_eq!(operation.done, response.is_some());
    (metadata.stage(), response)
}

/// Reads a stream to its end, which has to be right: the name, the stages, and the response.
async fn follow(mut stream: Streaming<Operation>) -> (String, Vec<Stage>, ExecuteResponse) {
    let mut name = String::new();
    let mut stages = Vec::new();
    let mut last = None;
    while let Some(operation) = stream.message().await.unwrap() {
        assert!(last.is_none(), "nothing comes after the done operation");
        assert!(name.is_empty() || name == operation.name);
        name.clone_from(&operation.name);
        let (stage, response) = checked(&operation);
        stages.push(stage);
        last = response;
    }
    (name, stages, last.expect("a stream ends with a done operation"))
}

fn code(response: &ExecuteResponse) -> Code {
    Code::from_i32(response.status.as_ref().map_or(0, |status| status.code))
}

/// The subjects of a FAILED_PRECONDITION status, all of which have to be missing blobs (EX-8).
fn missing(status: &rpc::Status) -> Vec<String> {
    assert_eq!(Code::from_i32(status.code), Code::FailedPrecondition);
    assert_eq!(status.details.len(), 1, "a foreign detail makes clients give up");
    let failure: rpc::PreconditionFailure = status.details[0].to_msg().unwrap();
    assert!(failure.violations.iter().all(|violation| violation.r#type == "MISSING"));
    let mut subjects: Vec<_> = failure
        .violations
        .into_iter()
        .map(|violation| violation.subject)
        .collect();
    subjects.sort();
    subjects
}

fn details(status: &Status) -> rpc::Status {
    let details = rpc::Status::decode(status.details()).unwrap();
    assert_eq!(details.code, i32::from(status.code()));
    assert_eq!(details.message, status.message());
    details
}

fn blob_names(digests: &[Digest]) -> Vec<String> {
    let mut names: Vec<_> = digests.iter().map(crate::server::blob_name).collect();
    names.sort();
    names
}

/// EX-1: clients probe with an empty request.
#[tokio::test]
async fn an_empty_request_is_an_invalid_argument() {
    let server = Server::start().await;
    refused(execute(&server, ExecuteRequest::default()).await, Code::InvalidArgument);
    let reserved = ExecuteRequest {
        instance_name: "operations".to_owned(),
        ..request(Digest::of(SHA256, b"x"))
    };
    refused(execute(&server, reserved).await, Code::InvalidArgument);
}

/// EX-3, EX-5, EX-6, EX-11.
#[tokio::test]
async fn an_action_goes_through_its_stages_to_a_result() {
    let server = Server::start().await;
    let session = worker::join(&server).await;
    let action = Parts::new("a").hold(&server).await;
    let in_instance = ExecuteRequest {
        instance_name: "main/sub".to_owned(),
        ..request(action)
    };
    let mut stream = execute(&server, in_instance).await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    assert!(first.name.starts_with("main/sub/operations/"), "{}", first.name);
    checked(&first);
    let work = worker::next(&*session).await;
    assert_eq!(work.lease.action, action);
    worker::finish(&*session, &work, worker::result(&server, 3).await).await;
    let (name, stages, response) = follow(stream).await;
    assert_eq!(name, first.name);
    assert_eq!(stages.last(), Some(&Stage::Completed));
    assert_eq!(code(&response), Code::Ok);
    assert_eq!(response.result.unwrap().exit_code, 3);
    assert!(!response.cached_result);
}

/// EX-7, EX-8: every blob that is missing is named, and in a form that Bazel accepts.
#[tokio::test]
async fn all_missing_blobs_are_told_at_once() {
    let server = Server::start().await;
    worker::join(&server).await;
    let parts = Parts::new("missing");
    let command = Digest::of(SHA256, &parts.command.encode_to_vec());
    let root = Digest::of(SHA256, &parts.root.encode_to_vec());
    let input = Digest::of(SHA256, parts.input.as_bytes());

    let status = refused(
        execute(&server, request(parts.digest())).await,
        Code::FailedPrecondition,
    );
    assert_eq!(missing(&details(&status)), blob_names(&[parts.digest()]));

    server.hold_message(&parts.action).await;
    let status = refused(
        execute(&server, request(parts.digest())).await,
        Code::FailedPrecondition,
    );
    assert_eq!(missing(&details(&status)), blob_names(&[command, root]));

    server.hold_message(&parts.root).await;
    let status = refused(
        execute(&server, request(parts.digest())).await,
        Code::FailedPrecondition,
    );
    assert_eq!(missing(&details(&status)), blob_names(&[command, input]));

    server.hold_message(&parts.command).await;
    let status = refused(
        execute(&server, request(parts.digest())).await,
        Code::FailedPrecondition,
    );
    assert_eq!(missing(&details(&status)), blob_names(&[input]));
}

/// EX-8: a list that is too long for the trailers of a call comes in the response of an operation.
#[tokio::test]
async fn a_thousand_missing_blobs_are_told_in_a_response() {
    let server = Server::start().await;
    let mut parts = Parts::new("many");
    let inputs: Vec<_> = (0..1000)
        .map(|n| Digest::of(SHA256, format!("input {n}").as_bytes()))
        .collect();
    parts.root = Directory {
        files: (0..)
            .zip(&inputs)
            .map(|(n, digest)| FileNode {
                name: format!("f{n:04}"),
                digest: Some(proto(*digest)),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    let root = server.hold_message(&parts.root).await;
    parts.action.input_root_digest = Some(proto(root));
    server.hold_message(&parts.command).await;
    let action = server.hold_message(&parts.action).await;
    let (name, _, response) = follow(execute(&server, request(action)).await.unwrap()).await;
    assert_eq!(missing(&response.status.unwrap()), blob_names(&inputs));
    follow(wait(&server, &name).await.unwrap()).await;
}

/// EX-8: the function is named where it cannot be told from the hash.
#[tokio::test]
async fn the_subject_of_a_missing_blake3_blob_names_its_function() {
    let server = Server::start().await;
    let blake3 = DigestFunction::Blake3;
    let action = Digest::of(blake3, b"not there");
    let named = ExecuteRequest {
        digest_function: rootcellar_reapi::functions::value(blake3).into(),
        ..request(action)
    };
    let status = refused(execute(&server, named).await, Code::FailedPrecondition);
    let subject = format!("blobs/blake3/{}/9", action.hash_hex());
    assert_eq!(missing(&details(&status)), [subject]);
}

/// EX-7, CMD-2: what is wrong in itself is an invalid argument.
#[tokio::test]
async fn an_action_that_breaks_a_rule_is_an_invalid_argument() {
    let server = Server::start().await;
    let garbage = server.hold(SHA256, vec![0xff; 50]).await;
    refused(execute(&server, request(garbage)).await, Code::InvalidArgument);
    let mut parts = Parts::new("x");
    parts.command.arguments.clear();
    let command = server.hold_message(&parts.command).await;
    parts.action.command_digest = Some(proto(command));
    let action = parts.hold(&server).await;
    refused(execute(&server, request(action)).await, Code::InvalidArgument);
}

/// DIR-2, DIR-7: a tree that contains itself cannot be made, but one that is no Directory can.
#[tokio::test]
async fn an_input_that_is_no_directory_is_an_invalid_argument() {
    let server = Server::start().await;
    let mut parts = Parts::new("x");
    let garbage = server.hold(SHA256, vec![0xff; 50]).await;
    parts.root.directories.push(DirectoryNode {
        name: "sub".to_owned(),
        digest: Some(proto(garbage)),
    });
    let root = server.hold_message(&parts.root).await;
    parts.action.input_root_digest = Some(proto(root));
    let action = parts.hold(&server).await;
    refused(execute(&server, request(action)).await, Code::InvalidArgument);
}

/// PLAT-1, PLAT-4.
#[tokio::test]
async fn an_action_that_no_worker_can_run_fails_at_once_and_says_why() {
    let server = Server::start().await;
    worker::join(&server).await;
    let action = Parts::new("x").with_property("OSFamily", "plan9").hold(&server).await;
    let status = refused(execute(&server, request(action)).await, Code::FailedPrecondition);
    assert!(status.message().contains("OSFamily"), "{status:?}");
}

/// EX-2, RES-6: a result that is cached needs no worker, and no inputs.
#[tokio::test]
async fn a_cached_result_is_served_unless_the_client_skips_the_cache() {
    let server = Server::start().await;
    let parts = Parts::new("cached");
    server.hold_message(&parts.command).await;
    let action = server.hold_message(&parts.action).await;
    let update = UpdateActionResultRequest {
        action_digest: Some(proto(action)),
        action_result: Some(worker::result(&server, 0).await),
        ..Default::default()
    };
    server.action_cache().update_action_result(update).await.unwrap();
    let (name, _, response) = follow(execute(&server, request(action)).await.unwrap()).await;
    assert!(response.cached_result);
    assert_eq!(code(&response), Code::Ok);
    let (again, ..) = follow(wait(&server, &name).await.unwrap()).await;
    assert_eq!(again, name);

    let skipping = ExecuteRequest {
        skip_cache_lookup: true,
        ..request(action)
    };
    refused(execute(&server, skipping.clone()).await, Code::FailedPrecondition);
    let session = worker::join(&server).await;
    parts.hold(&server).await;
    let stream = execute(&server, skipping).await.unwrap();
    let work = worker::next(&*session).await;
    worker::finish(&*session, &work, worker::result(&server, 0).await).await;
    assert!(!follow(stream).await.2.cached_result);
}

/// EX-12, AC-3.
#[tokio::test]
async fn each_client_gets_the_contents_that_it_asked_for() {
    let server = Server::start().await;
    let session = worker::join(&server).await;
    let action = Parts::new("inline").hold(&server).await;
    let inlined = ExecuteRequest {
        inline_stdout: true,
        ..request(action)
    };
    let with = execute(&server, inlined).await.unwrap();
    let without = execute(&server, request(action)).await.unwrap();
    let work = worker::next(&*session).await;
    worker::finish(&*session, &work, worker::result(&server, 0).await).await;
    let with = follow(with).await.2.result.unwrap();
    assert_eq!(&with.stdout_raw[..], b"said");
    assert!(with.stdout_digest.is_some());
    assert!(follow(without).await.2.result.unwrap().stdout_raw.is_empty());
}

/// EX-14: one execution, two operations, and cancelling one leaves the other.
#[tokio::test]
async fn identical_actions_share_an_execution_but_not_an_operation() {
    let server = Server::start().await;
    let session = worker::join(&server).await;
    let action = Parts::new("shared").hold(&server).await;
    let mut first = execute(&server, request(action)).await.unwrap();
    let second = execute(&server, request(action)).await.unwrap();
    let name = first.message().await.unwrap().unwrap().name;
    let work = worker::next(&*session).await;
    let cancel = CancelOperationRequest { name: name.clone() };
    server.operations().cancel_operation(cancel).await.unwrap();
    let (_, _, cancelled) = follow(first).await;
    assert_eq!(code(&cancelled), Code::Cancelled);
    assert!(!work.cancelled.is_cancelled(), "the second still waits");
    worker::finish(&*session, &work, worker::result(&server, 0).await).await;
    let (other, _, response) = follow(second).await;
    assert_ne!(other, name);
    assert_eq!(code(&response), Code::Ok);
}

/// EX-10, WX-1, WX-3.
#[tokio::test]
async fn an_operation_survives_its_client_and_is_found_by_name() {
    let server = Server::start().await;
    let session = worker::join(&server).await;
    let action = Parts::new("left").hold(&server).await;
    let mut stream = execute(&server, request(action)).await.unwrap();
    let name = stream.message().await.unwrap().unwrap().name;
    drop(stream);
    let work = worker::next(&*session).await;
    let mut waiting = wait(&server, &name).await.unwrap();
    let (stage, _) = checked(&waiting.message().await.unwrap().unwrap());
    assert_eq!(stage, Stage::Executing);
    assert!(!work.cancelled.is_cancelled());
    worker::finish(&*session, &work, worker::result(&server, 0).await).await;
    assert_eq!(code(&follow(waiting).await.2), Code::Ok);
    let (again, stages, _) = follow(wait(&server, &name).await.unwrap()).await;
    assert_eq!((again, stages), (name, vec![Stage::Completed]));
}

/// WX-2.
#[tokio::test]
async fn an_unknown_operation_is_not_found() {
    let server = Server::start().await;
    for name in ["", "operations/none", "garbage", "main/operations/0"] {
        refused(wait(&server, name).await, Code::NotFound);
    }
}

/// EX-13: a client hears the name before its action was looked at, and finds the operation under it already.
#[tokio::test]
async fn the_first_operation_does_not_wait_for_the_inputs() {
    let options = ExecutionOptions::default();
    let setup = Setup {
        store: std::sync::Arc::new(crate::slow::Slow::new(Duration::from_millis(300))),
        execution: Some(options),
        ..Setup::default()
    };
    let server = setup.start().await;
    let session = worker::join(&server).await;
    let parts = Parts::new("slow");
    let action = parts.hold(&server).await;
    let mut stream = execute(&server, request(action)).await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(checked(&first).0, Stage::CacheCheck);
    let mut waiting = wait(&server, &first.name).await.unwrap();
    assert_eq!(checked(&waiting.message().await.unwrap().unwrap()).0, Stage::CacheCheck);
    let work = worker::next(&*session).await;
    worker::finish(&*session, &work, worker::result(&server, 0).await).await;
    assert_eq!(code(&follow(stream).await.2), Code::Ok);
    assert_eq!(code(&follow(waiting).await.2), Code::Ok);

    // What goes wrong after the name was told is a response.
    let unknown = Parts::new("not there").digest();
    let (name, stages, response) = follow(execute(&server, request(unknown)).await.unwrap()).await;
    assert_eq!(stages, [Stage::CacheCheck, Stage::Completed]);
    assert_eq!(missing(&response.status.unwrap()), blob_names(&[unknown]));
    follow(wait(&server, &name).await.unwrap()).await;
}

/// LRO-2: an operation can be cancelled while its action is looked at.
#[tokio::test]
async fn an_operation_is_cancelled_before_it_is_scheduled() {
    let mut options = ExecutionOptions::default();
    options.resend_interval = Duration::from_millis(20);
    let setup = Setup {
        store: std::sync::Arc::new(crate::slow::Slow::new(Duration::from_secs(60))),
        execution: Some(options),
        ..Setup::default()
    };
    let server = setup.start().await;
    let mut stream = execute(&server, request(Parts::new("x").digest())).await.unwrap();
    let name = stream.message().await.unwrap().unwrap().name;
    let again = stream.message().await.unwrap().unwrap();
    assert_eq!(
        (again.name.as_str(), checked(&again).0),
        (name.as_str(), Stage::CacheCheck)
    );
    server
        .operations()
        .cancel_operation(CancelOperationRequest { name })
        .await
        .unwrap();
    assert_eq!(code(&follow(stream).await.2), Code::Cancelled);
}

/// EX-13: a stream without news is kept alive.
#[tokio::test]
async fn an_operation_that_does_not_change_is_sent_again() {
    let mut options = ExecutionOptions::default();
    options.resend_interval = Duration::from_millis(20);
    let setup = Setup {
        execution: Some(options),
        ..Setup::default()
    };
    let server = setup.start().await;
    worker::join(&server).await;
    let action = Parts::new("silent").hold(&server).await;
    let mut stream = execute(&server, request(action)).await.unwrap();
    for _ in 0..5 {
        checked(&stream.message().await.unwrap().unwrap());
    }
}

/// A thousand streams at once, each with an operation of its own.
#[tokio::test]
async fn a_thousand_clients_wait_at_once() {
    let server = Server::start().await;
    let session = worker::join(&server).await;
    let action = Parts::new("crowd").hold(&server).await;
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(execute(&server, request(action)).await.unwrap());
    }
    let work = worker::next(&*session).await;
    worker::finish(&*session, &work, worker::result(&server, 0).await).await;
    let mut names = std::collections::HashSet::new();
    for stream in streams {
        names.insert(follow(stream).await.0);
    }
    assert_eq!(names.len(), 1000);
}
