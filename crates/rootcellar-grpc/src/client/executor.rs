//! Actions that a server runs, followed to their end over any number of connections.

use rootcellar_digest::Digest;
use rootcellar_proto::longrunning::operations_client::OperationsClient;
use rootcellar_proto::longrunning::{CancelOperationRequest, Operation, operation};
use rootcellar_proto::reapi::execution_client::ExecutionClient;
use rootcellar_proto::reapi::execution_stage::Value as Stage;
use rootcellar_proto::reapi::{ExecuteOperationMetadata, ExecuteRequest, ExecuteResponse, WaitExecutionRequest};
use rootcellar_reapi::functions::{to_proto, value};
use rootcellar_reapi::{Error, ErrorKind, Result};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::Connection;
use super::failure::check_status;
use super::retry::Pauses;

/// Runs actions (REAPI, `Execution`).
#[derive(Debug, Clone)]
pub struct Executor {
    connection: Connection,
}

/// How an action is run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecuteOptions {
    /// Runs it even if the action cache has its result.
    pub skip_cache_lookup: bool,
    /// The smaller, the sooner; 0 is what the server takes for usual.
    pub priority: i32,
}

/// What an [`Execution`] tells next.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// It goes on, and is in this stage. Stages may come again, and go backwards.
    Stage(Stage),
    /// It is over. The response's status may be an error, which [`check_status`](super::check_status) tells; standard output
    /// and outputs may be there all the same.
    Done(Box<ExecuteResponse>),
}

impl Executor {
    /// Speaks to the execution service at the other end of `connection`.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Prepares to run an action that the server's CAS holds with all its inputs. It runs once [`Execution::next`] is called.
    pub fn execute(&self, action: Digest, options: &ExecuteOptions) -> Execution {
        let policy = rootcellar_proto::reapi::ExecutionPolicy {
            priority: options.priority,
        };
        let request = ExecuteRequest {
            instance_name: self.connection.instance_name(),
            skip_cache_lookup: options.skip_cache_lookup,
            action_digest: Some(to_proto(action)),
            execution_policy: (options.priority != 0).then_some(policy),
            digest_function: value(action.function()).into(),
            ..Default::default()
        };
        Execution {
            connection: self.connection.clone(),
            request,
            operation: None,
            updates: None,
            pauses: self.connection.retry().pauses(),
        }
    }
}

/// An action on its way. Dropping this does not end it; [`cancel`](Self::cancel) does.
#[derive(Debug)]
pub struct Execution {
    connection: Connection,
    request: ExecuteRequest,
    /// The name of the operation, once the server told it.
    operation: Option<String>,
    updates: Option<Streaming<Operation>>,
    pauses: Pauses,
}

impl Execution {
    /// Waits for the next that happens, up to [`Progress::Done`] or an error. A broken connection is made again, and the
    /// operation found by its name; an operation that the server has forgotten is begun anew. The caller bounds the time.
    ///
    /// # Errors
    /// What the server says about the request: [`ErrorKind::FailedPrecondition`] with the blobs that are
    /// [missing](Error::missing), for one.
    pub async fn next(&mut self) -> Result<Progress> {
        loop {
            match self.update().await {
                Ok(Some(update)) => {
                    self.pauses.reset();
                    self.operation = Some(update.name.clone());
                    return self.progress(update);
                }
                // A server may end a stream to get rid of an old connection.
                Ok(None) => self.lost(Status::unavailable("the stream ended early")).await?,
                Err(status) if self.is_forgotten(&status) => self.operation = None,
                Err(status) => self.lost(status).await?,
            }
        }
    }

    /// The name of the operation, once the server told it.
    pub fn operation(&self) -> Option<&str> {
        self.operation.as_deref()
    }

    /// Asks the server to end the action.
    ///
    /// # Errors
    /// What the server or the transport says; `UNIMPLEMENTED` is common.
    pub async fn cancel(&self) -> Result<()> {
        let Some(name) = self.operation.clone() else {
            return Ok(());
        };
        let client = OperationsClient::new(self.connection.channel());
        let cancel =
            |mut client: OperationsClient<Channel>, request| async move { client.cancel_operation(request).await };
        self.connection
            .unary(client, CancelOperationRequest { name }, cancel)
            .await
    }

    async fn update(&mut self) -> Result<Option<Operation>, Status> {
        if self.updates.is_none() {
            self.updates = Some(self.open().await?);
        }
        let updates = self.updates.as_mut().expect("opened just now if it was not");
        updates.message().await
    }

    async fn open(&self) -> Result<Streaming<Operation>, Status> {
        let mut client = ExecutionClient::new(self.connection.channel());
        let updates = match self.operation.clone() {
            Some(name) => client.wait_execution(WaitExecutionRequest { name }).await?,
            None => client.execute(self.request.clone()).await?,
        };
        Ok(updates.into_inner())
    }

    /// Whether the server lost the operation that it was asked about: then the action is run anew (WX-2).
    fn is_forgotten(&mut self, status: &Status) -> bool {
        let is_forgotten = status.code() == Code::NotFound && self.operation.is_some();
        if is_forgotten {
            self.updates = None;
        }
        is_forgotten
    }

    async fn lost(&mut self, status: Status) -> Result<()> {
        self.updates = None;
        let paused = self.pauses.pause_after(status).await;
        paused.map_err(|status| self.connection.error(&status))
    }

    fn progress(&self, update: Operation) -> Result<Progress> {
        if !update.done {
            let metadata = update.metadata.unwrap_or_default();
            // Without metadata the stage is unknown, and says so.
            let metadata = metadata.to_msg::<ExecuteOperationMetadata>().unwrap_or_default();
            return Ok(Progress::Stage(metadata.stage()));
        }
        match update.result {
            Some(operation::Result::Response(response)) => {
                let response: ExecuteResponse = response.to_msg().map_err(|error| {
                    let reason = "the operation's response is no ExecuteResponse";
                    Error::new(ErrorKind::Internal, reason)
                        .caused_by(error)
                        .about(&self.connection)
                })?;
                Ok(Progress::Done(Box::new(response)))
            }
            // The API forbids this, and some servers do it.
            Some(operation::Result::Error(status)) => {
                check_status(&status)?;
                Err(Error::new(
                    ErrorKind::Internal,
                    "the operation failed with the status OK",
                ))
            }
            None => {
                Err(Error::new(ErrorKind::Internal, "the operation ended without a result").about(&self.connection))
            }
        }
    }
}
