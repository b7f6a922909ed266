//! `Capabilities`: what this server can do, told once to each client.

use std::sync::Arc;

use rootcellar_proto::reapi::capabilities_server::Capabilities;
use rootcellar_proto::reapi::priority_capabilities::PriorityRange;
use rootcellar_proto::reapi::symlink_absolute_path_strategy::Value as AbsoluteSymlinks;
use rootcellar_proto::reapi::{
    ActionCacheUpdateCapabilities, CacheCapabilities, ExecutionCapabilities, GetCapabilitiesRequest,
    PriorityCapabilities, ServerCapabilities,
};
use rootcellar_proto::semver::SemVer;
use rootcellar_reapi::functions::value;
use rootcellar_reapi::{OUTPUT_PROPERTIES, Result};
use tonic::{Request, Response, Status};

use super::core::Core;
use super::signed;
use crate::status::refuse;

/// Versions of the API that are served: all of its second major version.
const LOW: (i32, i32) = (2, 0);
const HIGH: (i32, i32) = (2, 12);

/// Answers GetCapabilities.
#[derive(Debug, Clone)]
pub(super) struct CapabilitiesService {
    core: Arc<Core>,
    offers: Offers,
}

/// What is offered beside the CAS.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offers {
    /// Whether clients may write action results.
    pub(super) takes_results: bool,
    /// Whether actions are executed here.
    pub(super) executes: bool,
}

impl CapabilitiesService {
    pub(super) fn new(core: Arc<Core>, offers: Offers) -> Self {
        Self { core, offers }
    }

    fn capabilities(&self, request: &GetCapabilitiesRequest) -> Result<ServerCapabilities> {
        self.core.check_instance(&request.instance_name)?;
        Ok(ServerCapabilities {
            cache_capabilities: Some(self.cache()),
            execution_capabilities: self.offers.executes.then(|| self.execution()),
            deprecated_api_version: None,
            low_api_version: Some(version(LOW)),
            high_api_version: Some(version(HIGH)),
        })
    }

    fn cache(&self) -> CacheCapabilities {
        let limits = &self.core.limits;
        CacheCapabilities {
            digest_functions: self.digest_functions(),
            action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities {
                update_enabled: self.offers.takes_results,
            }),
            max_batch_total_size_bytes: signed(limits.batch_total_bytes_max),
            // Root filesystems are full of absolute links, and inside the sandbox they lead nowhere else.
            symlink_absolute_path_strategy: AbsoluteSymlinks::Allowed.into(),
            max_cas_blob_size_bytes: limits.blob_bytes_max.map_or(0, signed),
            ..Default::default()
        }
    }

    fn execution(&self) -> ExecutionCapabilities {
        // Any number is a priority to the scheduler. Bazel sends none unless a range is announced.
        let any = PriorityRange {
            min_priority: i32::MIN,
            max_priority: i32::MAX,
        };
        ExecutionCapabilities {
            // Older clients read this one only (CAP-5).
            digest_function: value(self.core.functions.first()).into(),
            exec_enabled: true,
            execution_priority_capabilities: Some(PriorityCapabilities { priorities: vec![any] }),
            supported_node_properties: OUTPUT_PROPERTIES.map(str::to_owned).to_vec(),
            digest_functions: self.digest_functions(),
        }
    }

    fn digest_functions(&self) -> Vec<i32> {
        let announced = self.core.functions.announced().iter();
        announced.map(|function| value(*function).into()).collect()
    }
}

fn version((major, minor): (i32, i32)) -> SemVer {
    SemVer {
        major,
        minor,
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Capabilities for CapabilitiesService {
    async fn get_capabilities(
        &self,
        request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        self.capabilities(request.get_ref()).map(Response::new).map_err(refuse)
    }
}
