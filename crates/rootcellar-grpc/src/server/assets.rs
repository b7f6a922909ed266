//! Remote Asset: `Fetch` of what was pushed, and `Push`.
//!
//! An asset that is not here is no trouble of this server, so it travels inside the response (`FetchBlobResponse.status`); what
//! is wrong with the request is the status of the call.

use std::sync::Arc;

use rootcellar_proto::asset::fetch_server::Fetch;
use rootcellar_proto::asset::push_server::Push;
use rootcellar_proto::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse, PushBlobRequest,
    PushBlobResponse, PushDirectoryRequest, PushDirectoryResponse,
};
use rootcellar_reapi::{AssetIndex, ErrorKind, Result};
use tonic::{Request, Response, Status};

use super::core::Core;
use crate::status::refuse;

/// Answers Fetch and Push calls.
#[derive(Debug, Clone)]
pub(super) struct AssetService {
    core: Arc<Core>,
    index: AssetIndex,
}

impl AssetService {
    pub(super) fn new(core: Arc<Core>, index: AssetIndex) -> Self {
        Self { core, index }
    }

    async fn blob(&self, request: &FetchBlobRequest) -> Result<FetchBlobResponse> {
        self.core.check_instance(&request.instance_name)?;
        match self.index.fetch_blob(request).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(FetchBlobResponse {
                status: Some(error.to_status()),
                uri: first(&request.uris),
                ..Default::default()
            }),
            outcome => outcome,
        }
    }

    async fn directory(&self, request: &FetchDirectoryRequest) -> Result<FetchDirectoryResponse> {
        self.core.check_instance(&request.instance_name)?;
        match self.index.fetch_directory(request).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(FetchDirectoryResponse {
                status: Some(error.to_status()),
                uri: first(&request.uris),
                ..Default::default()
            }),
            outcome => outcome,
        }
    }

    async fn take_blob(&self, request: &PushBlobRequest) -> Result<PushBlobResponse> {
        self.core.check_instance(&request.instance_name)?;
        self.index.push_blob(request).await?;
        Ok(PushBlobResponse {})
    }

    async fn take_directory(&self, request: &PushDirectoryRequest) -> Result<PushDirectoryResponse> {
        self.core.check_instance(&request.instance_name)?;
        self.index.push_directory(request).await?;
        Ok(PushDirectoryResponse {})
    }
}

/// The URI that a miss is told of: the first, as none of them was found.
fn first(uris: &[String]) -> String {
    uris.first().cloned().unwrap_or_default()
}

#[tonic::async_trait]
impl Fetch for AssetService {
    async fn fetch_blob(&self, request: Request<FetchBlobRequest>) -> Result<Response<FetchBlobResponse>, Status> {
        self.blob(request.get_ref()).await.map(Response::new).map_err(refuse)
    }

    async fn fetch_directory(
        &self,
        request: Request<FetchDirectoryRequest>,
    ) -> Result<Response<FetchDirectoryResponse>, Status> {
        self.directory(request.get_ref())
            .await
            .map(Response::new)
            .map_err(refuse)
    }
}

#[tonic::async_trait]
impl Push for AssetService {
    async fn push_blob(&self, request: Request<PushBlobRequest>) -> Result<Response<PushBlobResponse>, Status> {
        self.take_blob(request.get_ref())
            .await
            .map(Response::new)
            .map_err(refuse)
    }

    async fn push_directory(
        &self,
        request: Request<PushDirectoryRequest>,
    ) -> Result<Response<PushDirectoryResponse>, Status> {
        let outcome = self.take_directory(request.get_ref()).await;
        outcome.map(Response::new).map_err(refuse)
    }
}
