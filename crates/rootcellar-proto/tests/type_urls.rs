//! Checks the type URLs under which messages travel in `google.protobuf.Any`: clients match them as text.

use prost::Name;
use prost_types::Any;
use rootcellar_proto::{asset, longrunning, reapi, rpc};

#[test]
fn any_carries_the_type_urls_that_clients_look_for() {
    let urls = [
        (
            reapi::ExecuteOperationMetadata::type_url(),
            "build.bazel.remote.execution.v2.ExecuteOperationMetadata",
        ),
        (
            reapi::ExecuteResponse::type_url(),
            "build.bazel.remote.execution.v2.ExecuteResponse",
        ),
        (rpc::BadRequest::type_url(), "google.rpc.BadRequest"),
        (rpc::DebugInfo::type_url(), "google.rpc.DebugInfo"),
        (rpc::ErrorInfo::type_url(), "google.rpc.ErrorInfo"),
        (rpc::Help::type_url(), "google.rpc.Help"),
        (rpc::LocalizedMessage::type_url(), "google.rpc.LocalizedMessage"),
        (rpc::PreconditionFailure::type_url(), "google.rpc.PreconditionFailure"),
        (rpc::QuotaFailure::type_url(), "google.rpc.QuotaFailure"),
        (rpc::RequestInfo::type_url(), "google.rpc.RequestInfo"),
        (rpc::ResourceInfo::type_url(), "google.rpc.ResourceInfo"),
        (rpc::RetryInfo::type_url(), "google.rpc.RetryInfo"),
    ];
    for (url, full_name) in urls {
        assert_eq!(url, format!("type.googleapis.com/{full_name}"));
    }
}

#[test]
fn a_message_survives_the_way_through_any() {
    let response = reapi::ExecuteResponse {
        message: "built".into(),
        ..Default::default()
    };
    let operation = longrunning::Operation {
        done: true,
        result: Some(longrunning::operation::Result::Response(
            Any::from_msg(&response).unwrap(),
        )),
        ..Default::default()
    };

    let Some(longrunning::operation::Result::Response(any)) = operation.result else {
        unreachable!()
    };
    assert_eq!(
        any.type_url,
        "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteResponse"
    );
    assert_eq!(any.to_msg::<reapi::ExecuteResponse>().unwrap(), response);
}

#[test]
fn any_is_not_unpacked_as_another_message() {
    let any = Any::from_msg(&asset::PushBlobResponse {}).unwrap();
    any.to_msg::<asset::PushDirectoryResponse>().unwrap_err();
}
