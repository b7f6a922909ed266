//! A server for a test: started on a free port, stopped when dropped.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_grpc::server::{ExecutionOptions, Limits, Served, Services, Transport, serve};
use rootcellar_proto::asset::fetch_client::FetchClient;
use rootcellar_proto::asset::push_client::PushClient;
use rootcellar_proto::bytestream::byte_stream_client::ByteStreamClient;
use rootcellar_proto::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use rootcellar_proto::longrunning::operations_client::OperationsClient;
use rootcellar_proto::reapi;
use rootcellar_proto::reapi::action_cache_client::ActionCacheClient;
use rootcellar_proto::reapi::capabilities_client::CapabilitiesClient;
use rootcellar_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use rootcellar_proto::reapi::execution_client::ExecutionClient;
use rootcellar_reapi::functions::to_proto;
pub(crate) use rootcellar_reapi::resource_name::blob_name;
use rootcellar_reapi::{ActionCache, ActionCacheOptions, AssetIndex, AssetOptions, Functions};
use rootcellar_scheduler::{Dispatcher, MonotonicClock, Policy};
use rootcellar_store::{BlobStore, BlobStoreExt as _, MemoryRecords, MemoryStore, Spool, SystemClock};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

pub(crate) const SHA256: DigestFunction = DigestFunction::Sha256;

/// A server that runs until this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<dyn BlobStore>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) channel: Channel,
    stop: Option<oneshot::Sender<()>>,
    spool_dir: tempfile::TempDir,
}

/// What a server offers, before it starts.
pub(crate) struct Setup {
    pub(crate) store: Arc<dyn BlobStore>,
    pub(crate) functions: Functions,
    pub(crate) limits: Limits,
    pub(crate) transport: Transport,
    /// Whether clients may write action results.
    pub(crate) takes_results: bool,
    /// `None` offers the CAS alone.
    pub(crate) execution: Option<ExecutionOptions>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            store: Arc::new(MemoryStore::new(1 << 30)),
            functions: Functions::new(DigestFunction::ALL.to_vec()).unwrap(),
            limits: Limits::default(),
            transport: Transport::default(),
            takes_results: true,
            execution: Some(ExecutionOptions::default()),
        }
    }
}

impl Setup {
    pub(crate) async fn start(mut self) -> Server {
        let spool_dir = tempfile::tempdir().unwrap();
        let services = Services::new(self.store.clone(), Spool::new(spool_dir.path()), self.functions.clone());
        let services = services.with_limits(self.limits.clone());
        let dispatcher = Dispatcher::new(Policy::default(), Arc::new(MonotonicClock::start()));
        let services = match self.execution.take() {
            Some(options) => self.complete(services).with_execution(dispatcher.clone(), options),
            None => services,
        };
        let Served { routes, health } = services.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _dropped = stopped.await.is_err();
        };
        tokio::spawn(serve(listener, routes, health, self.transport, shutdown));
        Server {
            address,
            store: self.store,
            dispatcher,
            channel: connect(address).await,
            stop: Some(stop),
            spool_dir,
        }
    }

    fn complete(&self, services: Services) -> Services {
        let clock = Arc::new(SystemClock);
        let records = Arc::new(MemoryRecords::new(64 << 20, clock.clone()));
        let cache = ActionCache::new(records.clone(), self.store.clone(), ActionCacheOptions::default());
        let options = AssetOptions {
            functions: self.functions.clone(),
            ..AssetOptions::default()
        };
        let assets = AssetIndex::new(records, self.store.clone(), clock, options);
        services
            .with_action_cache(cache, self.takes_results)
            .with_assets(assets)
    }
}

/// A connection of its own.
pub(crate) async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.tcp_nodelay(true).connect().await.unwrap()
}

impl Server {
    pub(crate) async fn start() -> Self {
        Setup::default().start().await
    }

    pub(crate) fn capabilities(&self) -> CapabilitiesClient<Channel> {
        CapabilitiesClient::new(self.channel.clone())
    }

