//! `Inventory`: what the store holds, for whoever moves it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::inventory::inventory_server::Inventory as InventoryApi;
use rootcellar_proto::inventory::{ListBlobsRequest, ListBlobsResponse};
use rootcellar_reapi::Error;
use rootcellar_reapi::functions::{to_proto, value};
use rootcellar_store::Inventory;
use tonic::{Request, Response, Status};

use super::core::Core;
use crate::status::refuse;

/// Digests in one message: some hundred kilobytes.
const DIGESTS_MAX: usize = 4096;

/// Answers Inventory calls.
#[derive(Debug, Clone)]
pub(super) struct InventoryService {
    core: Arc<Core>,
    inventory: Arc<dyn Inventory>,
}

impl InventoryService {
    pub(super) fn new(core: Arc<Core>, inventory: Arc<dyn Inventory>) -> Self {
        Self { core, inventory }
    }
}

/// Digests of one function in each message.
fn messages(page: Vec<Digest>) -> Vec<ListBlobsResponse> {
    let mut of_functions: BTreeMap<i32, (DigestFunction, Vec<Digest>)> = BTreeMap::new();
    for digest in page {
        let function = digest.function();
        let (_, digests) = of_functions
            .entry(value(function).into())
            .or_insert((function, Vec::new()));
        digests.push(digest);
    }
    let message = |function, digests: &[Digest]| ListBlobsResponse {
        digest_function: value(function).into(),
        blob_digests: digests.iter().map(|digest| to_proto(*digest)).collect(),
    };
    let each = of_functions.into_values();
    each.flat_map(|(function, digests)| {
        let chunks = digests.chunks(DIGESTS_MAX).map(|digests| message(function, digests));
        chunks.collect::<Vec<_>>()
    })
    .collect()
}

#[tonic::async_trait]
impl InventoryApi for InventoryService {
    type ListBlobsStream = BoxStream<'static, Result<ListBlobsResponse, Status>>;

    async fn list_blobs(&self, request: Request<ListBlobsRequest>) -> Result<Response<Self::ListBlobsStream>, Status> {
        self.core
            .check_instance(&request.get_ref().instance_name)
            .map_err(refuse)?;
        let pages = self.inventory.list().map_err(|error| refuse(Error::from(error)));
        let listed = pages
            .map_ok(|page| stream::iter(messages(page).into_iter().map(Ok)))
            .try_flatten();
        Ok(Response::new(listed.boxed()))
    }
}
