//! An operation as its client sees it.

use std::sync::Arc;

use rootcellar_digest::Digest;
use rootcellar_proto::reapi::execution_stage::Value;
use rootcellar_proto::reapi::{ExecuteResponse, ExecutedActionMetadata};

/// How far an operation is. Going back from executing to queued is no error: a worker was lost.
#[derive(Debug, Clone, PartialEq)]
pub enum OperationStage {
    /// Waiting for a worker.
    Queued,
    /// A worker runs the action; what it told about that so far.
    Executing(Option<Arc<ExecutedActionMetadata>>),
    /// Finished, for good, with this response.
    Completed(Arc<ExecuteResponse>),
}

/// An operation at some moment.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationState {
    /// The name that the front end gave it.
    pub name: Arc<str>,
    /// The digest of its `Action`.
    pub action: Digest,
    /// How far it is.
    pub stage: OperationStage,
}

impl OperationState {
    /// The stage as `ExecuteOperationMetadata` spells it.
    pub const fn stage(&self) -> Value {
        match self.stage {
            OperationStage::Queued => Value::Queued,
            OperationStage::Executing(_) => Value::Executing,
            OperationStage::Completed(_) => Value::Completed,
        }
    }

    /// Whether the operation is finished.
    pub const fn is_completed(&self) -> bool {
        matches!(self.stage, OperationStage::Completed(_))
    }

    /// The response, once there is one.
    pub const fn outcome(&self) -> Option<&Arc<ExecuteResponse>> {
        match &self.stage {
            OperationStage::Completed(response) => Some(response),
            _ => None,
        }
    }

    /// What is known of an execution that is going on.
    pub const fn partial_metadata(&self) -> Option<&Arc<ExecutedActionMetadata>> {
        match &self.stage {
            OperationStage::Executing(Some(metadata)) => Some(metadata),
            _ => None,
        }
    }
}