    pub(crate) fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone()).max_decoding_message_size(16 << 20)
    }

    pub(crate) fn bytes(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone())
    }

    pub(crate) fn action_cache(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel.clone())
    }

    pub(crate) fn execution(&self) -> ExecutionClient<Channel> {
        ExecutionClient::new(self.channel.clone())
    }

    pub(crate) fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone())
    }

    pub(crate) fn fetch(&self) -> FetchClient<Channel> {
        FetchClient::new(self.channel.clone())
    }

    pub(crate) fn push(&self) -> PushClient<Channel> {
        PushClient::new(self.channel.clone())
    }

    /// Stores a message without the wire.
    pub(crate) async fn hold_message(&self, message: &impl prost::Message) -> Digest {
        self.hold(SHA256, message.encode_to_vec()).await
    }

    /// Asks the server to shut down.
    pub(crate) fn stop(&mut self) {
        self.stop.take();
    }

    /// Files in the spool directory: uploads that hold room there.
    pub(crate) fn spooled_files(&self) -> usize {
        std::fs::read_dir(self.spool_dir.path()).unwrap().count()
    }

    /// Stores a blob without the wire.
    pub(crate) async fn hold(&self, function: DigestFunction, content: impl Into<Bytes>) -> Digest {
        self.store.put_bytes(function, content.into()).await.unwrap()
    }

    pub(crate) async fn holds(&self, digest: Digest) -> bool {
        self.store.contains(digest).await.unwrap()
    }

    /// Reads all of a resource.
    pub(crate) async fn read(&self, resource_name: impl Into<String>) -> Result<Vec<u8>, Status> {
        self.read_range(resource_name, 0, 0).await
    }

    pub(crate) async fn read_range(&self, name: impl Into<String>, offset: i64, limit: i64) -> Result<Vec<u8>, Status> {
        let request = ReadRequest {
            resource_name: name.into(),
            read_offset: offset,
            read_limit: limit,
        };
        let mut pieces = self.bytes().read(request).await?.into_inner();
        let mut content = Vec::new();
        while let Some(piece) = pieces.message().await? {
            content.extend_from_slice(&piece.data);
        }
        Ok(content)
    }

    /// Waits until the server knows of a write.
    pub(crate) async fn until_known(&self, name: &str) {
        let request = QueryWriteStatusRequest {
            resource_name: name.to_owned(),
        };
        while self.bytes().query_write_status(request.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    /// Sends `messages` and closes; the committed size that comes back.
    pub(crate) async fn write(&self, messages: Vec<WriteRequest>) -> Result<i64, Status> {
        let reply = self.bytes().write(futures_util::stream::iter(messages)).await?;
        Ok(reply.into_inner().committed_size)
    }
}

/// Content that no two tests and no two places share.
pub(crate) fn content(len: usize, seed: u8) -> Bytes {
    let mut state = u64::from(seed) + 1;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(next).collect()
}

pub(crate) fn proto(digest: Digest) -> reapi::Digest {
    to_proto(digest)
}

/// `blobs/[{function}/]{hash}/{size}`.
pub(crate) fn read_name(digest: Digest) -> String {
    blob_name(&digest)
}

/// `uploads/{upload}/blobs/[{function}/]{hash}/{size}`.
pub(crate) fn write_name(upload: &str, digest: Digest) -> String {
    format!("uploads/{upload}/{}", read_name(digest))
}

/// A write of `content` in pieces of `piece` bytes; only the first message is named and only the last finishes.
pub(crate) fn pieces(name: &str, content: &Bytes, piece: usize) -> Vec<WriteRequest> {
    let mut messages: Vec<_> = (0..content.len().max(1))
        .step_by(piece)
        .map(|start| WriteRequest {
            write_offset: i64::try_from(start).unwrap(),
            data: content.slice(start..content.len().min(start + piece)),
            ..Default::default()
        })
        .collect();
    messages[0].resource_name = name.to_owned();
    messages.last_mut().unwrap().finish_write = true;
    messages
}

/// A piece of a write.
pub(crate) fn piece(name: &str, offset: usize, data: Bytes) -> WriteRequest {
    WriteRequest {
        resource_name: name.to_owned(),
        write_offset: i64::try_from(offset).unwrap(),
        data,
        finish_write: false,
    }
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code) -> Status {
    let status = outcome.expect_err("the call is refused");
    assert_eq!(status.code(), code, "{status:?}");
    status
}
