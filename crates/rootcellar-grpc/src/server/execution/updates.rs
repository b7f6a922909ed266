//! The streams of clients that follow an operation.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use futures_util::stream::{self, Stream, StreamExt as _};
use rootcellar_proto::longrunning::Operation;
use rootcellar_reapi::Inlining;
use rootcellar_scheduler::{OperationState, OperationWatch};
use tokio::time::timeout;

use super::{Executor, Operations, message};

/// Sends `operation` now, and again at every `interval` until `then` says how the stream goes on.
pub(super) fn repeat_until<F>(operation: Operation, interval: Duration, then: F) -> Operations
where
    F: Future<Output = Operations> + Send + 'static,
{
    let first = stream::iter([Ok(operation.clone())]);
    let rest = stream::unfold(Some(then.boxed()), move |then| {
        let operation = operation.clone();
        async move {
            let mut then = then?;
            match timeout(interval, &mut then).await {
                Ok(rest) => Some((rest, None)),
                Err(_) => Some((stream::iter([Ok(operation)]).boxed(), Some(then))),
            }
        }
    });
    first.chain(rest.flatten()).boxed()
}

/// An operation as one client sees it. Dropping it cancels nothing.
#[derive(Debug)]
pub(super) struct Updates {
    executor: Arc<Executor>,
    watch: OperationWatch,
    inlining: Inlining,
    last: Option<OperationState>,
}

impl Updates {
    pub(super) fn new(executor: Arc<Executor>, watch: OperationWatch, inlining: Inlining) -> Self {
        Self {
            executor,
            watch,
            inlining,
            last: None,
        }
    }

    /// The operation now and on every change, until it is done. One that does not change is sent again now and then.
    pub(super) fn into_stream(self) -> impl Stream<Item = Operation> + Send {
        stream::unfold(self, |mut updates| async {
            let operation = updates.next().await?;
            Some((operation, updates))
        })
    }

    async fn next(&mut self) -> Option<Operation> {
        loop {
            if let Ok(state) = timeout(self.executor.options.resend_interval, self.watch.next()).await {
                let state = state?;
                let operation = self.operation(&state).await;
                self.last = Some(state);
                return Some(operation);
            }
            // The first state comes at once, so there is one to send again.
            if let Some(last) = &self.last {
                return Some(message::of_state(last));
            }
        }
    }

    /// The operation, with the contents that this client asked for.
    async fn operation(&self, state: &OperationState) -> Operation {
        let Some(response) = state.outcome() else {
            return message::of_state(state);
        };
        let mut response = (**response).clone();
        if let Some(result) = &mut response.result {
            let function = state.action.function();
            self.executor.core.inline(function, result, &self.inlining).await;
        }
        message::with_response(state, Some(response))
    }
}
