//! `google.bytestream.ByteStream`: blobs of any size, read and written in pieces.
//!
//! Resource names say which blob and how (`rootcellar_reapi::resource_name` has the grammar). A client may repeat the name in a
//! header, so that proxies can route a call before they see its first message; both have to agree.

mod read;
mod route;
mod uploads;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt as _};
use rootcellar_proto::bytestream::byte_stream_server::ByteStream;
use rootcellar_proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use rootcellar_proto::reapi::compressor::Value as Compressor;
use rootcellar_reapi::{Error, Result, WriteName};
use rootcellar_store::{BlobStoreExt as _, Spool};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

pub(super) use self::route::ByteStreamRoute;
use self::route::WriteMessage;
use self::uploads::Uploads;
use super::core::Core;
use super::signed;
use crate::status::{from_panic, refuse};

const RESOURCE_NAME_HEADER: &str = "build.bazel.remote.execution.v2.resource-name";

/// Answers ByteStream calls.
#[derive(Debug, Clone)]
pub(super) struct ByteStreamService {
    core: Arc<Core>,
    uploads: Arc<Uploads>,
}

impl ByteStreamService {
    pub(super) fn new(core: Arc<Core>, spool: Spool) -> Self {
        let uploads = Uploads::new(spool, core.limits.uploads.clone());
        Self {
            core,
            uploads: Arc::new(uploads),
        }
    }

    /// The pieces of a read, one for each message.
    async fn pieces(
        &self,
        metadata: &MetadataMap,
        request: &ReadRequest,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        check_header(metadata, &request.resource_name).map_err(refuse)?;
        read::read(&self.core, request).await.map_err(refuse)
    }

    /// Runs as a task of its own: when the client goes away in the middle of a piece, that piece is still written, and what
    /// came so far is kept for it to continue. The task ends with the stream.
    async fn write_messages<M>(&self, metadata: MetadataMap, messages: M) -> Result<WriteResponse, Status>
    where
        M: Stream<Item = Result<WriteMessage, Status>> + Send + Unpin + 'static,
    {
        let write = write::Write::new(self.core.clone(), self.uploads.clone(), messages);
        let outcome = tokio::spawn(write.run(metadata).in_current_span())
            .await
            .unwrap_or_else(|panic| Err(from_panic(&panic)));
        outcome.map_err(refuse)
    }

    async fn query_write_status(&self, name: &str) -> Result<QueryWriteStatusResponse> {
        let target = WriteName::parse(name, &self.core.functions)?;
        check_compressor(target.compressor)?;
        // In this order: an upload that completes in between is seen by one of the two.
        let committed = self.uploads.committed_bytes(name);
        if self.core.store.contains(target.digest).await? {
            return Ok(QueryWriteStatusResponse {
                committed_size: signed(target.digest.size_bytes()),
                complete: true,
            });
        }
        let committed = committed.ok_or_else(|| Error::not_found(format!("no write of {name} is known")))?;
        Ok(QueryWriteStatusResponse {
            committed_size: signed(committed),
            complete: false,
        })
    }
}

#[tonic::async_trait]
impl ByteStream for ByteStreamService {
    type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let pieces = self.pieces(request.metadata(), request.get_ref()).await?;
        let messages = pieces.map(|piece| piece.map(|data| ReadResponse { data }));
        Ok(Response::new(messages.boxed()))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let (metadata, _, messages) = request.into_parts();
        let messages = messages.map(|message| message.map(WriteMessage::from));
        self.write_messages(metadata, messages).await.map(Response::new)
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let name = &request.get_ref().resource_name;
        check_header(request.metadata(), name).map_err(refuse)?;
        let status = self.query_write_status(name).await.map_err(refuse)?;
        Ok(Response::new(status))
    }
}

/// Refuses a call whose header names another resource than its message (RN-10).
fn check_header(metadata: &MetadataMap, name: &str) -> Result<()> {
    match metadata.get(RESOURCE_NAME_HEADER) {
        Some(header) if header.as_bytes() != name.as_bytes() => Err(Error::invalid_argument(format!(
            "the header {RESOURCE_NAME_HEADER} and the message name different resources"
        ))),
        _ => Ok(()),
    }
}

/// Refuses compressors that are not announced (RN-6).
fn check_compressor(compressor: Compressor) -> Result<()> {
    match compressor {
        Compressor::Identity => Ok(()),
        other => Err(Error::invalid_argument(format!(
            "compressor {} is not announced here",
            other.as_str_name()
        ))),
    }
}
