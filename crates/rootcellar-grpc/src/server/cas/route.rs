//! The CAS as a route, with batches of content and trees that go past the codec: see [`frames`](crate::server::frames).

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{Request, Response};
use rootcellar_proto::reapi::content_addressable_storage_server::{self, ContentAddressableStorageServer};
use rootcellar_reapi::TreePage;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::batch::{self, ReadReply};
use super::raw_request::RawReadRequest;
use super::{CasService, tree};
use crate::server::frames;
use crate::status::refuse;

const BATCH_UPDATE: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs";
const BATCH_READ: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs";
const GET_TREE: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/GetTree";

/// Answers calls of the CAS.
#[derive(Debug, Clone)]
pub(in crate::server) struct CasRoute {
    service: CasService,
    others: ContentAddressableStorageServer<CasService>,
    message_bytes_max: usize,
}

impl CasRoute {
    /// Takes and sends messages of up to `message_bytes_max`: answers are as long as questions, and are kept small where they could be
    /// longer.
    pub(in crate::server) fn new(service: CasService, message_bytes_max: usize) -> Self {
        Self {
            others: ContentAddressableStorageServer::new(service.clone())
                .max_decoding_message_size(message_bytes_max)
                .max_encoding_message_size(message_bytes_max),
            service,
            message_bytes_max,
        }
    }

    async fn update(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let request = frames::one(request.into_body(), self.message_bytes_max).await?;
        let response = batch::update(&self.service.core, request).await.map_err(refuse)?;
        Ok(frames::answer_one(frames::encode(&response, self.message_bytes_max)?))
    }

    async fn read(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (body, decode) = (request.into_body(), RawReadRequest::from_message);
        let request = frames::one_as(body, self.message_bytes_max, decode).await?;
        let message = match batch::read_encoded(&self.service.core, request).await? {
            ReadReply::Encoded(message) => message,
            ReadReply::Message(message) => frames::encode(&message, self.message_bytes_max)?,
        };
        Ok(frames::answer_one(message))
    }

    async fn tree(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let request = frames::one(request.into_body(), self.message_bytes_max).await?;
        let pages = tree::pages(&self.service.core, &request).await.map_err(refuse)?;
        Ok(frames::answer(pages.map(|page| page.map(|page| encoded(&page)))))
    }
}

/// Encodes a page, which is bounded, with its prefix.
fn encoded(page: &TreePage) -> Bytes {
    let len = page.encoded_len();
    let mut bytes = Vec::with_capacity(frames::PREFIX_BYTES + len);
    bytes.extend(frames::prefix(len).expect("a page is small"));
    page.encode(&mut bytes);
    bytes.into()
}

impl NamedService for CasRoute {
    const NAME: &'static str = content_addressable_storage_server::SERVICE_NAME;
}

impl Service<Request<Body>> for CasRoute {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let route = self.clone();
        let answer = match request.uri().path() {
            BATCH_UPDATE if frames::are_plain(&request) => route.update(request).boxed(),
            BATCH_READ if frames::are_plain(&request) => route.read(request).boxed(),
            GET_TREE if frames::are_plain(&request) => route.tree(request).boxed(),
            _ => return self.others.call(request),
        };
        answer
            .map(|answer| Ok(answer.unwrap_or_else(Status::into_http)))
            .boxed()
    }
}
