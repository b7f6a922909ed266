//! `google.longrunning.Operations`: operations by name, for clients that lost their stream and for tools.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rootcellar_proto::longrunning::operations_server::Operations;
use rootcellar_proto::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse,
    Operation, WaitOperationRequest,
};
use rootcellar_reapi::{Error, ErrorKind, Result};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::{Executor, message};
use crate::status::{from_scheduler, refuse};

/// Operations of a page, where a client does not say.
const PAGE_DEFAULT: usize = 100;

/// Answers Operations calls.
#[derive(Debug, Clone)]
pub(in crate::server) struct OperationsService(pub(in crate::server) Arc<Executor>);

impl OperationsService {
    fn operation(&self, name: &str) -> Result<Operation> {
        let executor = &self.0;
        if let Some(preparing) = executor.pending.find(name) {
            return Ok(message::preparing(name, preparing.action));
        }
        let state = executor.dispatcher.get(name).map_err(from_scheduler)?;
        Ok(message::of_state(&state))
    }

    fn cancel(&self, name: &str) -> Result<()> {
        if self.0.pending.cancel(name) {
            return Ok(());
        }
        self.0.dispatcher.cancel(name).map_err(from_scheduler)
    }

    /// Lists operations that the scheduler has, by name. A page ends early where its message would grow too large.
    fn list(&self, request: &ListOperationsRequest) -> Result<ListOperationsResponse> {
        if request.return_partial_success {
            let reason = "return_partial_success is not supported: there is only one place to ask";
            return Err(Error::new(ErrorKind::Unimplemented, reason));
        }
        let prefix = prefix(request)?;
        let limit = match usize::try_from(request.page_size) {
            Ok(0) => PAGE_DEFAULT,
            Ok(page_size) => page_size,
            Err(_) => {
                let reason = format!("page_size {} is negative", request.page_size);
                return Err(Error::invalid_argument(reason));
            }
        };
        let after = (!request.page_token.is_empty()).then_some(request.page_token.as_str());
        if after.is_some_and(|after| !after.starts_with(&prefix)) {
            return Err(Error::invalid_argument("page_token is none of this list"));
        }
        let page = self.0.dispatcher.list(&prefix, after, limit);
        let next = page.next.map(|next| next.to_string()).unwrap_or_default();
        let operations = page.operations.iter().map(message::of_state);
        Ok(clipped(operations, next, self.0.core.limits.reply_bytes_max))
    }

    /// Waits until an operation is done, or for as long as the client wants.
    async fn wait(&self, request: &WaitOperationRequest) -> Result<Operation> {
        let deadline = Instant::now() + self.patience(request)?;
        let name = &request.name;
        if let Some(mut preparing) = self.0.pending.find(name)
            && timeout_at(deadline, preparing.left()).await.is_err()
        {
            return Ok(message::preparing(name, preparing.action));
        }
        let mut watch = self.0.dispatcher.watch(name).map_err(from_scheduler)?;
        let mut last = None;
        while let Ok(Some(state)) = timeout_at(deadline, watch.next()).await {
            last = Some(state);
        }
        match last {
            Some(state) => Ok(message::of_state(&state)),
            None => self.operation(name),
        }
    }

    fn patience(&self, request: &WaitOperationRequest) -> Result<Duration> {
        let max = self.0.options.wait_max;
        let Some(timeout) = request.timeout else {
            return Ok(max);
        };
        let timeout = Duration::try_from(timeout);
        let timeout = timeout.map_err(|error| Error::invalid_argument(format!("timeout: {error}")))?;
        Ok(timeout.min(max))
    }
}

/// What the names of the operations asked for begin with: `name` is a collection, an instance, or nothing, and a filter may
/// say more.
fn prefix(request: &ListOperationsRequest) -> Result<String> {
    let collection = match request.name.trim_end_matches('/') {
        "" => String::new(),
        name if name == "operations" || name.ends_with("/operations") => format!("{name}/"),
        instance => format!("{instance}/operations/"),
    };
    let filter = request.filter.as_str();
    if filter.contains(|c: char| c.is_whitespace() || "=:<>()\"*".contains(c)) {
        let reason = format!("filter {filter:?}: only the beginning of an operation's name is supported");
        return Err(Error::invalid_argument(reason));
    }
    Ok(if filter.starts_with(&collection) {
        filter.to_owned()
    } else {
        collection + filter
    })
}

/// As many operations as fit into a message of `bytes_max`, and at least one.
fn clipped(
    operations: impl Iterator<Item = Operation>,
    next_page_token: String,
    bytes_max: usize,
) -> ListOperationsResponse {
    let mut page = ListOperationsResponse {
        next_page_token,
        ..Default::default()
    };
    let mut used = 0;
    for operation in operations {
        used += operation.encoded_len();
        if used > bytes_max
            && let Some(last) = page.operations.last()
        {
            page.next_page_token.clone_from(&last.name);
            break;
        }
        page.operations.push(operation);
    }
    page
}

#[tonic::async_trait]
impl Operations for OperationsService {
    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        self.list(request.get_ref()).map(Response::new).map_err(refuse)
    }

    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Result<Response<Operation>, Status> {
        let outcome = self.operation(&request.get_ref().name);
        outcome.map(Response::new).map_err(refuse)
    }

    async fn delete_operation(&self, request: Request<DeleteOperationRequest>) -> Result<Response<()>, Status> {
        let outcome = self.0.dispatcher.delete(&request.get_ref().name);
        outcome
            .map(Response::new)
            .map_err(|error| refuse(from_scheduler(error)))
    }

    async fn cancel_operation(&self, request: Request<CancelOperationRequest>) -> Result<Response<()>, Status> {
        let outcome = self.cancel(&request.get_ref().name);
        outcome.map(Response::new).map_err(refuse)
    }

    async fn wait_operation(&self, request: Request<WaitOperationRequest>) -> Result<Response<Operation>, Status> {
        self.wait(request.get_ref()).await.map(Response::new).map_err(refuse)
    }
}
