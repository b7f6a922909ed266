//! Putting the services of a server together.

use std::sync::Arc;

use rootcellar_proto::FILE_DESCRIPTOR_SET;
use rootcellar_proto::asset::fetch_server::{self, FetchServer};
use rootcellar_proto::asset::push_server::{self, PushServer};
use rootcellar_proto::bytestream::byte_stream_server;
use rootcellar_proto::health::health_server::{self, HealthServer};
use rootcellar_proto::inventory::inventory_server::{self, InventoryServer};
use rootcellar_proto::longrunning::operations_server::{self, OperationsServer};
use rootcellar_proto::reapi::action_cache_server::{self, ActionCacheServer};
use rootcellar_proto::reapi::capabilities_server::{self, CapabilitiesServer};
use rootcellar_proto::reapi::content_addressable_storage_server;
use rootcellar_proto::reapi::execution_server::{self, ExecutionServer};
use rootcellar_reapi::{ActionCache, AssetIndex, Functions};
use rootcellar_scheduler::Dispatcher;
use rootcellar_store::{BlobStore, Inventory, Spool};
use tonic::service::Routes;
use tonic_reflection::server::Builder as Reflection;

use super::Health;
use super::action_cache::ActionCacheService;
use super::arrivals::Arrivals;
use super::assets::AssetService;
use super::bytestream::{ByteStreamRoute, ByteStreamService};
use super::capabilities::{CapabilitiesService, Offers};
use super::cas::{CasRoute, CasService};
use super::core::Core;
use super::execution::{ExecutionOptions, ExecutionService, Executor, OperationsService};
use super::inventory::InventoryService;
use super::limits::Limits;

/// The services of a server, before they are served: the CAS, and beside it what it is given.
#[derive(Debug)]
pub struct Services {
    store: Arc<dyn BlobStore>,
    spool: Spool,
    functions: Functions,
    limits: Limits,
    action_cache: Option<ActionCache>,
    takes_results: bool,
    assets: Option<AssetIndex>,
    inventory: Option<Arc<dyn Inventory>>,
    execution: Option<(Dispatcher, ExecutionOptions)>,
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
            action_cache: None,
            takes_results: false,
            assets: None,
            inventory: None,
            execution: None,
        }
    }

    /// Sets other bounds than the default ones.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Offers an action cache, to which clients may write if `takes_results`. Executions are answered from it, too.
    #[must_use]
    pub fn with_action_cache(self, action_cache: ActionCache, takes_results: bool) -> Self {
        Self {
            action_cache: Some(action_cache),
            takes_results,
            ..self
        }
    }

    /// Offers assets that clients push and fetch.
    #[must_use]
    pub fn with_assets(self, assets: AssetIndex) -> Self {
        Self {
            assets: Some(assets),
            ..self
        }
    }

    /// Tells every client what is in the store, for whoever moves it. Whoever knows the digest of a blob can read it.
    #[must_use]
    pub fn with_inventory(self, inventory: Arc<dyn Inventory>) -> Self {
        Self {
            inventory: Some(inventory),
            ..self
        }
    }

    /// Offers to execute: what is asked for goes to `dispatcher`, where workers find it.
    #[must_use]
    pub fn with_execution(self, dispatcher: Dispatcher, options: ExecutionOptions) -> Self {
        Self {
            execution: Some((dispatcher, options)),
            ..self
        }
    }

    /// Makes the routes of all that is offered, with health checks and reflection.
    pub fn build(self) -> Served {
        let core = Arc::new(Core {
            store: self.store,
            functions: self.functions,
            limits: self.limits,
            arrivals: Arc::new(Arrivals::default()),
        });
        let offers = Offers {
            takes_results: self.takes_results,
            executes: self.execution.is_some(),
        };
        let mut offered = Offered::new(core.limits.request_bytes_max);
        offered.add_storage(&core, self.spool, offers);
        if let Some(cache) = &self.action_cache {
            offered.add_action_cache(ActionCacheService::new(core.clone(), cache.clone(), self.takes_results));
        }
        if let Some(assets) = self.assets {
            offered.add_assets(&AssetService::new(core.clone(), assets));
        }
        if let Some(inventory) = self.inventory {
            offered.add_inventory(InventoryService::new(core.clone(), inventory));
        }
        if let Some((dispatcher, options)) = self.execution {
            offered.add_execution(Arc::new(Executor::new(core, dispatcher, self.action_cache, options)));
        }
        offered.finish()
    }
}

