//! The scheduler's asynchronous shell: a lock, a clock, and the channels through which effects reach who waits for them.
//!
//! Each call takes the lock, tells the scheduler one event, and carries out the effects before it lets go. Nothing waits
//! under the lock, and all that is carried out there is the waking of others.

#[cfg(test)]
mod churn;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi::ExecuteResponse;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::session::Session;
use crate::{
    Assignment, Clock, Counts, Effect, LeaseId, OperationState, OperationWatch, Policy, Result, Scheduler, Task,
    Ticket, Time, WorkSession, WorkSource, WorkerSpec,
};

/// How often time is told to the scheduler. Patience is counted in minutes, so nobody notices.
const TICK: Duration = Duration::from_secs(1);

/// Operations of one page of a listing.
const PAGE_MAX: usize = 1000;

/// Runs a [`Scheduler`] for a server. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

/// What the dispatcher, its watches and its sessions share.
pub(crate) struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// The number of leases held, for who waits for the last one to end.
    leases: watch::Sender<usize>,
}

/// The scheduler, and who waits for its effects.
pub(crate) struct State {
    pub(crate) scheduler: Scheduler,
    /// For unfinished operations that are watched.
    pub(crate) feeds: HashMap<Arc<str>, watch::Sender<OperationState>>,
    /// For workers that wait; dropped when they are dismissed.
    pub(crate) waiting: HashMap<Ticket, oneshot::Sender<Assignment>>,
    /// For workers that hold a lease.
    cancellations: HashMap<LeaseId, CancellationToken>,
}

/// Some operations, and where the next ones begin.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationPage {
    /// The operations, by name.
    pub operations: Vec<OperationState>,
    /// The name to list after for more; `None` on the last page.
    pub next: Option<Arc<str>>,
}

impl Dispatcher {
    /// Makes a dispatcher without workers and operations.
    pub fn new(policy: Policy, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            scheduler: Scheduler::new(policy),
            feeds: HashMap::new(),
            waiting: HashMap::new(),
            cancellations: HashMap::new(),
        };
        let shared = Shared {
            clock,
            state: Mutex::new(state),
            leases: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Tells the scheduler the time, for ever. Without this running, nothing times out and nothing is forgotten.
    pub async fn keep_time(&self) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            self.tick();
        }
    }

    /// Tells the scheduler the time, once.
    pub fn tick(&self) {
        self.shared.event(Scheduler::tick);
    }

    /// Starts an operation under a new, unique name, and watches it. Who drops the watch does not cancel the operation.
    ///
    /// # Errors
    /// As [`Scheduler::submit`].
    pub fn submit(&self, name: impl Into<Arc<str>>, task: Task) -> Result<OperationWatch> {
        let name = name.into();
        let mut state = self.shared.lock();
        state.scheduler.submit(Arc::clone(&name), task, self.shared.now())?;
        self.shared.carry_out(&mut state);
        OperationWatch::open(&self.shared, &mut state, &name)
    }

    /// Adds an operation that is finished as soon as it begins, such as one that the cache answers.
    ///
    /// # Errors
    /// As [`Scheduler::add_completed`].
    pub fn add_completed(
        &self,
        name: impl Into<Arc<str>>,
        action: Digest,
        response: Arc<ExecuteResponse>,
    ) -> Result<OperationState> {
        let name = name.into();
        self.shared.event(|scheduler, now| {
            scheduler.add_completed(&name, action, response, now)?;
            scheduler.ask(&name, now)
        })
    }

    /// Watches an operation, finished or not. While someone does, it is not abandoned.
    ///
    /// # Errors
    /// [`Error::NoSuchOperation`](crate::Error::NoSuchOperation).
    pub fn watch(&self, name: &str) -> Result<OperationWatch> {
        OperationWatch::open(&self.shared, &mut self.shared.lock(), name)
    }

    /// The operation as it is now.
    ///
    /// # Errors
    /// [`Error::NoSuchOperation`](crate::Error::NoSuchOperation).
    pub fn get(&self, name: &str) -> Result<OperationState> {
        self.shared.event(|scheduler, now| scheduler.ask(name, now))
    }

    /// At most `limit` operations, and never more than 1,000, whose names begin with `prefix` and come after `after`.
    pub fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> OperationPage {
        let limit = limit.clamp(1, PAGE_MAX);
        let state = self.shared.lock();
        let mut rest = state.scheduler.list(prefix, after);
        let operations: Vec<_> = rest.by_ref().take(limit).collect();
        let last = operations.last().map(|last| Arc::clone(&last.name));
        let next = rest.next().and(last);
        OperationPage { operations, next }
    }

    /// Ends an operation with the status CANCELLED. One that is finished stays as it is.
    ///
    /// # Errors
    /// [`Error::NoSuchOperation`](crate::Error::NoSuchOperation).
    pub fn cancel(&self, name: &str) -> Result<()> {
        self.shared.event(|scheduler, now| scheduler.cancel(name, now))
    }

    /// Forgets a finished operation.
    ///
    /// # Errors
    /// [`Error::NoSuchOperation`](crate::Error::NoSuchOperation), [`Error::NotFinished`](crate::Error::NotFinished).
    pub fn delete(&self, name: &str) -> Result<()> {
        self.shared.event(|scheduler, now| scheduler.delete(name, now))
    }

    /// How much there is of everything.
    pub fn counts(&self) -> Counts {
        self.shared.lock().scheduler.counts()
    }

    /// Shuts down: takes no more work, lets what runs go on for `patience`, and ends the rest. Returns when every operation
    /// is finished; workers then may still have to clean up. If this is dropped, what runs goes on.
    pub async fn drain(&self, patience: Duration) {
        self.shared.event(Scheduler::drain);
        let mut leases = self.shared.leases.subscribe();
        let last_lease_ends = leases.wait_for(|held| *held == 0);
        // Either all is done or time is up: both end in the same way.
        drop(tokio::time::timeout(patience, last_lease_ends).await);
        self.shared.event(Scheduler::stop);
    }
}

