//! Action results and assets, put on the project's own server and found there again.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_grpc::client::{ActionCache, Asset, AssetName, Assets, ExecuteOptions, Executor, Remote, RemoteRecords};
use rootcellar_grpc::server::Limits;
use rootcellar_proto::asset::{FetchBlobRequest, PushBlobRequest};
use rootcellar_proto::reapi::{Action, ActionResult, Command, OutputFile};
use rootcellar_reapi as reapi;
use rootcellar_reapi::ErrorKind;
use rootcellar_reapi::functions::to_proto;
use rootcellar_store::testing::check_unbounded_records;
use rootcellar_store::{BlobStore, BlobStoreExt as _, Inventory as _, MemoryRecords, MemoryStore, SystemClock};

use crate::servers::{self, Server};

const BLAKE3: DigestFunction = DigestFunction::Blake3;
const SHA256: DigestFunction = DigestFunction::Sha256;

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

/// In the action cache of a server, whatever that makes of a standard output.
#[tokio::test(flavor = "multi_thread")]
async fn remote_records_are_records() {
    let servers: Mutex<Vec<Server>> = Mutex::default();
    check_unbounded_records(async |_, clock| {
        let server = servers::own(256 << 20, Limits::default()).await;
        let records = RemoteRecords::new(servers::connect(server.address).await, clock);
        servers.lock().unwrap().push(server);
        Arc::new(records) as _
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn front_ends_of_one_server_share_results_and_assets() {
    let server = servers::own(256 << 20, Limits::default()).await;
    let front = async || {
        let connection = servers::connect(server.address).await;
        let store: Arc<dyn BlobStore> = Arc::new(Remote::new(connection.clone()));
        let notes = Arc::new(MemoryRecords::new(1 << 20, Arc::new(SystemClock)));
        let cache = reapi::ActionCache::new(notes, store.clone(), reapi::ActionCacheOptions::default())
            .with_upstream(Arc::new(ActionCache::new(connection.clone())));
        let clock = Arc::new(SystemClock);
        let records = Arc::new(RemoteRecords::new(connection, clock.clone()));
        let assets = reapi::AssetIndex::new(records, store.clone(), clock, reapi::AssetOptions::default());
        (store, cache, assets)
    };
    let ((store, one_cache, one_assets), (_, other_cache, other_assets)) = (front().await, front().await);
    let output = store.put_bytes(SHA256, Bytes::from_static(b"output")).await.unwrap();
    let action = Digest::of(SHA256, b"an action");
    let result = ActionResult {
        output_files: vec![OutputFile {
            path: "output".to_owned(),
            digest: Some(to_proto(output)),
            ..Default::default()
        }],
        ..Default::default()
    };
    let kept = one_cache.put(action, result).await.unwrap();
    assert_eq!(other_cache.get(action).await.unwrap(), Some(kept.clone()));
    // Clients that speak to the server itself see the same.
    let direct = ActionCache::new(servers::connect(server.address).await);
    assert_eq!(direct.get(action).await.unwrap(), Some(kept));

    let push = PushBlobRequest {
        uris: vec!["https://example.com/source.tar".to_owned()],
        blob_digest: Some(to_proto(output)),
        ..Default::default()
    };
    one_assets.push_blob(&push).await.unwrap();
    let fetch = FetchBlobRequest {
        uris: push.uris,
        ..Default::default()
    };
    assert_eq!(
        other_assets.fetch_blob(&fetch).await.unwrap().blob_digest,
        Some(to_proto(output))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_tells_what_it_holds_if_it_was_told_to_and_else_says_so() {
    let server = servers::own(256 << 20, Limits::default()).await;
    let silent = Remote::new(servers::connect(server.address).await);
    let error = silent.list().try_concat().await.unwrap_err();
    assert!(error.to_string().contains("--inventory"), "{error}");

    let store = Arc::new(MemoryStore::new(256 << 20));
    let mut expected = Vec::new();
    for number in 0..10_000_usize {
        let function = DigestFunction::ALL[number % 8];
        expected.push(store.put_bytes(function, number.to_string().into()).await.unwrap());
    }
    let telling = Remote::new(servers::connect(servers::telling(store).await).await);
    let mut listed = telling.list().try_concat().await.unwrap();
    listed.sort_unstable();
    expected.sort_unstable();
    assert!(listed == expected, "{} of {}", listed.len(), expected.len());
}
