//! An action is followed to its end, whatever happens to the connections.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::stream::{self, BoxStream, StreamExt as _};
use prost::Message as _;
use prost_types::Any;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_grpc::client::{ExecuteOptions, Execution, Executor, Progress, check_status};
use rootcellar_proto::longrunning::{Operation, operation};
use rootcellar_proto::reapi::execution_server::{self, ExecutionServer};
use rootcellar_proto::reapi::execution_stage::Value as Stage;
use rootcellar_proto::reapi::{
    ActionResult, ExecuteOperationMetadata, ExecuteRequest, ExecuteResponse, WaitExecutionRequest,
};
use rootcellar_reapi::{Error, ErrorKind};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};

use crate::servers;

type Updates = Vec<Result<Operation, Status>>;

/// A server whose answers are written down beforehand, one for each call.
#[derive(Debug, Default)]
struct Script {
    answers: Mutex<VecDeque<Updates>>,
    calls: Mutex<Vec<String>>,
}

#[derive(Debug, Clone)]
struct Service(Arc<Script>);

impl Service {
    fn answer(&self, call: String) -> Result<Response<BoxStream<'static, Result<Operation, Status>>>, Status> {
        self.0.calls.lock().unwrap().push(call);
        let answer = self.0.answers.lock().unwrap().pop_front().unwrap();
        Ok(Response::new(stream::iter(answer).boxed()))
    }
}

#[tonic::async_trait]
impl execution_server::Execution for Service {
    type ExecuteStream = BoxStream<'static, Result<Operation, Status>>;
    type WaitExecutionStream = Self::ExecuteStream;

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<Self::ExecuteStream>, Status> {
        let request = request.into_inner();
        self.answer(format!("execute, skip {}", request.skip_cache_lookup))
    }

    async fn wait_execution(
        &self,
        request: Request<WaitExecutionRequest>,
    ) -> Result<Response<Self::WaitExecutionStream>, Status> {
        self.answer(format!("wait for {}", request.into_inner().name))
    }
}

fn at(stage: Stage) -> Result<Operation, Status> {
    let metadata = ExecuteOperationMetadata {
        stage: stage.into(),
        ..Default::default()
    };
    Ok(Operation {
        name: "operations/1".to_owned(),
        metadata: Some(Any::from_msg(&metadata).unwrap()),
        ..Default::default()
    })
}

fn done(response: &ExecuteResponse) -> Result<Operation, Status> {
    Ok(Operation {
        done: true,
        result: Some(operation::Result::Response(Any::from_msg(response).unwrap())),
        ..at(Stage::Completed)?
    })
}

fn exit_code(exit_code: i32) -> ExecuteResponse {
    ExecuteResponse {
        result: Some(ActionResult {
            exit_code,
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn start(answers: Vec<Updates>) -> (Arc<Script>, Execution) {
    let script = Arc::new(Script {
        answers: Mutex::new(answers.into()),
        ..Default::default()
    });
    let routes = Routes::default().add_service(ExecutionServer::new(Service(script.clone())));
    let executor = Executor::new(servers::connect(servers::any(routes).await).await);
    let mut options = ExecuteOptions::default();
    options.skip_cache_lookup = true;
    let action = Digest::of(DigestFunction::Sha256, b"action");
    (script, executor.execute(action, &options))
}

/// The stages that were seen, and how it ended.
async fn follow(mut execution: Execution) -> (Vec<Stage>, Result<i32, Error>) {
    let mut stages = Vec::new();
    loop {
        match execution.next().await {
            Ok(Progress::Stage(stage)) => stages.push(stage),
            Ok(Progress::Done(response)) => {
                let status = check_status(&response.status.clone().unwrap_or_default());
                return (stages, status.map(|()| response.result.unwrap().exit_code));
            }
            Err(error) => return (stages, Err(error)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_is_waited_for_over_broken_streams() {
    let (script, execution) = start(vec![
        vec![Err(Status::unavailable("starting"))],
        vec![at(Stage::Queued), Err(Status::unavailable("going down"))],
        vec![at(Stage::Executing)],
        vec![Err(Status::unavailable("starting"))],
        vec![at(Stage::Executing), done(&exit_code(7))],
    ])
    .await;
    let (stages, outcome) = follow(execution).await;
    assert_eq!(outcome.unwrap(), 7);
    assert_eq!(stages, [Stage::Queued, Stage::Executing, Stage::Executing]);
    let calls = script.calls.lock().unwrap().clone();
    assert_eq!(calls[..2], ["execute, skip true", "execute, skip true"]);
    assert_eq!(calls[2..], ["wait for operations/1"; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_the_server_has_forgotten_is_begun_anew() {
    let (script, execution) = start(vec![
        vec![at(Stage::Queued)],
        vec![Err(Status::not_found("no such operation"))],
        vec![done(&exit_code(0))],
    ])
    .await;
    assert_eq!(follow(execution).await.1.unwrap(), 0);
    assert_eq!(script.calls.lock().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_blobs_are_told_from_the_call_and_from_the_response() {
    let missing = vec![
        Digest::of(DigestFunction::Blake3, b"x"),
        Digest::of(DigestFunction::Blake3, b"y"),
    ];
    let status = Error::missing_blobs(missing.clone()).to_status();
    let details = status.encode_to_vec();
    let response = ExecuteResponse {
        status: Some(status),
        ..Default::default()
    };
    let call = Status::with_details(Code::FailedPrecondition, "missing", details.into());
    for answer in [done(&response), Err(call)] {
        let (_, execution) = start(vec![vec![answer]]).await;
        let error = follow(execution).await.1.unwrap_err();
        assert_eq!(
            (error.kind(), error.missing()),
            (ErrorKind::FailedPrecondition, &missing[..])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_get_better_is_not_tried_again() {
    for code in [Code::InvalidArgument, Code::NotFound, Code::Internal] {
        let (script, execution) = start(vec![vec![Err(Status::new(code, "no"))]]).await;
        assert!(follow(execution).await.1.is_err());
        assert_eq!(script.calls.lock().unwrap().len(), 1);
    }
}
