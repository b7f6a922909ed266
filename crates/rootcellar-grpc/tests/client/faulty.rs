//! A server that holds one blob and misbehaves as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use rootcellar_grpc::client::Remote;
use rootcellar_proto::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use rootcellar_proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use rootcellar_proto::reapi::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use rootcellar_proto::reapi::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse,
    FindMissingBlobsRequest, FindMissingBlobsResponse, GetTreeRequest, GetTreeResponse, SpliceBlobRequest,
    SpliceBlobResponse, SplitBlobRequest, SplitBlobResponse, batch_read_blobs_response, batch_update_blobs_response,
};
use rootcellar_proto::rpc;
use rootcellar_store::testing::Seeded;
use rootcellar_store::{ByteRange, Verified};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::servers;

/// What a call does instead of the right thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: this call is served right.
    None,
    /// A read sends all but the last byte, and ends well.
    EndsEarly,
    /// A read sends a byte more.
    SendsMore,
    /// A byte in the middle is another one.
    WrongByte,
    /// A read sends everything and then fails.
    FailsAtTheEnd,
    /// The call fails halfway, and may be tried again.
    BreaksHalfway,
    /// The call fails, and may be tried again.
    Unavailable,
    /// A write answers that it committed less.
    CommitsLess,
    /// A batch's answer does not mention the item.
    LeavesOut,
    /// A batch's answer has no room for the item.
    HasNoRoom,
    /// There are no batches.
    IsNotOffered,
}

/// The server's state, seen from outside.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) blob: Verified,
    pub(crate) content: Bytes,
    faults: Mutex<VecDeque<Fault>>,
    calls: Mutex<Vec<String>>,
    /// Bytes that the server kept of an upload.
    received: Mutex<Vec<u8>>,
}

impl Faulty {
    /// Starts a server that holds a blob of `len` bytes. Its calls show one fault each, and none after the last.
    pub(crate) async fn start(len: usize, faults: &[Fault]) -> (Arc<Self>, Remote) {
        let blob = Seeded::new(len as u64).blob(rootcellar_digest::DigestFunction::Sha256, len);
        let faulty = Arc::new(Self {
            content: blob.open(ByteRange::ALL).unwrap().into_bytes().await.unwrap(),
            blob,
            faults: Mutex::new(faults.iter().copied().collect()),
            calls: Mutex::default(),
            received: Mutex::default(),
        });
        let service = Service(faulty.clone());
        let routes = Routes::default()
            .add_service(ByteStreamServer::new(service.clone()))
            .add_service(ContentAddressableStorageServer::new(service));
        let address = servers::any(routes).await;
        (faulty, Remote::new(servers::connect(address).await))
    }

    /// The calls so far, in few words.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn received(&self) -> Vec<u8> {
        self.received.lock().unwrap().clone()
    }

    fn begin(&self, call: String) -> Fault {
        self.calls.lock().unwrap().push(call);
        self.faults.lock().unwrap().pop_front().unwrap_or(Fault::None)
    }
}

#[derive(Debug, Clone)]
struct Service(Arc<Faulty>);

fn later() -> Status {
    Status::unavailable("come back later")
}

#[tonic::async_trait]
impl ByteStream for Service {
    type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let offset = usize::try_from(request.read_offset).unwrap();
        let fault = self.0.begin(format!("read {offset}"));
        let mut content = self.0.content.slice(offset..).to_vec();
        if request.read_limit > 0 {
            content.truncate(usize::try_from(request.read_limit).unwrap());
        }
        let mut end = None;
        match fault {
            Fault::EndsEarly => drop(content.pop()),
            Fault::SendsMore => content.push(0),
            Fault::WrongByte => content[0] ^= 1,
            Fault::FailsAtTheEnd => end = Some(Status::data_loss("the disk is broken")),
            Fault::BreaksHalfway => {
                content.truncate(content.len() / 2);
                end = Some(later());
            }
            Fault::Unavailable => return Err(later()),
            _ => {}
        }
        let pieces: Vec<_> = content
            .chunks(1000)
            .map(|data| {
                Ok(ReadResponse {
                    data: data.to_vec().into(),
                })
            })
            .collect();
        let pieces = [Ok(ReadResponse::default())]
            .into_iter()
            .chain(pieces)
            .chain(end.map(Err));
        Ok(Response::new(stream::iter(pieces).boxed()))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let mut messages = request.into_inner();
        let mut fault = None;
        while let Some(message) = messages.message().await? {
            let begin = || self.0.begin(format!("write {}", message.write_offset));
            let fault = *fault.get_or_insert_with(begin);
            let mut received = self.0.received.lock().unwrap();
            received.truncate(usize::try_from(message.write_offset).unwrap());
            received.extend_from_slice(&message.data);
            match fault {
                Fault::Unavailable => return Err(later()),
                Fault::BreaksHalfway if received.len() * 2 > self.0.content.len() => return Err(later()),
                _ => {}
            }
        }
        let committed = self.0.received.lock().unwrap().len() - usize::from(fault == Some(Fault::CommitsLess));
        Ok(Response::new(WriteResponse {
            committed_size: i64::try_from(committed).unwrap(),
        }))
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Ok(Response::new(QueryWriteStatusResponse {
            committed_size: i64::try_from(self.0.received().len()).unwrap(),
            complete: false,
        }))
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for Service {
    async fn find_missing_blobs(
        &self,
        _: Request<FindMissingBlobsRequest>,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        match self.0.begin("find missing".to_owned()) {
            Fault::Unavailable => Err(later()),
            _ => Ok(Response::new(FindMissingBlobsResponse::default())),
        }
    }

    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
        let fault = self.0.begin("update".to_owned());
        let mut responses = Vec::new();
        for item in request.into_inner().requests {
            responses.push(batch_update_blobs_response::Response {
                digest: item.digest,
                status: (fault == Fault::HasNoRoom).then(|| status(Code::Unavailable)),
            });
        }
        if fault == Fault::LeavesOut {
            responses.clear();
        }
        Ok(Response::new(BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        let fault = self.0.begin("batch read".to_owned());
        match fault {
            Fault::Unavailable => return Err(later()),
            Fault::IsNotOffered => return Err(Status::unimplemented("no batches")),
            _ => {}
        }
        let mut responses = Vec::new();
        for digest in request.into_inner().digests {
            let mut data = self.0.content.to_vec();
            match fault {
                Fault::WrongByte => data[0] ^= 1,
                Fault::EndsEarly => data.truncate(data.len() - 1),
                Fault::SendsMore => data.push(0),
                _ => {}
            }
            let has_room = fault != Fault::HasNoRoom;
            responses.push(batch_read_blobs_response::Response {
                digest: Some(digest),
                data: if has_room { data.into() } else { Bytes::new() },
                status: (!has_room).then(|| status(Code::ResourceExhausted)),
                ..Default::default()
            });
        }
        if fault == Fault::LeavesOut {
            responses.clear();
        }
        Ok(Response::new(BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = BoxStream<'static, Result<GetTreeResponse, Status>>;

    async fn get_tree(&self, _: Request<GetTreeRequest>) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented("no trees"))
    }

    async fn split_blob(&self, _: Request<SplitBlobRequest>) -> Result<Response<SplitBlobResponse>, Status> {
        Err(Status::unimplemented("no chunks"))
    }

    async fn splice_blob(&self, _: Request<SpliceBlobRequest>) -> Result<Response<SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("no chunks"))
    }
}

fn status(code: Code) -> rpc::Status {
    rpc::Status {
        code: code.into(),
        ..Default::default()
    }
}
