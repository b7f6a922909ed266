//! What is offered, told by the server itself.

use futures_util::stream;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::server::Server;

/// Tools like grpcurl list the services, and find what their messages look like.
#[tokio::test]
async fn services_and_messages_can_be_looked_up() {
    let server = Server::start().await;
    let mut client = ServerReflectionClient::new(server.channel.clone());
    let ask = |message_request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message_request),
    };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "build.bazel.remote.execution.v2.Execution".to_owned(),
        )),
    ];
    let mut answers = client
        .server_reflection_info(stream::iter(questions))
        .await
        .unwrap()
        .into_inner();
    let list = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = list else {
        panic!("no list of services but {list:?}");
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for service in [
        "build.bazel.remote.execution.v2.Execution",
        "google.bytestream.ByteStream",
        "google.longrunning.Operations",
        "build.bazel.remote.asset.v1.Push",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&service), "{service} is not among {names:?}");
    }
    let file = answers.message().await.unwrap().unwrap().message_response;
    assert!(
        matches!(file, Some(MessageResponse::FileDescriptorResponse(_))),
        "{file:?}"
    );
}
