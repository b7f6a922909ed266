//! `ContentAddressableStorage`: many small blobs in one call, and trees.

mod batch;
mod raw_request;
mod reply;
mod route;
mod tree;

use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt as _};
use prost::Message as _;
use rootcellar_proto::reapi::content_addressable_storage_server::ContentAddressableStorage;
use rootcellar_proto::reapi::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse,
    FindMissingBlobsRequest, FindMissingBlobsResponse, GetTreeRequest, GetTreeResponse, SpliceBlobRequest,
    SpliceBlobResponse, SplitBlobRequest, SplitBlobResponse,
};
use rootcellar_reapi::functions::to_proto;
use rootcellar_reapi::{Result, TreePage};
use tonic::{Request, Response, Status};

pub(super) use self::route::CasRoute;
use super::core::Core;
use crate::status::refuse;

/// Answers CAS calls.
#[derive(Debug, Clone)]
pub(super) struct CasService {
    core: Arc<Core>,
}

impl CasService {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    async fn find_missing(&self, request: &FindMissingBlobsRequest) -> Result<FindMissingBlobsResponse> {
        self.core.check_instance(&request.instance_name)?;
        let functions = &self.core.functions;
        let digests = functions.digests(request.digest_function, "blob_digests", &request.blob_digests)?;
        let missing = self.core.store.find_missing(&digests).await?;
        Ok(FindMissingBlobsResponse {
            missing_blob_digests: missing.into_iter().map(to_proto).collect(),
        })
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for CasService {
    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        let outcome = self.find_missing(request.get_ref()).await;
        outcome.map(Response::new).map_err(refuse)
    }

    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
        let outcome = batch::update(&self.core, request.into_inner()).await;
        outcome.map(Response::new).map_err(refuse)
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        let outcome = batch::read(&self.core, request.into_inner()).await;
        outcome.map(Response::new).map_err(refuse)
    }

    type GetTreeStream = BoxStream<'static, Result<GetTreeResponse, Status>>;

    async fn get_tree(&self, request: Request<GetTreeRequest>) -> Result<Response<Self::GetTreeStream>, Status> {
        let pages = tree::pages(&self.core, request.get_ref()).await.map_err(refuse)?;
        let decode = |page: TreePage| {
            let mut encoded = Vec::with_capacity(page.encoded_len());
            page.encode(&mut encoded);
            GetTreeResponse::decode(&encoded[..]).map_err(|error| Status::internal(error.to_string()))
        };
        Ok(Response::new(pages.map(move |page| page.and_then(decode)).boxed()))
    }

    async fn split_blob(&self, _: Request<SplitBlobRequest>) -> Result<Response<SplitBlobResponse>, Status> {
        Err(not_offered("SplitBlob"))
    }

    async fn splice_blob(&self, _: Request<SpliceBlobRequest>) -> Result<Response<SpliceBlobResponse>, Status> {
        Err(not_offered("SpliceBlob"))
    }
}

fn not_offered(method: &str) -> Status {
    Status::unimplemented(format!("{method} is not offered here; the capabilities say so"))
}
