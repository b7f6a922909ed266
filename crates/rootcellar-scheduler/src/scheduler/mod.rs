//! The state machine: events in, effects out.
//!
//! Every method is an event and takes the moment at which it happened. What the world has to do about it is collected as
//! [`Effect`]s, which the caller takes out with [`Scheduler::poll_effect`] after each event. The events come from three sides:
//! clients (`clients.rs`), workers (`work.rs`), and time itself (`upkeep.rs`). This file has what they share: the few
//! moves of an execution.
//!
//! ```text
//!              ┌────────── lost, given back ◄─────────┐
//!   submit ──► queued ──────────── assign ──────────► leased ──── finish ────► concluded
//!              └── cancelled, drained, stranded ──────┴─ cancelled, stopped ─────┘
//! ```

mod clients;
mod upkeep;
mod work;

use std::collections::VecDeque;
use std::sync::Arc;

use rootcellar_proto::reapi::ExecuteResponse;

use crate::executions::Executions;
use crate::operations::Operations;
use crate::outcome;
use crate::queues::PlatformQueues;
use crate::task::ExecutionId;
use crate::workers::Workers;
use crate::{Lease, LeaseId, OperationState, Policy, Ticket, Time};

/// Decides which worker runs which action when.
///
/// It promises, and its simulation checks:
/// 1. Every operation that was submitted completes exactly once, or is still on its way.
/// 2. An execution has one lease at a time.
/// 3. No execution waits while a worker waits that could run it.
/// 4. An action with `do_not_cache` has an execution of its own.
/// 5. Ending one operation changes nothing for the others of its execution.
/// 6. Everything it holds is bounded by its [`Policy`].
#[derive(Debug)]
pub struct Scheduler {
    policy: Policy,
    operations: Operations,
    executions: Executions,
    queues: PlatformQueues,
    workers: Workers,
    effects: VecDeque<Effect>,
    is_draining: bool,
    now: Time,
}

/// What has to be done in the world because of an event.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Effect {
    /// Who watches this operation should see it.
    Changed(OperationState),
    /// The worker that asked with this ticket gets this work.
    Assigned {
        /// What the worker asked with.
        ticket: Ticket,
        /// What it has to do.
        lease: Lease,
    },
    /// The worker that asked with this ticket gets nothing: it is gone, or there will be no more work.
    Dismissed(Ticket),
    /// The work under this lease is not wanted any longer: kill it.
    Revoked(LeaseId),
    /// A worker was silent for too long.
    WorkerLost {
        /// The name from its [`WorkerSpec`](crate::WorkerSpec).
        worker: String,
        /// How many leases it held.
        leases: usize,
    },
}

/// How much there is of everything, for people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Executions waiting for a worker.
    pub queued: usize,
    /// Leases that workers hold, those included whose work is not wanted any longer.
    pub leases: usize,
    /// Operations that are not finished.
    pub unfinished: usize,
    /// Operations that are finished and not forgotten.
    pub finished: usize,
    /// Workers connected.
    pub workers: usize,
}

impl Scheduler {
    /// Makes a scheduler without workers and operations.
    pub fn new(policy: Policy) -> Self {
        Self {
            queues: PlatformQueues::new(&policy.platforms),
            policy,
            operations: Operations::default(),
            executions: Executions::default(),
            workers: Workers::default(),
            effects: VecDeque::new(),
            is_draining: false,
            now: Time::START,
        }
    }

    /// Takes out the next thing to do in the world, in the order in which they came up.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// How much there is of everything.
    pub fn counts(&self) -> Counts {
        Counts {
            queued: self.queues.len(),
            leases: self.workers.leases(),
            unfinished: self.operations.unfinished(),
            finished: self.operations.finished(),
            workers: self.workers.len(),
        }
    }

    /// Notes the moment of an event.
    fn at(&mut self, now: Time) {
        assert!(now >= self.now, "time does not go back");
        self.now = now;
    }

    /// Lets an execution without a lease wait for a worker, or gives it to one that waits.
    fn enqueue(&mut self, id: ExecutionId) {
        if self.is_draining {
            return self.conclude(id, &outcome::shutting_down());
        }
        let execution = self.executions.get(id);
        match self.queues.idle_for(&execution.requirements) {
            Some(ticket) => self.assign(id, ticket),
            None => self.queues.push(execution.place(), execution.requirements.clone()),
        }
    }

    /// Gives an execution that is in no queue to the worker with this ticket.
    fn assign(&mut self, id: ExecutionId, ticket: Ticket) {
        let (lease, kind) = self.workers.redeem(ticket, id);
        self.queues.remove_idle(kind, ticket);
        let now = self.now;
        let execution = self.executions.get_mut(id);
        assert!(execution.lease.is_none(), "an execution has one lease at a time");
        execution.lease = Some(lease);
        let lease = Lease {
            id: lease,
            action: execution.action,
            timeout: execution.timeout,
            waited: now.since(execution.submitted),
            attempt: execution.lost_workers + 1,
        };
        self.effects.push_back(Effect::Assigned { ticket, lease });
        self.show(id);
    }

    /// Tells everyone who watches the execution's operations how far they are.
    fn show(&mut self, id: ExecutionId) {
        let execution = self.executions.get(id);
        for name in &execution.operations {
            let state = self.operations.advance(name, execution.stage());
            self.effects.push_back(Effect::Changed(state));
        }
    }

    /// Ends an execution that is in no queue and holds no lease, and all its operations with it.
    fn conclude(&mut self, id: ExecutionId, response: &Arc<ExecuteResponse>) {
        let execution = self.executions.remove(id);
        for name in &execution.operations {
            self.finish_operation(name, Arc::clone(response));
        }
    }

    /// Ends an execution wherever it is.
    fn abort(&mut self, id: ExecutionId, response: &Arc<ExecuteResponse>) {
        self.stop_work(id);
        self.conclude(id, response);
    }

    /// Takes an execution out of the queues, or from its worker.
    fn stop_work(&mut self, id: ExecutionId) {
        let execution = self.executions.get(id);
        if let Some(lease) = execution.lease {
            self.workers.revoke(lease);
            self.effects.push_back(Effect::Revoked(lease));
        } else {
            self.queues.remove(execution.place());
        }
    }

    fn finish_operation(&mut self, name: &Arc<str>, response: Arc<ExecuteResponse>) {
        let state = self.operations.finish(name, response, self.now, &self.policy);
        self.effects.push_back(Effect::Changed(state));
    }
}
