//! A server's action cache.

use std::fmt;

use async_trait::async_trait;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi::action_cache_client::ActionCacheClient;
use rootcellar_proto::reapi::{ActionResult, GetActionResultRequest, UpdateActionResultRequest};
use rootcellar_reapi::functions::{to_proto, value};
use rootcellar_reapi::{ActionResults, ErrorKind, Result};
use tonic::transport::Channel;

use super::Connection;

type Client = ActionCacheClient<Channel>;

/// Results of actions that a server keeps (REAPI, `ActionCache`).
#[derive(Debug, Clone)]
pub struct ActionCache {
    connection: Connection,
}

impl ActionCache {
    /// Speaks to the action cache at the other end of `connection`.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// The result of an action, if there is one whose blobs are all present.
    ///
    /// # Errors
    /// What the server or the transport says.
    pub async fn get(&self, action: Digest) -> Result<Option<ActionResult>> {
        let request = GetActionResultRequest {
            instance_name: self.connection.instance_name(),
            action_digest: Some(to_proto(action)),
            digest_function: value(action.function()).into(),
            ..Default::default()
        };
        let get = |mut client: Client, request| async move { client.get_action_result(request).await };
        match self.connection.unary(self.client(), request, get).await {
            Ok(result) => Ok(Some(result)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the result of an action; tells it as the server keeps it.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`] if blobs that it refers to are missing; what else the server or the transport says.
    pub async fn update(&self, action: Digest, result: ActionResult) -> Result<ActionResult> {
        let request = UpdateActionResultRequest {
            instance_name: self.connection.instance_name(),
            action_digest: Some(to_proto(action)),
            action_result: Some(result),
            digest_function: value(action.function()).into(),
            ..Default::default()
        };
        let update = |mut client: Client, request| async move { client.update_action_result(request).await };
        self.connection.unary(self.client(), request, update).await
    }

    fn client(&self) -> Client {
        ActionCacheClient::new(self.connection.channel())
    }
}

#[async_trait]
impl ActionResults for ActionCache {
    async fn get(&self, action: Digest) -> Result<Option<ActionResult>> {
        Self::get(self, action).await
    }

    async fn put(&self, action: Digest, result: ActionResult) -> Result<()> {
        self.update(action, result).await.map(|_| ())
    }
}

impl fmt::Display for ActionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remote action cache({})", self.connection)
    }
}
