//! The table of operations: each one's stage, who watches it, and when it is forgotten.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use prost::Message;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi::ExecuteResponse;

use crate::deadlines::Deadlines;
use crate::task::ExecutionId;
use crate::{Error, OperationStage, OperationState, Policy, Result, Time};

/// All operations, by name.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    by_name: BTreeMap<Arc<str>, Operation>,
    /// Unfinished ones that nobody watches, until they are abandoned.
    unwatched: Deadlines<Arc<str>>,
    /// Finished ones, until they are forgotten.
    finished: Deadlines<Arc<str>>,
    finished_bytes: usize,
}

#[derive(Debug)]
struct Operation {
    action: Digest,
    stage: OperationStage,
    /// What it waits for; `None` once it is finished.
    execution: Option<ExecutionId>,
    watchers: usize,
    /// Bytes of the response, once it is finished.
    response_bytes: usize,
}

impl Operations {
    /// How many are not finished.
    pub(crate) fn unfinished(&self) -> usize {
        self.by_name.len() - self.finished.len()
    }

    /// How many are finished and not forgotten.
    pub(crate) fn finished(&self) -> usize {
        self.finished.len()
    }

    /// Whether there is one of this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Adds one that waits for `execution` and that nobody watches yet.
    pub(crate) fn add(&mut self, name: Arc<str>, action: Digest, execution: ExecutionId, abandon_at: Time) {
        self.unwatched.set(Arc::clone(&name), abandon_at);
        let operation = Operation::new(action, Some(execution));
        let replaced = self.by_name.insert(name, operation);
        assert!(replaced.is_none(), "the name of an operation is free when it is added");
    }

    /// Adds one that is finished already.
    pub(crate) fn add_finished(
        &mut self,
        name: &Arc<str>,
        action: Digest,
        response: Arc<ExecuteResponse>,
        now: Time,
        policy: &Policy,
    ) {
        let operation = Operation::new(action, None);
        let replaced = self.by_name.insert(Arc::clone(name), operation);
        assert!(replaced.is_none(), "the name of an operation is free when it is added");
        self.finish(name, response, now, policy);
    }

    /// The operation at this moment.
    ///
    /// # Errors
    /// [`Error::NoSuchOperation`].
    pub(crate) fn state(&self, name: &str) -> Result<OperationState> {
        let (name, operation) = self
            .by_name
            .get_key_value(name)
            .ok_or_else(|| Error::NoSuchOperation(name.to_owned()))?;
        Ok(state_of(name, operation))
    }

    /// The execution that an unfinished operation waits for.
    pub(crate) fn execution(&self, name: &str) -> ExecutionId {
        let execution = self.by_name[name].execution;
        execution.expect("an unfinished operation has an execution")
    }

    /// Operations whose names begin with `prefix` and come after `after`, by name.
    pub(crate) fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = OperationState> + 'a {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.by_name
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, operation)| state_of(name, operation))
    }

    /// Moves an unfinished operation to another stage, and says how it is now.
    pub(crate) fn advance(&mut self, name: &Arc<str>, stage: OperationStage) -> OperationState {
        let operation = self.by_name.get_mut(name).expect("an execution's operations exist");
        assert!(
            operation.execution.is_some(),
            "the stage of a finished operation changes no more"
        );
        operation.stage = stage;
        state_of(name, operation)
    }

    /// Finishes an operation and says how it is now. The oldest finished ones are forgotten if there are too many.
    pub(crate) fn finish(
        &mut self,
        name: &Arc<str>,
        response: Arc<ExecuteResponse>,
        now: Time,
        policy: &Policy,
    ) -> OperationState {
        let operation = self.by_name.get_mut(name).expect("an execution's operations exist");
        assert!(!operation.is_finished(), "an operation finishes once");
        operation.response_bytes = response.encoded_len();
        self.finished_bytes += operation.response_bytes;
        operation.execution = None;
        operation.stage = OperationStage::Completed(response);
        let state = state_of(name, operation);
        self.unwatched.clear(name);
        self.finished
            .set(Arc::clone(name), now.after(policy.finished_retention));
        self.forget_beyond(policy);
        state
    }

    fn forget_beyond(&mut self, policy: &Policy) {
        while self.finished.len() > policy.finished_max
            || (self.finished.len() > 1 && self.finished_bytes > policy.finished_bytes_max)
        {
            let name = self.finished.pop().expect("the set is not empty");
            self.remove_finished(&name);
        }
    }

    /// Counts in a watcher, and says how the operation is.
    ///
    /// # Errors
    /// [`Error::NoSuchOperation`].
    pub(crate) fn watch(&mut self, name: &str) -> Result<OperationState> {
        let state = self.state(name)?;
        self.unwatched.clear(&state.name);
        self.get_mut(name)?.watchers += 1;
        Ok(state)
    }

    /// Counts out a watcher. One of an operation forgotten meanwhile does not matter.
    pub(crate) fn unwatch(&mut self, name: &Arc<str>, abandon_at: Time) {
        if let Ok(operation) = self.get_mut(name) {
            operation.watchers = operation.watchers.saturating_sub(1);
            self.extend(name, abandon_at);
        }
    }

    /// Lets an operation that nobody watches go on until `abandon_at`.
    pub(crate) fn extend(&mut self, name: &Arc<str>, abandon_at: Time) {
        let operation = self.by_name.get(name);
        if operation.is_some_and(|operation| operation.watchers == 0 && !operation.is_finished()) {
            self.unwatched.set(Arc::clone(name), abandon_at);
        }
    }

    /// Takes out the name of an operation that nobody watched for long.
    pub(crate) fn pop_unwatched(&mut self, now: Time) -> Option<Arc<str>> {
        self.unwatched.pop_due(now)
    }

    /// Forgets the operations that finished long ago.
    pub(crate) fn forget_due(&mut self, now: Time) {
        while let Some(name) = self.finished.pop_due(now) {
            self.remove_finished(&name);
        }
    }

    /// Forgets a finished operation.
    ///
    /// # Errors
    /// [`Error::NoSuchOperation`], [`Error::NotFinished`].
    pub(crate) fn forget(&mut self, name: &str) -> Result<()> {
        let state = self.state(name)?;
        if !state.is_completed() {
            return Err(Error::NotFinished(name.to_owned()));
        }
        self.finished.clear(&state.name);
        self.remove_finished(name);
        Ok(())
    }

    fn remove_finished(&mut self, name: &str) {
        let operation = self.by_name.remove(name).expect("a finished operation is in the table");
        self.finished_bytes -= operation.response_bytes;
    }

    fn get_mut(&mut self, name: &str) -> Result<&mut Operation> {
        let operation = self.by_name.get_mut(name);
        operation.ok_or_else(|| Error::NoSuchOperation(name.to_owned()))
    }
}

impl Operation {
    const fn new(action: Digest, execution: Option<ExecutionId>) -> Self {
        Self {
            action,
            stage: OperationStage::Queued,
            execution,
            watchers: 0,
            response_bytes: 0,
        }
    }

    const fn is_finished(&self) -> bool {
        matches!(self.stage, OperationStage::Completed(_))
    }
}

fn state_of(name: &Arc<str>, operation: &Operation) -> OperationState {
    OperationState {
        name: Arc::clone(name),
        action: operation.action,
        stage: operation.stage.clone(),
    }
}
