//! `Execution`: an action becomes an operation, and its client follows it.
//!
//! ```text
//!   Execute ─> prepare (action, cache, inputs) ─┬─> error: the status of the call
//!              │                                ├─> cached: an operation that is done
//!              │ takes long                     └─> the scheduler: an operation that goes on
//!              v
//!              the client hears the operation's name (CACHE_CHECK); from then on an error is a response, too
//! ```
//!
//! Preparation goes on if the client disconnects, and so does the operation: WaitExecution finds both by name. Nothing here
//! runs anything; workers come to the dispatcher.

mod message;
mod operations;
mod options;
mod pending;
mod prepare;
mod updates;

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use rootcellar_digest::Digest;
use rootcellar_proto::longrunning::Operation;
use rootcellar_proto::reapi::execution_server::Execution as ExecutionApi;
use rootcellar_proto::reapi::{ExecuteRequest, WaitExecutionRequest};
use rootcellar_reapi::{ActionCache, Inlining, InstanceName, Result};
use rootcellar_scheduler::{Dispatcher, OperationWatch, failed};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

pub(super) use self::operations::OperationsService;
pub use self::options::ExecutionOptions;
use self::pending::Pending;
use self::prepare::Wanted;
use self::updates::Updates;
use super::core::Core;
use crate::status::{TRAILER_DETAILS_BYTES_MAX, from_panic, from_scheduler, refuse};

type Operations = BoxStream<'static, Result<Operation, Status>>;

/// What Execution and Operations work with.
#[derive(Debug)]
pub(super) struct Executor {
    core: Arc<Core>,
    dispatcher: Dispatcher,
    action_cache: Option<ActionCache>,
    options: ExecutionOptions,
    pending: Arc<Pending>,
    /// One for each action that may be looked at now.
    turns: Semaphore,
}

impl Executor {
    pub(super) fn new(
        core: Arc<Core>,
        dispatcher: Dispatcher,
        action_cache: Option<ActionCache>,
        options: ExecutionOptions,
    ) -> Self {
        Self {
            core,
            dispatcher,
            action_cache,
            turns: Semaphore::new(options.prepared_at_once_max),
            options,
            pending: Arc::default(),
        }
    }

    async fn execute(self: &Arc<Self>, request: &ExecuteRequest) -> Result<Operations> {
        let instance = self.core.check_instance(&request.instance_name)?;
        let functions = &self.core.functions;
        let action = functions.digest(request.digest_function, "action_digest", request.action_digest.as_ref())?;
        let wanted = Wanted {
            skip_cache_lookup: request.skip_cache_lookup,
            priority: request.execution_policy.unwrap_or_default().priority,
        };
        let name = operation_name(&instance);
        let mut preparation = self.spawn_preparation(name.clone(), action, wanted);
        let outcome = timeout(self.options.first_reply_max, &mut preparation).await;
        if outcome.is_err() && self.pending.announce(&name) {
            return Ok(self.announced(&name, action, preparation, request.into()));
        }
        let outcome = match outcome {
            Ok(joined) => joined,
            Err(_) => preparation.await,
        };
        let watch = self.begun(&name, action, joined(outcome))?;
        Ok(self.updates(watch, request.into()))
    }

    /// Prepares in a task of its own, which goes on if the client does not wait for it.
    fn spawn_preparation(
        self: &Arc<Self>,
        name: Arc<str>,
        action: Digest,
        wanted: Wanted,
    ) -> JoinHandle<Result<OperationWatch>> {
        let stay = self.pending.enter(name, action);
        let executor = self.clone();
        let prepare = async move { executor.prepare(&stay, wanted).await };
        tokio::spawn(prepare.in_current_span())
    }

    /// The operation, or the status of the call if none could be made. A list of missing blobs that is too long for the
    /// trailers of a call is told by an operation that is done.
    fn begun(&self, name: &Arc<str>, action: Digest, outcome: Result<OperationWatch>) -> Result<OperationWatch> {
        let error = match outcome {
            Ok(watch) => return Ok(watch),
            Err(error) => error,
        };
        let status = error.to_status();
        if status.details.is_empty() || prost::Message::encoded_len(&status) <= TRAILER_DETAILS_BYTES_MAX {
            return Err(error);
        }
        let added = self.dispatcher.add_completed(name.clone(), action, failed(status));
        added.and_then(|_| self.dispatcher.watch(name)).map_err(from_scheduler)
    }

    /// Tells the name at once, and goes on when the action was looked at.
    fn announced(
        self: &Arc<Self>,
        name: &str,
        action: Digest,
        preparation: JoinHandle<Result<OperationWatch>>,
        inlining: Inlining,
    ) -> Operations {
        let executor = self.clone();
        let then = async move {
            match joined(preparation.await) {
                Ok(watch) => executor.updates(watch, inlining),
                Err(error) => stream::iter([Err(refuse(error))]).boxed(),
            }
        };
        updates::repeat_until(message::preparing(name, action), self.options.resend_interval, then)
    }

    fn updates(self: &Arc<Self>, watch: OperationWatch, inlining: Inlining) -> Operations {
        let updates = Updates::new(self.clone(), watch, inlining);
        updates.into_stream().map(Ok).boxed()
    }

    /// Follows an operation by name, from its preparation on.
    fn wait(self: &Arc<Self>, name: &str) -> Result<Operations> {
        let Some(mut preparing) = self.pending.find(name) else {
            let watch = self.dispatcher.watch(name).map_err(from_scheduler)?;
            return Ok(self.updates(watch, Inlining::default()));
        };
        let first = message::preparing(name, preparing.action);
        let (executor, name) = (self.clone(), name.to_owned());
        let then = async move {
            preparing.left().await;
            match executor.dispatcher.watch(&name) {
                Ok(watch) => executor.updates(watch, Inlining::default()),
                Err(error) => stream::iter([Err(refuse(from_scheduler(error)))]).boxed(),
            }
        };
        Ok(updates::repeat_until(first, self.options.resend_interval, then))
    }
}

/// `[{instance}/]operations/{uuid}`: a name that leads back here without an instance beside it (EX-11).
fn operation_name(instance: &InstanceName) -> Arc<str> {
    let id = uuid::Uuid::new_v4();
    if instance.is_empty() {
        return format!("operations/{id}").into();
    }
    format!("{instance}/operations/{id}").into()
}

fn joined<T>(outcome: Result<Result<T>, JoinError>) -> Result<T> {
    outcome.unwrap_or_else(|panic| Err(from_panic(&panic)))
}

/// Answers Execution calls.
#[derive(Debug, Clone)]
pub(super) struct ExecutionService(pub(super) Arc<Executor>);

#[tonic::async_trait]
impl ExecutionApi for ExecutionService {
    type ExecuteStream = Operations;

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<Operations>, Status> {
        let outcome = self.0.execute(request.get_ref()).await;
        outcome.map(Response::new).map_err(refuse)
    }

    type WaitExecutionStream = Operations;

    async fn wait_execution(&self, request: Request<WaitExecutionRequest>) -> Result<Response<Operations>, Status> {
        let outcome = self.0.wait(&request.get_ref().name);
        outcome.map(Response::new).map_err(refuse)
    }
}
