//! What clients do: submit, watch, ask for, cancel and forget operations.

use std::sync::Arc;

use rootcellar_digest::Digest;
use rootcellar_proto::reapi::ExecuteResponse;

use super::Scheduler;
use crate::task::ExecutionId;
use crate::{Error, OperationState, Result, Task, Time, outcome};

impl Scheduler {
    /// Starts an operation, whose name must be new: it joins the execution of its action in flight, or waits for a worker.
    /// Nobody watches it yet.
    ///
    /// # Errors
    /// [`Error::Unsatisfiable`] or [`Error::NoWorkers`] if no known worker could run it, [`Error::Full`], [`Error::NameTaken`], [`Error::Draining`].
    pub fn submit(&mut self, name: Arc<str>, task: Task, now: Time) -> Result<()> {
        self.at(now);
        self.admit(&name)?;
        if let Some(id) = self.executions.to_share(&task) {
            self.join_execution(id, name, &task);
            return Ok(());
        }
        self.admit_execution(&task)?;
        let action = task.action;
        let id = self.executions.add(Arc::clone(&name), task, now);
        self.operations.add(name, action, id, self.abandon_at());
        self.enqueue(id);
        Ok(())
    }

    /// Adds an operation that is finished as soon as it begins, such as one that the cache answers.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::NameTaken`], [`Error::Draining`].
    pub fn add_completed(
        &mut self,
        name: &Arc<str>,
        action: Digest,
        response: Arc<ExecuteResponse>,
        now: Time,
    ) -> Result<()> {
        self.at(now);
        self.admit(name)?;
        self.operations.add_finished(name, action, response, now, &self.policy);
        Ok(())
    }

    fn admit(&self, name: &str) -> Result<()> {
        let limit = self.policy.operations_max;
        if self.is_draining {
            return Err(Error::Draining);
        }
        if self.operations.contains(name) {
            return Err(Error::NameTaken(name.to_owned()));
        }
        if self.operations.unfinished() >= limit {
            let what = "unfinished operations";
            return Err(Error::Full { what, limit });
        }
        Ok(())
    }

    fn admit_execution(&self, task: &Task) -> Result<()> {
        if !self.policy.wait_for_unknown_platforms
            && let Some(refusal) = self.queues.refusal(&task.requirements)
        {
            return Err(refusal);
        }
        let limit = self.policy.queued_max;
        if self.queues.len() >= limit && self.queues.idle_for(&task.requirements).is_none() {
            let what = "actions waiting for a worker";
            return Err(Error::Full { what, limit });
        }
        Ok(())
    }

    fn join_execution(&mut self, id: ExecutionId, name: Arc<str>, task: &Task) {
        self.operations
            .add(Arc::clone(&name), task.action, id, self.abandon_at());
        self.hurry(id, task.priority);
        let execution = self.executions.get_mut(id);
        self.operations.advance(&name, execution.stage());
        execution.operations.insert(name);
    }

    /// Moves an execution forward in its queues, if `priority` is more urgent than its own.
    fn hurry(&mut self, id: ExecutionId, priority: i32) {
        let execution = self.executions.get_mut(id);
        if priority >= execution.priority {
            return;
        }
        let before = execution.place();
        execution.priority = priority;
        if execution.lease.is_none() {
            self.queues.remove(before);
            self.queues.push(execution.place(), execution.requirements.clone());
        }
    }

    /// Ends one operation with the status CANCELLED, and its execution if no other operation waits for that. One that is
    /// finished stays as it is.
    ///
    /// # Errors
    /// [`Error::NoSuchOperation`].
    pub fn cancel(&mut self, name: &str, now: Time) -> Result<()> {
        self.at(now);
        let state = self.operations.state(name)?;
        if !state.is_completed() {
            self.end_operation(&state.name, outcome::cancelled());
        }
        Ok(())
    }

    /// Ends one unfinished operation, and its execution if no other operation waits for that.
    pub(super) fn end_operation(&mut self, name: &Arc<str>, response: Arc<ExecuteResponse>) {
        let id = self.operations.execution(name);
        let operations = &mut self.executions.get_mut(id).operations;
        if operations.len() == 1 {
            return self.abort(id, &response);
        }
        operations.remove(name);
        self.finish_operation(name, response);
    }

    /// Forgets a finished operation.
    ///
    /// # Errors
    /// [`Error::NoSuchOperation`], [`Error::NotFinished`].
    pub fn delete(&mut self, name: &str, now: Time) -> Result<()> {
        self.at(now);
        self.operations.forget(name)
    }

    /// Counts in someone who watches the operation: while there is one, it is not abandoned.
    ///
    /// # Errors
    /// [`Error::NoSuchOperation`].
    pub fn watch(&mut self, name: &str, now: Time) -> Result<OperationState> {
        self.at(now);
        self.operations.watch(name)
    }

    /// Counts out someone who watched the operation.
    pub fn unwatch(&mut self, name: &Arc<str>, now: Time) {
        self.at(now);
        let abandon_at = self.abandon_at();
        self.operations.unwatch(name, abandon_at);
    }

    /// The operation as it is. Who asks from time to time keeps it from being abandoned, as who watches does.
    ///
    /// # Errors
    /// [`Error::NoSuchOperation`].
    pub fn ask(&mut self, name: &str, now: Time) -> Result<OperationState> {
        self.at(now);
        let state = self.operations.state(name)?;
        let abandon_at = self.abandon_at();
        self.operations.extend(&state.name, abandon_at);
        Ok(state)
    }

    /// Operations whose names begin with `prefix` and come after `after`, by name.
    pub fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> impl Iterator<Item = OperationState> + 'a {
        self.operations.list(prefix, after)
    }

    fn abandon_at(&self) -> Time {
        self.now.after(self.policy.unwatched_grace)
    }

    /// Abandons the operations that nobody watched for too long.
    pub(super) fn abandon_unwatched(&mut self) {
        while let Some(name) = self.operations.pop_unwatched(self.now) {
            self.end_operation(&name, outcome::abandoned());
        }
    }
}