/// Routes in the making, with the names of what they lead to.
struct Offered {
    routes: Routes,
    names: Vec<&'static str>,
    message_bytes_max: usize,
}

impl Offered {
    fn new(message_bytes_max: usize) -> Self {
        Self {
            routes: Routes::default(),
            names: Vec::new(),
            message_bytes_max,
        }
    }

    fn add_storage(&mut self, core: &Arc<Core>, spool: Spool, offers: Offers) {
        let max = self.message_bytes_max;
        let capabilities = CapabilitiesServer::new(CapabilitiesService::new(core.clone(), offers));
        let cas = CasRoute::new(CasService::new(core.clone()), max);
        let byte_stream = ByteStreamRoute::new(ByteStreamService::new(core.clone(), spool), max);
        self.names.extend([
            capabilities_server::SERVICE_NAME,
            content_addressable_storage_server::SERVICE_NAME,
            byte_stream_server::SERVICE_NAME,
        ]);
        let routes = std::mem::take(&mut self.routes);
        self.routes = routes
            .add_service(capabilities)
            .add_service(cas)
            .add_service(byte_stream);
    }

    fn add_action_cache(&mut self, service: ActionCacheService) {
        let server = ActionCacheServer::new(service).max_decoding_message_size(self.message_bytes_max);
        self.names.push(action_cache_server::SERVICE_NAME);
        self.routes = std::mem::take(&mut self.routes).add_service(server);
    }

    fn add_assets(&mut self, service: &AssetService) {
        let fetch = FetchServer::new(service.clone()).max_decoding_message_size(self.message_bytes_max);
        let push = PushServer::new(service.clone()).max_decoding_message_size(self.message_bytes_max);
        self.names
            .extend([fetch_server::SERVICE_NAME, push_server::SERVICE_NAME]);
        self.routes = std::mem::take(&mut self.routes).add_service(fetch).add_service(push);
    }

    fn add_inventory(&mut self, service: InventoryService) {
        let server = InventoryServer::new(service).max_decoding_message_size(self.message_bytes_max);
        self.names.push(inventory_server::SERVICE_NAME);
        self.routes = std::mem::take(&mut self.routes).add_service(server);
    }

    fn add_execution(&mut self, executor: Arc<Executor>) {
        let execution = ExecutionServer::new(ExecutionService(executor.clone()));
        let operations = OperationsServer::new(OperationsService(executor));
        self.names
            .extend([execution_server::SERVICE_NAME, operations_server::SERVICE_NAME]);
        self.routes = std::mem::take(&mut self.routes)
            .add_service(execution)
            .add_service(operations);
    }

    /// Adds health checks, and reflection: clients may ask what is offered, in the version of that protocol that tools speak
    /// today and the one before it.
    fn finish(self) -> Served {
        let health = Health::new(self.names.iter().copied());
        let configure = || {
            let builder = Reflection::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .with_service_name(health_server::SERVICE_NAME);
            self.names.iter().copied().fold(builder, Reflection::with_service_name)
        };
        let rule = "the descriptors are our own, compiled into this program";
        let routes = self
            .routes
            .add_service(HealthServer::new(health.clone()))
            .add_service(configure().build_v1().expect(rule))
            .add_service(configure().build_v1alpha().expect(rule));
        Served { routes, health }
    }
}
