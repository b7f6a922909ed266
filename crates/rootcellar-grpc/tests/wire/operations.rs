//! Operations by name.

use rootcellar_proto::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest, WaitOperationRequest,
};
use rootcellar_proto::reapi::ExecuteRequest;
use tonic::Code;

use crate::server::{Server, proto, refused};
use crate::worker::{self, Parts};

/// Starts an operation of its own, and tells its name.
async fn start(server: &Server, instance: &str, action: &str) -> String {
    let digest = Parts::new(action).hold(server).await;
    let request = ExecuteRequest {
        instance_name: instance.to_owned(),
        action_digest: Some(proto(digest)),
        ..Default::default()
    };
    let mut stream = server.execution().execute(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap().name
}

fn get(name: &str) -> GetOperationRequest {
    GetOperationRequest { name: name.to_owned() }
}

fn cancel(name: &str) -> CancelOperationRequest {
    CancelOperationRequest { name: name.to_owned() }
}

fn delete(name: &str) -> DeleteOperationRequest {
    DeleteOperationRequest { name: name.to_owned() }
}

fn wait(name: &str, nanos: Option<i32>) -> WaitOperationRequest {
    WaitOperationRequest {
        name: name.to_owned(),
        timeout: nanos.map(|nanos| prost_types::Duration { seconds: 0, nanos }),
    }
}

/// LRO-1.
#[tokio::test]
async fn an_operation_is_got_cancelled_and_deleted_by_name() {
    let server = Server::start().await;
    let _session = worker::join(&server).await;
    let name = start(&server, "main", "a").await;
    let mut client = server.operations();
    let operation = client.get_operation(get(&name)).await.unwrap().into_inner();
    assert_eq!((operation.name.as_str(), operation.done), (name.as_str(), false));
    refused(client.delete_operation(delete(&name)).await, Code::FailedPrecondition);
    client.cancel_operation(cancel(&name)).await.unwrap();
    assert!(client.get_operation(get(&name)).await.unwrap().into_inner().done);
    client.cancel_operation(cancel(&name)).await.unwrap();
    client.delete_operation(delete(&name)).await.unwrap();
    refused(client.get_operation(get(&name)).await, Code::NotFound);
}

/// LRO-1, LRO-2.
#[tokio::test]
async fn what_is_unknown_is_not_found() {
    let server = Server::start().await;
    let mut client = server.operations();
    for name in ["", "operations/x", "\u{1F980}"] {
        refused(client.get_operation(get(name)).await, Code::NotFound);
        refused(client.cancel_operation(cancel(name)).await, Code::NotFound);
        refused(client.delete_operation(delete(name)).await, Code::NotFound);
        refused(client.wait_operation(wait(name, None)).await, Code::NotFound);
    }
}

/// LRO-1: a wait ends with the operation, or when the client said.
#[tokio::test]
async fn a_wait_ends_with_the_operation_or_its_timeout() {
    let server = Server::start().await;
    let session = worker::join(&server).await;
    let name = start(&server, "", "a").await;
    let mut client = server.operations();
    for timeout in [0, 1_000_000] {
        let early = client.wait_operation(wait(&name, Some(timeout))).await.unwrap();
        assert!(!early.into_inner().done);
    }
    refused(
        client.wait_operation(wait(&name, Some(-1))).await,
        Code::InvalidArgument,
    );
    let work = worker::next(&*session).await;
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.wait_operation(wait(&name, None)).await });
    worker::finish(&*session, &work, worker::result(&server, 0).await).await;
    assert!(waiting.await.unwrap().unwrap().into_inner().done);
}

/// LRO-1: all operations, or those of an instance, in pages.
#[tokio::test]
async fn operations_are_listed_by_instance_in_pages() {
    let server = Server::start().await;
    let _session = worker::join(&server).await;
    let mut main = Vec::new();
    for n in 0..5 {
        main.push(start(&server, "main/sub", &format!("a{n}")).await);
    }
    let other = start(&server, "", "b").await;
    main.sort();
    let list = async |name: &str, filter: &str, page_size: i32, token: &str| {
        let request = ListOperationsRequest {
            name: name.to_owned(),
            filter: filter.to_owned(),
            page_size,
            page_token: token.to_owned(),
            ..Default::default()
        };
        let page = server.operations().list_operations(request).await?.into_inner();
        let names: Vec<_> = page.operations.into_iter().map(|operation| operation.name).collect();
        Ok::<_, tonic::Status>((names, page.next_page_token))
    };
    assert_eq!(list("", "", 0, "").await.unwrap().0.len(), 6);
    for name in ["main/sub", "main/sub/operations", "main/sub/operations/"] {
        assert_eq!(list(name, "", 0, "").await.unwrap(), (main.clone(), String::new()));
    }
    assert_eq!(list("operations", "", 0, "").await.unwrap().0, [other]);
    assert_eq!(list("", "main/", 0, "").await.unwrap().0, main);
    assert_eq!(list("main", "", 0, "").await.unwrap().0, Vec::<String>::new());

    let mut paged = Vec::new();
    let mut token = String::new();
    loop {
        let (names, next) = list("main/sub", "", 2, &token).await.unwrap();
        assert!(names.len() <= 2);
        paged.extend(names);
        if next.is_empty() {
            break;
        }
        token = next;
    }
    assert_eq!(paged, main);

    refused(list("", "", -1, "").await, Code::InvalidArgument);
    refused(list("main/sub", "", 0, "garbage").await, Code::InvalidArgument);
    refused(list("", "done = true", 0, "").await, Code::InvalidArgument);
}

/// LRO-3.
#[tokio::test]
async fn partial_success_is_not_supported() {
    let server = Server::start().await;
    let request = ListOperationsRequest {
        return_partial_success: true,
        ..Default::default()
    };
    refused(server.operations().list_operations(request).await, Code::Unimplemented);
}
