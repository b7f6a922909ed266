//! The responses of executions that no worker finished. `Operation.error` is never used: a failure is a response with a status.

use std::sync::Arc;

use rootcellar_proto::reapi::ExecuteResponse;
use rootcellar_proto::rpc::{Code, Status};

use crate::Error;

/// Makes the response of an execution that failed with `status`, and so has no result.
pub fn failed(status: Status) -> Arc<ExecuteResponse> {
    Arc::new(ExecuteResponse {
        status: Some(status),
        ..Default::default()
    })
}

pub(crate) fn cancelled() -> Arc<ExecuteResponse> {
    ended(Code::Cancelled, "the operation was cancelled")
}

pub(crate) fn abandoned() -> Arc<ExecuteResponse> {
    ended(
        Code::Cancelled,
        "the operation was cancelled, as nobody waited for it any longer",
    )
}

pub(crate) fn workers_lost(count: u32) -> Arc<ExecuteResponse> {
    let message = format!("each worker that ran the action was lost, {count} so far: try again later");
    ended(Code::Unavailable, message)
}

pub(crate) fn shutting_down() -> Arc<ExecuteResponse> {
    ended(Code::Unavailable, "the server is shutting down: try again later")
}

pub(crate) fn refused(reason: &Error) -> Arc<ExecuteResponse> {
    ended(reason.code(), reason.to_string())
}

fn ended(code: Code, message: impl Into<String>) -> Arc<ExecuteResponse> {
    failed(Status {
        code: code.into(),
        message: message.into(),
        details: Vec::new(),
    })
}
