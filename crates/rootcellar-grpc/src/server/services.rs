//! Putting the services of a server together.

use std::sync::Arc;

use rootcellar_proto::FILE_DESCRIPTOR_SET;
use rootcellar_proto::bytestream::byte_stream_server::{self, ByteStreamServer};
use rootcellar_proto::health::health_server::{self, HealthServer};
use rootcellar_proto::reapi::capabilities_server::{self, CapabilitiesServer};
use rootcellar_proto::reapi::content_addressable_storage_server::{self, ContentAddressableStorageServer};
use rootcellar_reapi::Functions;
use rootcellar_store::{BlobStore, Spool};
use tonic::service::Routes;
use tonic_reflection::server::Builder as Reflection;

use super::Health;
use super::arrivals::Arrivals;
use super::bytestream::ByteStreamService;
use super::capabilities::{CapabilitiesService, Offers};
use super::cas::CasService;
use super::core::Core;
use super::limits::Limits;

/// The services of a server, before they are served.
#[derive(Debug)]
pub struct Services {
    store: Arc<dyn BlobStore>,
    spool: Spool,
    functions: Functions,
    limits: Limits,
}

/// Services that are ready to be served.
#[derive(Debug, Clone)]
pub struct Served {
    /// The routes, for [`serve`](super::serve()) or another `tonic` server.
    pub routes: Routes,
    /// Answers health checks; whoever ends the server tells it before.
    pub health: Health,
}

impl Services {
    /// Offers `store` under the digest functions that are announced, with uploads going through `spool`.
    pub fn new(store: Arc<dyn BlobStore>, spool: Spool, functions: Functions) -> Self {
        Self {
            store,
            spool,
            functions,
            limits: Limits::default(),
        }
    }

    /// Sets other bounds than the default ones.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Makes the routes of all that is offered, with health checks and reflection.
    pub fn build(self) -> Served {
        let limits = self.limits.clone();
        let offers = Offers::default();
        let core = Arc::new(Core {
            store: self.store,
            functions: self.functions,
            limits: self.limits,
            arrivals: Arc::new(Arrivals::default()),
        });
        let names = vec![
            capabilities_server::SERVICE_NAME,
            content_addressable_storage_server::SERVICE_NAME,
            byte_stream_server::SERVICE_NAME,
        ];
        let capabilities = CapabilitiesService::new(core.clone(), offers);
        let byte_stream = ByteStreamService::new(core.clone(), self.spool);
        let routes = Routes::default()
            .add_service(CapabilitiesServer::new(capabilities))
            .add_service(
                ContentAddressableStorageServer::new(CasService::new(core))
                    .max_decoding_message_size(limits.request_bytes_max)
                    .max_encoding_message_size(limits.request_bytes_max),
            )
            .add_service(ByteStreamServer::new(byte_stream).max_decoding_message_size(limits.request_bytes_max));
        let health = Health::new(names.iter().copied());
        let routes = routes.add_service(HealthServer::new(health.clone()));
        Served {
            routes: with_reflection(routes, &names),
            health,
        }
    }
}

/// Lets clients ask what is offered, in the version of the protocol that tools speak today and the one before it.
fn with_reflection(routes: Routes, names: &[&'static str]) -> Routes {
    let configure = || {
        let builder = Reflection::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .with_service_name(health_server::SERVICE_NAME);
        names.iter().copied().fold(builder, Reflection::with_service_name)
    };
    let rule = "the descriptors are our own, compiled into this program";
    routes
        .add_service(configure().build_v1().expect(rule))
        .add_service(configure().build_v1alpha().expect(rule))
}
