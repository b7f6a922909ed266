//! Health checks.

use rootcellar_proto::health::health_check_response::ServingStatus;
use rootcellar_proto::health::health_client::HealthClient;
use rootcellar_proto::health::{HealthCheckRequest, HealthListRequest};
use tonic::Code;

use crate::server::{Server, refused};

const CAS: &str = "build.bazel.remote.execution.v2.ContentAddressableStorage";

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

/// HL-1, HL-4.
#[tokio::test]
async fn the_server_and_each_of_its_services_can_be_checked() {
    let server = Server::start().await;
    let mut client = HealthClient::new(server.channel.clone());
    for service in ["", CAS, "google.bytestream.ByteStream"] {
        let reply = client.check(about(service)).await.unwrap().into_inner();
        assert_eq!(reply.status(), ServingStatus::Serving, "{service}");
    }
    refused(client.check(about("no.such.Service")).await, Code::NotFound);
}

/// HL-3.
#[tokio::test]
async fn all_services_can_be_listed() {
    let server = Server::start().await;
    let mut client = HealthClient::new(server.channel.clone());
    let statuses = client.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
    assert!(statuses.contains_key("") && statuses.contains_key(CAS));
    assert!(statuses.values().all(|reply| reply.status() == ServingStatus::Serving));
}

/// HL-2, HL-4.
#[tokio::test]
async fn a_watch_hears_of_the_shutdown_and_does_not_hold_it_up() {
    let mut server = Server::start().await;
    let mut client = HealthClient::new(server.channel.clone());
    let mut watch = client.watch(about(CAS)).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    server.stop();
    let second = watch.message().await.unwrap().unwrap();
    assert_eq!(second.status(), ServingStatus::NotServing);
    assert_eq!(watch.message().await.unwrap(), None);
}

/// HL-2.
#[tokio::test]
async fn the_watch_of_an_unknown_service_says_so_and_stays_open() {
    let server = Server::start().await;
    let mut client = HealthClient::new(server.channel.clone());
    let mut watch = client.watch(about("no.such.Service")).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    let open = tokio::time::timeout(std::time::Duration::from_millis(50), watch.message()).await;
    assert!(open.is_err(), "nothing more is said until something changes");
}
