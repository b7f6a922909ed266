//! A worker's session in the process of its scheduler.

use std::sync::Arc;

use async_trait::async_trait;
use rootcellar_proto::reapi::{ExecuteResponse, ExecutedActionMetadata};
use tokio::sync::oneshot;

use crate::dispatcher::Shared;
use crate::{Assignment, Error, LeaseId, Result, Ticket, WorkSession, WorkerId};

/// The stay of one worker, ended by dropping it.
#[derive(Debug)]
pub(crate) struct Session {
    shared: Arc<Shared>,
    worker: WorkerId,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, worker: WorkerId) -> Self {
        Self { shared, worker }
    }

    /// Asks for work; `None` if there will be none.
    fn request(&self) -> Result<Option<Request<'_>>> {
        let mut state = self.shared.lock();
        let ticket = match state.scheduler.ready(self.worker, self.shared.now()) {
            Ok(ticket) => ticket,
            Err(Error::Draining) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (sender, assignment) = oneshot::channel();
        state.waiting.insert(ticket, sender);
        self.shared.carry_out(&mut state);
        Ok(Some(Request {
            session: self,
            ticket,
            assignment,
        }))
    }
}

#[async_trait]
impl WorkSession for Session {
    async fn next(&self) -> Result<Option<Assignment>> {
        let Some(mut request) = self.request()? else {
            return Ok(None);
        };
        if let Ok(assignment) = (&mut request.assignment).await {
            return Ok(Some(assignment));
        }
        // Dismissed: the worker was given up, or there will be no more work.
        self.heartbeat().await?;
        Ok(None)
    }

    async fn progress(&self, lease: LeaseId, metadata: Arc<ExecutedActionMetadata>) -> Result<()> {
        self.shared
            .event(|scheduler, now| scheduler.progress(self.worker, lease, metadata, now))
    }

    async fn finish(&self, lease: LeaseId, response: Arc<ExecuteResponse>) -> Result<()> {
        let mut state = self.shared.lock();
        let outcome = state.scheduler.finish(self.worker, lease, &response, self.shared.now());
        if outcome.is_ok() {
            state.forget_lease(lease);
        }
        self.shared.carry_out(&mut state);
        outcome
    }

    async fn heartbeat(&self) -> Result<()> {
        self.shared
            .event(|scheduler, now| scheduler.heartbeat(self.worker, now))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(mut state) = self.shared.lock_to_drop() else {
            return;
        };
        let now = self.shared.now();
        match state.scheduler.leave(self.worker, now) {
            // A worker that was given up before has nothing to leave.
            Ok(()) | Err(_) => self.shared.carry_out(&mut state),
        }
    }
}

/// A request for work, which takes itself back when it is dropped.
struct Request<'a> {
    session: &'a Session,
    ticket: Ticket,
    assignment: oneshot::Receiver<Assignment>,
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let shared = &self.session.shared;
        let Some(mut state) = shared.lock_to_drop() else { return };
        let now = shared.now();
        if state.waiting.remove(&self.ticket).is_some() {
            state.scheduler.withdraw(self.ticket, now);
        } else if let Ok(assignment) = self.assignment.try_recv() {
            let lease = assignment.lease.id;
            // A worker that was given up meanwhile has nothing to give back.
            if state.scheduler.give_back(self.session.worker, lease, now).is_ok() {
                state.forget_lease(lease);
            }
        }
        shared.carry_out(&mut state);
    }
}
