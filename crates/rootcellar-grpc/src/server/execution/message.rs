//! Operations as messages.

use prost::Name;
use prost_types::Any;
use rootcellar_digest::Digest;
use rootcellar_proto::longrunning::Operation;
use rootcellar_proto::longrunning::operation::Result as Outcome;
use rootcellar_proto::reapi::execution_stage::Value as Stage;
use rootcellar_proto::reapi::{ExecuteOperationMetadata, ExecuteResponse};
use rootcellar_reapi::functions::{to_proto, value};
use rootcellar_scheduler::OperationState;

/// The operation that a state stands for, with the response as it is.
pub(super) fn of_state(state: &OperationState) -> Operation {
    let response = state.outcome().map(|response| (**response).clone());
    with_response(state, response)
}

/// The operation that a state stands for, with a response of its own.
pub(super) fn with_response(state: &OperationState, response: Option<ExecuteResponse>) -> Operation {
    let metadata = ExecuteOperationMetadata {
        partial_execution_metadata: state.partial_metadata().map(|metadata| (**metadata).clone()),
        ..metadata(state.action, state.stage())
    };
    Operation {
        name: state.name.to_string(),
        metadata: Some(packed(&metadata)),
        done: response.is_some(),
        // Never an error: what went wrong is the status of the response (EX-4).
        result: response.map(|response| Outcome::Response(packed(&response))),
    }
}

/// An operation whose action is being looked at.
pub(super) fn preparing(name: &str, action: Digest) -> Operation {
    Operation {
        name: name.to_owned(),
        metadata: Some(packed(&metadata(action, Stage::CacheCheck))),
        done: false,
        result: None,
    }
}

fn metadata(action: Digest, stage: Stage) -> ExecuteOperationMetadata {
    ExecuteOperationMetadata {
        stage: stage.into(),
        action_digest: Some(to_proto(action)),
        digest_function: value(action.function()).into(),
        ..Default::default()
    }
}

fn packed(message: &impl Name) -> Any {
    Any::from_msg(message).expect("a buffer in memory grows to hold any message")
}
