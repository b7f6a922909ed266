//! `ActionCache`: results of actions, served only while all their blobs are here.

use std::sync::Arc;

use rootcellar_proto::reapi::action_cache_server::ActionCache as ActionCacheApi;
use rootcellar_proto::reapi::{ActionResult, GetActionResultRequest, UpdateActionResultRequest};
use rootcellar_reapi::{ActionCache, Error, ErrorKind, Result};
use tonic::{Request, Response, Status};

use super::core::Core;
use crate::status::refuse;

/// Answers ActionCache calls.
#[derive(Debug, Clone)]
pub(super) struct ActionCacheService {
    core: Arc<Core>,
    cache: ActionCache,
    updates: bool,
}

impl ActionCacheService {
    /// Offers `cache`; clients may write to it if `updates`.
    pub(super) fn new(core: Arc<Core>, cache: ActionCache, updates: bool) -> Self {
        Self { core, cache, updates }
    }

    async fn result(&self, request: &GetActionResultRequest) -> Result<ActionResult> {
        self.core.check_instance(&request.instance_name)?;
        let functions = &self.core.functions;
        let action = functions.digest(request.digest_function, "action_digest", request.action_digest.as_ref())?;
        let found = self.cache.get(action).await?;
        let mut result = found.ok_or_else(|| Error::not_found(format!("no result of action {action} is cached")))?;
        self.core.inline(action.function(), &mut result, &request.into()).await;
        Ok(result)
    }

    async fn update(&self, request: UpdateActionResultRequest) -> Result<ActionResult> {
        self.core.check_instance(&request.instance_name)?;
        let functions = &self.core.functions;
        let action = functions.digest(request.digest_function, "action_digest", request.action_digest.as_ref())?;
        let result = request
            .action_result
            .ok_or_else(|| Error::invalid_argument("action_result is not set"))?;
        if !self.updates {
            let reason = "this server takes no results from clients; its capabilities say so";
            return Err(Error::new(ErrorKind::PermissionDenied, reason));
        }
        self.cache.put(action, result).await
    }
}

#[tonic::async_trait]
impl ActionCacheApi for ActionCacheService {
    async fn get_action_result(
        &self,
        request: Request<GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        self.result(request.get_ref()).await.map(Response::new).map_err(refuse)
    }

    async fn update_action_result(
        &self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        self.update(request.into_inner())
            .await
            .map(Response::new)
            .map_err(refuse)
    }
}
