//! What a scheduler must do, said once more and as plainly as possible.

mod effects;
mod events;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rootcellar_digest::Digest;
use rootcellar_proto::reapi::{ExecuteResponse, ExecutedActionMetadata};
use rootcellar_proto::rpc::Code;
use rootcellar_scheduler::{
    Counts, LeaseId, Offer, OperationStage, OperationState, Policy, Task, Ticket, Time, WorkerId, WorkerSpec,
};

/// The model of a scheduler.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) policy: Policy,
    pub(crate) now: Time,
    pub(crate) is_draining: bool,
    pub(crate) operations: BTreeMap<Arc<str>, Operation>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) tickets: BTreeMap<Ticket, WorkerId>,
    pub(crate) leases: BTreeMap<LeaseId, Held>,
    /// Work in flight, by order of submission.
    groups: BTreeMap<u64, Group>,
    groups_made: u64,
    latest_lease: Option<LeaseId>,
    /// Known platforms, and when those without workers are given up.
    platforms: BTreeMap<Offer, Option<Time>>,
    /// Work that the event puts back. Until that is done, what is less urgent may be handed out.
    put_back: BTreeSet<u64>,
    /// What must complete because of the event, and how.
    due: BTreeMap<Arc<str>, Ending>,
    pub(crate) completed: usize,
}

#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) action: Digest,
    pub(crate) watchers: usize,
    /// The group that it waits for, or how it finished.
    state: Result<u64, Finished>,
    /// When it was last watched or asked for.
    pub(crate) last_asked: Time,
}

#[derive(Debug, Clone)]
struct Finished {
    response: Arc<ExecuteResponse>,
    at: Time,
}

/// Operations that share an execution.
#[derive(Debug)]
struct Group {
    task: Task,
    submitted: Time,
    operations: BTreeSet<Arc<str>>,
    lease: Option<LeaseId>,
    lost_workers: u32,
    metadata: Option<Arc<ExecutedActionMetadata>>,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) spec: WorkerSpec,
    pub(crate) last_heard: Time,
}

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) worker: WorkerId,
    /// `None` once the work is not wanted any longer.
    group: Option<u64>,
}

/// How an operation must complete.
#[derive(Debug, Clone)]
enum Ending {
    Failed(Code),
    Finished(Arc<ExecuteResponse>),
}

/// What an event must return: nothing, or an error of this code.
pub(crate) type Expected = Result<(), Code>;

impl Model {
    pub(crate) fn new(policy: Policy) -> Self {
        let platforms = policy.platforms.iter().map(|offer| (offer.clone(), None));
        Self {
            platforms: platforms.collect(),
            policy,
            now: Time::START,
            is_draining: false,
            operations: BTreeMap::new(),
            workers: BTreeMap::new(),
            tickets: BTreeMap::new(),
            leases: BTreeMap::new(),
            groups: BTreeMap::new(),
            groups_made: 0,
            latest_lease: None,
            put_back: BTreeSet::new(),
            due: BTreeMap::new(),
            completed: 0,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let unfinished = self.operations.values().filter(|operation| operation.state.is_ok());
        let unfinished = unfinished.count();
        Counts {
            queued: self.queued(),
            leases: self.leases.len(),
            unfinished,
            finished: self.operations.len() - unfinished,
            workers: self.workers.len(),
        }
    }

    fn queued(&self) -> usize {
        self.groups.values().filter(|group| group.lease.is_none()).count()
    }

    /// Nothing waits for a worker that waits for it.
    pub(crate) fn check_that_nothing_starves(&self) {
        for group in self.groups.values().filter(|group| group.lease.is_none()) {
            for worker in self.tickets.values() {
                let offer = &self.workers[worker].spec.offer;
                assert!(
                    !offer.satisfies(&group.task.requirements),
                    "{group:?} waits for {worker:?}"
                );
            }
        }
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = OperationState> {
        self.operations.iter().map(|(name, operation)| OperationState {
            name: Arc::clone(name),
            action: operation.action,
            stage: match &operation.state {
                Ok(group) => self.groups[group].stage(),
                Err(finished) => OperationStage::Completed(Arc::clone(&finished.response)),
            },
        })
    }
}

impl Group {
    fn new(name: &Arc<str>, task: Task, submitted: Time) -> Self {
        Self {
            task,
            submitted,
            operations: BTreeSet::from([Arc::clone(name)]),
            lease: None,
            lost_workers: 0,
            metadata: None,
        }
    }

    fn stage(&self) -> OperationStage {
        match self.lease {
            Some(_) => OperationStage::Executing(self.metadata.clone()),
            None => OperationStage::Queued,
        }
    }
}

impl Worker {
    fn is_silent(&self, now: Time) -> bool {
        let timeout = self.spec.heartbeat_timeout;
        timeout.is_some_and(|timeout| self.last_heard.after(timeout) <= now)
    }
}