#[async_trait]
impl WorkSource for Dispatcher {
    async fn join(&self, spec: WorkerSpec) -> Result<Box<dyn WorkSession>> {
        let worker = self.shared.event(|scheduler, now| scheduler.join(spec, now))?;
        Ok(Box::new(Session::new(Arc::clone(&self.shared), worker)))
    }
}

impl Shared {
    /// Tells the scheduler an event of this moment, and carries out what follows from it.
    pub(crate) fn event<T>(&self, event: impl FnOnce(&mut Scheduler, Time) -> T) -> T {
        let mut state = self.lock();
        let outcome = event(&mut state.scheduler, self.now());
        self.carry_out(&mut state);
        outcome
    }

    /// The current moment; to be asked under the lock, so that events are told in order.
    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// Carries out the effects that have come up.
    pub(crate) fn carry_out(&self, state: &mut State) {
        while let Some(effect) = state.scheduler.poll_effect() {
            state.carry_out(effect);
        }
        let held = state.scheduler.counts().leases;
        self.leases
            .send_if_modified(|leases| std::mem::replace(leases, held) != held);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the scheduler does not panic under the lock")
    }

    /// Takes the lock to clean up. `None` after a panic under it: then a second one, in `drop`, would end the whole process.
    pub(crate) fn lock_to_drop(&self) -> Option<MutexGuard<'_, State>> {
        self.state.lock().ok()
    }
}

impl State {
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Changed(operation) => self.publish(operation),
            Effect::Assigned { ticket, lease } => self.assign(ticket, lease),
            Effect::Dismissed(ticket) => drop(self.waiting.remove(&ticket)),
            Effect::Revoked(lease) => {
                if let Some(token) = self.cancellations.remove(&lease) {
                    token.cancel();
                }
            }
            Effect::WorkerLost { worker, leases } => {
                tracing::warn!(worker, leases, "worker was silent for too long and is given up");
            }
        }
    }

    fn publish(&mut self, operation: OperationState) {
        if operation.is_completed() {
            // A watch still reads what was sent last after its sender is gone.
            if let Some(feed) = self.feeds.remove(&operation.name) {
                feed.send_replace(operation);
            }
        } else if let Some(feed) = self.feeds.get(&operation.name) {
            feed.send_replace(operation);
        }
    }

    fn assign(&mut self, ticket: Ticket, lease: crate::Lease) {
        let cancelled = CancellationToken::new();
        self.cancellations.insert(lease.id, cancelled.clone());
        let waiting = self.waiting.remove(&ticket).expect("who holds a ticket waits");
        let sent = waiting.send(Assignment { lease, cancelled });
        sent.expect("a request takes itself back before it goes");
    }

    /// Forgets how to cancel a lease that has ended.
    pub(crate) fn forget_lease(&mut self, lease: LeaseId) {
        self.cancellations.remove(&lease);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
