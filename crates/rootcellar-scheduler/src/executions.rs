//! The table of executions: work in flight, and the operations that wait for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rootcellar_digest::Digest;
use rootcellar_proto::reapi::ExecutedActionMetadata;

use crate::queues::Place;
use crate::task::ExecutionId;
use crate::{LeaseId, OperationStage, Requirements, Task, Time};

/// All executions, and which of them others may join.
#[derive(Debug, Default)]
pub(crate) struct Executions {
    by_id: BTreeMap<ExecutionId, Execution>,
    /// Only ever looked up: its order must not show in what the scheduler does.
    shared: HashMap<Digest, ExecutionId>,
    made: u64,
}

/// One action to be run once, however many ask for it.
#[derive(Debug)]
pub(crate) struct Execution {
    pub(crate) id: ExecutionId,
    pub(crate) action: Digest,
    pub(crate) requirements: Requirements,
    /// The most urgent one that any of its operations ever had.
    pub(crate) priority: i32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) submitted: Time,
    /// Never empty: the execution goes with its last operation.
    pub(crate) operations: BTreeSet<Arc<str>>,
    /// The attempt under way; `None` while it is queued.
    pub(crate) lease: Option<LeaseId>,
    pub(crate) lost_workers: u32,
    pub(crate) partial_metadata: Option<Arc<ExecutedActionMetadata>>,
    is_shared: bool,
}

impl Execution {
    /// Where it stands in the queues.
    pub(crate) const fn place(&self) -> Place {
        Place {
            priority: self.priority,
            execution: self.id,
        }
    }

    /// The stage of each of its operations.
    pub(crate) fn stage(&self) -> OperationStage {
        match self.lease {
            Some(_) => OperationStage::Executing(self.partial_metadata.clone()),
            None => OperationStage::Queued,
        }
    }
}

impl Executions {
    /// Adds one for the operation `name`.
    pub(crate) fn add(&mut self, name: Arc<str>, task: Task, now: Time) -> ExecutionId {
        let id = ExecutionId(self.made);
        self.made += 1;
        let is_shared = !task.do_not_cache;
        if is_shared {
            let replaced = self.shared.insert(task.action, id);
            assert!(replaced.is_none(), "an action has one shared execution at a time");
        }
        let execution = Execution {
            id,
            action: task.action,
            requirements: task.requirements,
            priority: task.priority,
            timeout: task.timeout,
            submitted: now,
            operations: BTreeSet::from([name]),
            lease: None,
            lost_workers: 0,
            partial_metadata: None,
            is_shared,
        };
        self.by_id.insert(id, execution);
        id
    }

    /// The execution in flight that may serve the task as well.
    pub(crate) fn to_share(&self, task: &Task) -> Option<ExecutionId> {
        if task.do_not_cache {
            return None;
        }
        self.shared.get(&task.action).copied()
    }

    pub(crate) fn get(&self, id: ExecutionId) -> &Execution {
        &self.by_id[&id]
    }

    pub(crate) fn get_mut(&mut self, id: ExecutionId) -> &mut Execution {
        self.by_id.get_mut(&id).expect("who holds an execution's id finds it")
    }

    /// Takes one out: from now on, nobody joins it.
    pub(crate) fn remove(&mut self, id: ExecutionId) -> Execution {
        let execution = self.by_id.remove(&id).expect("an execution ends once");
        if execution.is_shared {
            self.shared.remove(&execution.action);
        }
        execution
    }

    /// The oldest one.
    pub(crate) fn first(&self) -> Option<ExecutionId> {
        self.by_id.keys().next().copied()
    }
}
