//! What the server says of itself.

use rootcellar_proto::reapi::digest_function::Value as Function;
use rootcellar_proto::reapi::{GetCapabilitiesRequest, ServerCapabilities};
use rootcellar_reapi::Functions;
use tonic::Code;

use crate::server::{Server, Setup, refused};

async fn capabilities(server: &Server, instance: &str) -> ServerCapabilities {
    let request = GetCapabilitiesRequest {
        instance_name: instance.to_owned(),
    };
    server
        .capabilities()
        .get_capabilities(request)
        .await
        .unwrap()
        .into_inner()
}

/// CAP-3.
#[tokio::test]
async fn the_whole_second_version_of_the_api_is_announced() {
    let server = Server::start().await;
    let told = capabilities(&server, "").await;
    let low = told.low_api_version.unwrap();
    let high = told.high_api_version.unwrap();
    assert_eq!((low.major, low.minor, low.prerelease.as_str()), (2, 0, ""));
    assert_eq!((high.major, high.minor, high.prerelease.as_str()), (2, 12, ""));
}

/// CAP-4, DIG-7.
#[tokio::test]
async fn announced_functions_are_those_configured_and_never_unknown() {
    let setup = Setup {
        functions: Functions::default(),
        ..Setup::default()
    };
    let server = setup.start().await;
    let cache = capabilities(&server, "").await.cache_capabilities.unwrap();
    let expected: Vec<i32> = vec![Function::Sha256.into(), Function::Blake3.into()];
    assert_eq!(cache.digest_functions, expected);
}

/// CAP-7, CAP-8, CAP-9, CAP-11, CAP-12.
#[tokio::test]
async fn the_cache_announces_only_what_it_does() {
    let server = Server::start().await;
    let cache = capabilities(&server, "").await.cache_capabilities.unwrap();
    assert!(cache.max_batch_total_size_bytes > 1 << 20);
    assert!(
        cache.max_batch_total_size_bytes < 4 << 20,
        "room for the envelope is left"
    );
    assert_eq!(cache.symlink_absolute_path_strategy, 2);
    assert!(cache.supported_compressors.is_empty());
    assert!(cache.supported_batch_update_compressors.is_empty());
    assert!(!cache.split_blob_support && !cache.splice_blob_support);
    assert!(cache.fast_cdc_2020_params.is_none() && cache.rep_max_cdc_params.is_none());
}

/// CAP-2, CAP-6.
#[tokio::test]
async fn a_cache_does_not_claim_to_execute() {
    let setup = Setup {
        execution: None,
        ..Setup::default()
    };
    let told = capabilities(&setup.start().await, "").await;
    let cache = told.cache_capabilities.unwrap();
    assert!(!cache.action_cache_update_capabilities.unwrap().update_enabled);
    assert!(told.execution_capabilities.is_none());
}

/// CAP-5, CAP-6, CAP-13, CAP-14.
#[tokio::test]
async fn a_server_that_executes_says_with_what() {
    let server = Server::start().await;
    let told = capabilities(&server, "").await;
    let cache = told.cache_capabilities.unwrap();
    assert!(cache.action_cache_update_capabilities.unwrap().update_enabled);
    let execution = told.execution_capabilities.unwrap();
    assert!(execution.exec_enabled);
    assert_eq!(execution.digest_function(), Function::Sha256);
    assert_eq!(execution.digest_functions, cache.digest_functions);
    assert_eq!(execution.supported_node_properties, ["mtime", "unix_mode"]);
    let ranges = execution.execution_priority_capabilities.unwrap().priorities;
    assert!(ranges.iter().all(|range| range.min_priority <= range.max_priority));
}

/// INST-1, INST-2, GEN-5.
#[tokio::test]
async fn any_instance_is_served_unless_its_name_holds_a_reserved_segment() {
    let server = Server::start().await;
    capabilities(&server, "main/sub/deeper").await;
    for reserved in [
        "blobs",
        "uploads",
        "actions",
        "actionResults",
        "operations",
        "capabilities",
        "compressed-blobs",
    ] {
        for name in [reserved.to_owned(), format!("main/{reserved}"), format!("{reserved}/x")] {
            let request = GetCapabilitiesRequest { instance_name: name };
            refused(
                server.capabilities().get_capabilities(request).await,
                Code::InvalidArgument,
            );
        }
    }
}
