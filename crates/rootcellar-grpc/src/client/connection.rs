//! A connection to a server, and the generated clients that speak over it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use rootcellar_proto::bytestream::byte_stream_client::ByteStreamClient;
use rootcellar_proto::reapi::capabilities_client::CapabilitiesClient;
use rootcellar_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use rootcellar_proto::reapi::{GetCapabilitiesRequest, ServerCapabilities};
use rootcellar_reapi::{Error, InstanceName, Result};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::failure::error_of_call;
use super::{Endpoint, Retry};

/// A connection to a server, which is made again when it breaks. Clones share it.
#[derive(Debug, Clone)]
pub struct Connection {
    channel: Channel,
    endpoint: Arc<Endpoint>,
}

impl Connection {
    pub(super) fn new(channel: Channel, endpoint: Endpoint) -> Self {
        Self {
            channel,
            endpoint: Arc::new(endpoint),
        }
    }

    /// What the server offers (REAPI, `Capabilities.GetCapabilities`).
    ///
    /// # Errors
    /// What the server or the transport says.
    pub async fn capabilities(&self) -> Result<ServerCapabilities> {
        let request = GetCapabilitiesRequest {
            instance_name: self.instance_name(),
        };
        let client = CapabilitiesClient::new(self.channel());
        let ask = |mut client: CapabilitiesClient<_>, request| async move { client.get_capabilities(request).await };
        self.unary(client, request, ask).await
    }

    /// Makes a call with one answer, again if need be.
    pub(super) async fn unary<C, R, T, F>(&self, client: C, request: R, call: impl Fn(C, R) -> F) -> Result<T>
    where
        C: Clone,
        R: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let outcome = self.retry().call(|| call(client.clone(), request.clone())).await;
        outcome.map(Response::into_inner).map_err(|status| self.error(&status))
    }

    /// The error of a call over this connection.
    pub(super) fn error(&self, status: &Status) -> Error {
        error_of_call(status).about(self)
    }

    pub(super) fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        let bytes_max = self.endpoint.transport().message_bytes_max;
        ContentAddressableStorageClient::new(self.channel())
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(bytes_max)
    }

    pub(super) fn byte_stream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel()).max_decoding_message_size(self.endpoint.transport().message_bytes_max)
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(super) fn retry(&self) -> &Retry {
        self.endpoint.retry()
    }

    pub(super) fn instance(&self) -> &InstanceName {
        self.endpoint.instance()
    }

    pub(super) fn instance_name(&self) -> String {
        self.instance().as_str().to_owned()
    }
}

/// Writes the endpoint.
impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}
