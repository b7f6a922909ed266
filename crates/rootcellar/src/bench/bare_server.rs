//! A server that does what no server can avoid, and nothing else: what a real one costs beside it is what that one is about.
//!
//! | call | what it does |
//! |---|---|
//! | `Capabilities` | says what can be said in a sentence |
//! | `ByteStream.Read` | sends as many zeros as the name says |
//! | `ByteStream.Write` | hashes, writes a file, removes it |
//! | `BatchUpdateBlobs` | hashes each blob |
//! | `BatchReadBlobs` | answers as many zeros as each digest says |
//!
//! Its connections are set up as the server's are. It keeps nothing, and it knows no other calls.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use rootcellar_digest::{Digest, DigestFunction, Hasher};
use rootcellar_grpc::server::{Limits, Transport};
use rootcellar_proto::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use rootcellar_proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use rootcellar_proto::reapi;
use rootcellar_proto::reapi::batch_read_blobs_response::Response as ReadItem;
use rootcellar_proto::reapi::batch_update_blobs_response::Response as UpdateItem;
use rootcellar_proto::reapi::capabilities_server::{Capabilities, CapabilitiesServer};
use rootcellar_proto::reapi::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use rootcellar_proto::rpc;
use rootcellar_reapi::functions::from_proto;
use rootcellar_reapi::{Functions, ReadName, WriteName};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::cli;

const FUNCTION: DigestFunction = DigestFunction::Sha256;
/// The longest blob of a batch.
const ZEROS: usize = 4 << 20;

/// Serves until standard input ends, which it does with whoever started this.
pub(super) async fn run(options: &cli::BareServer) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
    announce(&listener)?;
    let (limits, transport) = (Limits::default(), Transport::default());
    let bare = Bare::new(&options.dir, limits.read_piece_bytes);
    let max = limits.request_bytes_max;
    let cas = ContentAddressableStorageServer::new(bare.clone()).max_decoding_message_size(max);
    let byte_stream = ByteStreamServer::new(bare.clone()).max_decoding_message_size(max);
    let serving = Server::builder()
        .initial_stream_window_size(transport.stream_window_bytes)
        .initial_connection_window_size(transport.connection_window_bytes)
        .max_frame_size(transport.frame_bytes_max)
        .max_concurrent_streams(transport.concurrent_streams_max)
        .http2_max_header_list_size(transport.header_list_bytes_max)
        .add_service(CapabilitiesServer::new(bare))
        .add_service(cas)
        .add_service(byte_stream)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::select! {
        outcome = serving => outcome.context("serving")?,
        _closed = tokio::task::spawn_blocking(wait_for_the_end_of_input) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Says where it listens, in the words of the server.
#[expect(clippy::print_stdout, reason = "whoever started this reads it")]
fn announce(listener: &TcpListener) -> anyhow::Result<()> {
    println!(
        "  listens    {}",
        listener.local_addr().context("asking for the address")?
    );
    Ok(())
}

fn wait_for_the_end_of_input() {
    let mut byte = [0];
    // An error is an end, too.
    while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
}

#[derive(Debug, Clone)]
struct Bare {
    dir: PathBuf,
    zeros: Bytes,
    piece_bytes: usize,
}

impl Bare {
    fn new(dir: &Path, piece_bytes: usize) -> Self {
        Self {
            dir: dir.to_owned(),
            zeros: vec![0; ZEROS].into(),
            piece_bytes,
        }
    }

    async fn write_file(&self, messages: &mut Streaming<WriteRequest>) -> Result<i64, Status> {
        let first = messages
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("no message"))?;
        let name = WriteName::parse(&first.resource_name, &Functions::default()).map_err(refuse)?;
        let mut hasher = Hasher::new(FUNCTION, name.digest.size_bytes());
        let file = FileOfUpload::create(&self.dir)?;
        let mut next = Some(first);
        while let Some(message) = next {
            hasher.update(&message.data);
            (&file.file).write_all(&message.data)?;
            if message.finish_write {
                break;
            }
            next = messages.message().await?;
        }
        check(name.digest, hasher)?;
        i64::try_from(name.digest.size_bytes()).map_err(|_| Status::invalid_argument("too large"))
    }

    fn zeros(&self, digest: &reapi::Digest) -> Result<Bytes, Status> {
        let len = usize::try_from(digest.size_bytes)
            .ok()
            .filter(|len| *len <= self.zeros.len());
        Ok(self
            .zeros
            .slice(..len.ok_or_else(|| Status::invalid_argument("too large"))?))
    }
}

/// A file that goes when this does.
struct FileOfUpload {
    file: File,
    path: PathBuf,
}

impl FileOfUpload {
    fn create(dir: &Path) -> std::io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = dir.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        Ok(Self {
            file: File::create_new(&path)?,
            path,
        })
    }
}

impl Drop for FileOfUpload {
    fn drop(&mut self) {
        // The directory goes with whoever started this, and the file with it.
        let _is_removed = std::fs::remove_file(&self.path).is_ok();
    }
}

fn check(expected: Digest, hasher: Hasher) -> Result<(), Status> {
    let found = hasher.finish().map_err(|error| Status::internal(error.to_string()))?;
    match found == expected {
        true => Ok(()),
        false => Err(Status::invalid_argument("the digest is of another content")),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is the argument of map_err")]
fn refuse(error: rootcellar_reapi::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

#[tonic::async_trait]
impl ByteStream for Bare {
    type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let name = ReadName::parse(&request.get_ref().resource_name, &Functions::default()).map_err(refuse)?;
        let piece = self.zeros.slice(..self.piece_bytes);
        let pieces = stream::unfold(name.digest.size_bytes(), move |left| {
            let len = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
            let data = piece.slice(..len);
            async move { (left > 0).then(|| (Ok(ReadResponse { data }), left - len as u64)) }
        });
        Ok(Response::new(pieces.boxed()))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let committed_size = self.write_file(&mut request.into_inner()).await?;
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for Bare {
    type GetTreeStream = BoxStream<'static, Result<reapi::GetTreeResponse, Status>>;

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        let mut responses = Vec::new();
        for item in request.into_inner().requests {
            let digest = item.digest.unwrap_or_default();
            let expected = from_proto(FUNCTION, &digest).map_err(refuse)?;
            let mut hasher = Hasher::new(FUNCTION, expected.size_bytes());
            hasher.update(&item.data);
            check(expected, hasher)?;
            responses.push(UpdateItem {
                digest: Some(digest),
                status: Some(rpc::Status::default()),
            });
        }
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let read = |digest: reapi::Digest| {
            Ok(ReadItem {
                data: self.zeros(&digest)?,
                digest: Some(digest),
                status: Some(rpc::Status::default()),
                ..ReadItem::default()
            })
        };
        let responses: Result<_, Status> = request.into_inner().digests.into_iter().map(read).collect();
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses: responses? }))
    }

    async fn find_missing_blobs(
        &self,
        _request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_tree(
        &self,
        _request: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn split_blob(
        &self,
        _request: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn splice_blob(
        &self,
        _request: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tonic::async_trait]
impl Capabilities for Bare {
    async fn get_capabilities(
        &self,
        _request: Request<reapi::GetCapabilitiesRequest>,
    ) -> Result<Response<reapi::ServerCapabilities>, Status> {
        Ok(Response::new(reapi::ServerCapabilities::default()))
    }
}
