//! Action results and assets, put on the project's own server and found there again.

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_grpc::client::{ActionCache, Asset, AssetName, Assets, ExecuteOptions, Executor};
use rootcellar_grpc::server::Limits;
use rootcellar_proto::reapi::{Action, ActionResult, Command, OutputFile};
use rootcellar_reapi::ErrorKind;
use rootcellar_reapi::functions::to_proto;
use rootcellar_store::BlobStoreExt as _;

use crate::servers::{self, Server};

const BLAKE3: DigestFunction = DigestFunction::Blake3;

async fn hold(server: &Server, message: &impl prost::Message) -> Digest {
    let encoded: Bytes = message.encode_to_vec().into();
    server.store.put_bytes(BLAKE3, encoded).await.unwrap()
}

/// Stores an action that does nothing.
async fn action(server: &Server) -> Digest {
    let command = Command {
        arguments: vec!["true".to_owned()],
        ..Default::default()
    };
    let action = Action {
        command_digest: Some(to_proto(hold(server, &command).await)),
        input_root_digest: Some(to_proto(Digest::empty(BLAKE3))),
        ..Default::default()
    };
    hold(server, &action).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_found_again_and_only_while_its_blobs_are_there() {
    let server = servers::own(1 << 20, Limits::default()).await;
    let cache = ActionCache::new(servers::connect(server.address).await);
    let action = action(&server).await;
    assert_eq!(cache.get(action).await.unwrap(), None);

    let output = server
        .store
        .put_bytes(BLAKE3, Bytes::from_static(b"output"))
        .await
        .unwrap();
    let result = |output| ActionResult {
        output_files: vec![OutputFile {
            path: "output".to_owned(),
            digest: Some(to_proto(output)),
            ..Default::default()
        }],
        ..Default::default()
    };
    let kept = cache.update(action, result(output)).await.unwrap();
    assert_eq!(kept.output_files, result(output).output_files);
    assert_eq!(cache.get(action).await.unwrap(), Some(kept));

    let absent = result(Digest::of(BLAKE3, b"absent"));
    let error = cache.update(action, absent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert!(error.to_string().contains(&server.address.to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn assets_are_found_by_their_names() {
    let server = servers::own(1 << 20, Limits::default()).await;
    let assets = Assets::new(servers::connect(server.address).await);
    let name = AssetName {
        uris: vec!["https://example.org/a.tar".to_owned()],
        qualifiers: vec![("resource_type".to_owned(), "application/x-tar".to_owned())],
    };
    assert_eq!(assets.fetch_blob(BLAKE3, &name).await.unwrap(), None);
    assert_eq!(assets.fetch_directory(BLAKE3, &name).await.unwrap(), None);

    let blob = server
        .store
        .put_bytes(BLAKE3, Bytes::from_static(b"content"))
        .await
        .unwrap();
    let root = Digest::empty(BLAKE3);
    assets.push(&name, Asset::Blob(blob)).await.unwrap();
    assets.push(&name, Asset::Directory(root)).await.unwrap();
    assert_eq!(assets.fetch_blob(BLAKE3, &name).await.unwrap(), Some(blob));
    assert_eq!(assets.fetch_directory(BLAKE3, &name).await.unwrap(), Some(root));

    let nameless = assets.fetch_blob(BLAKE3, &AssetName::default()).await.unwrap_err();
    assert_eq!(nameless.kind(), ErrorKind::InvalidArgument, "{nameless}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_executes_nothing_says_so() {
    let server = servers::own(1 << 20, Limits::default()).await;
    let connection = servers::connect(server.address).await;
    let capabilities = connection.capabilities().await.unwrap();
    assert!(capabilities.cache_capabilities.is_some() && capabilities.execution_capabilities.is_none());
    let mut execution = Executor::new(connection).execute(action(&server).await, &ExecuteOptions::default());
    assert_eq!(execution.next().await.unwrap_err().kind(), ErrorKind::Unimplemented);
}
