//! From a request to an operation of the scheduler: the action is read, the cache is asked, the inputs are looked for.

use prost::Message as _;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi::{Action, ExecuteResponse};
use rootcellar_proto::rpc;
use rootcellar_reapi::functions::from_proto;
use rootcellar_reapi::{Error, ErrorKind, InputTree, LoadedAction, Result};
use rootcellar_scheduler::{OperationWatch, Requirements, Task, failed};
use rootcellar_store::BlobStoreExt as _;

use super::Executor;
use super::pending::Stay;
use crate::status::from_scheduler;

/// What a client wants to have executed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) skip_cache_lookup: bool,
    pub(super) priority: i32,
}

impl Executor {
    /// Makes an operation of a request. What went wrong is an operation, too, once the client has heard its name.
    pub(super) async fn prepare(&self, stay: &Stay, wanted: Wanted) -> Result<OperationWatch> {
        let outcome = tokio::select! {
            biased;
            () = stay.cancelled() => Err(Error::new(ErrorKind::Cancelled, "the operation was cancelled")),
            outcome = self.submit(stay, wanted) => outcome,
        };
        match outcome {
            Err(error) if !stay.leave_unheard() => self.complete(stay, &failed(error.to_status())),
            outcome => outcome,
        }
    }

    async fn submit(&self, stay: &Stay, wanted: Wanted) -> Result<OperationWatch> {
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        let action = self.load(stay.action).await?;
        if let Some(response) = self.cached(&action, wanted).await? {
            return self.complete(stay, &response.into());
        }
        InputTree::load(&*self.core.store, action.input_root, &self.options.inputs).await?;
        let task = task(&action, wanted)?;
        self.dispatcher.submit(stay.name.clone(), task).map_err(from_scheduler)
    }

    /// Adds an operation that is over.
    fn complete(&self, stay: &Stay, response: &std::sync::Arc<ExecuteResponse>) -> Result<OperationWatch> {
        let name = stay.name.clone();
        let added = self.dispatcher.add_completed(name, stay.action, response.clone());
        added
            .and_then(|_| self.dispatcher.watch(&stay.name))
            .map_err(from_scheduler)
    }

    async fn cached(&self, action: &LoadedAction, wanted: Wanted) -> Result<Option<ExecuteResponse>> {
        let Some(cache) = self.action_cache.as_ref().filter(|_| !wanted.skip_cache_lookup) else {
            return Ok(None);
        };
        let found = cache.get_for_execution(action).await?;
        Ok(found.map(|result| ExecuteResponse {
            result: Some(result),
            cached_result: true,
            status: Some(rpc::Status::default()),
            ..Default::default()
        }))
    }

    /// Reads the action. If its command is missing, the error names all of its inputs that are missing as well, so that the
    /// client can upload everything before it tries again (EX-8).
    async fn load(&self, digest: Digest) -> Result<LoadedAction> {
        let store = &*self.core.store;
        let error = match LoadedAction::load(store, digest, &self.options.actions).await {
            Ok(action) => return Ok(action),
            Err(error) => error,
        };
        if error.missing().is_empty() || error.missing().contains(&digest) {
            return Err(error);
        }
        let Some(root) = self.input_root(digest).await? else {
            return Err(error);
        };
        match InputTree::load(store, root, &self.options.inputs).await {
            Err(inputs) if !inputs.missing().is_empty() => Err(both(&error, &inputs)),
            _ => Err(error),
        }
    }

    async fn input_root(&self, action: Digest) -> Result<Option<Digest>> {
        let encoded = self
            .core
            .store
            .read(action, self.options.actions.action_bytes_max)
            .await?;
        let root = Action::decode(encoded).ok().and_then(|action| action.input_root_digest);
        Ok(root.and_then(|root| from_proto(action.function(), &root).ok()))
    }
}

/// One error for what two look-ups missed.
fn both(first: &Error, second: &Error) -> Error {
    let mut missing = first.missing().to_vec();
    let others = second
        .missing()
        .iter()
        .filter(|digest| !first.missing().contains(digest));
    missing.extend(others.copied());
    Error::missing_blobs(missing)
}

fn task(action: &LoadedAction, wanted: Wanted) -> Result<Task> {
    let properties = action.platform.iter();
    let pairs = properties.map(|property| (property.name.as_str(), property.value.as_str()));
    Ok(Task {
        action: action.digest,
        requirements: Requirements::new(pairs).map_err(from_scheduler)?,
        priority: wanted.priority,
        timeout: action.timeout,
        do_not_cache: action.do_not_cache,
    })
}
