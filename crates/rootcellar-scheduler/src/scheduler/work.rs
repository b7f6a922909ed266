//! What workers do: join, ask for work, report on it, and leave.

use std::sync::Arc;

use rootcellar_proto::reapi::{ExecuteResponse, ExecutedActionMetadata};

use super::{Effect, Scheduler};
use crate::task::ExecutionId;
use crate::workers::Worker;
use crate::{Error, LeaseId, Result, Ticket, Time, WorkerId, WorkerSpec, outcome};

impl Scheduler {
    /// Lets a worker in.
    ///
    /// # Errors
    /// [`Error::Full`] if there are too many workers, or too many different platforms.
    pub fn join(&mut self, spec: WorkerSpec, now: Time) -> Result<WorkerId> {
        self.at(now);
        let limit = self.policy.workers_max;
        if self.workers.len() >= limit {
            return Err(Error::Full { what: "workers", limit });
        }
        let kind = self.queues.add_worker(&spec.offer, self.policy.platforms_max)?;
        Ok(self.workers.add(spec, kind, now))
    }

    /// Notes that a worker can take one more lease, which an [`Effect::Assigned`] with the ticket will bring.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::NoSuchWorker`], [`Error::NoFreeSlot`].
    pub fn ready(&mut self, worker: WorkerId, now: Time) -> Result<Ticket> {
        self.at(now);
        let kind = self.workers.heard(worker, now)?.kind;
        if self.is_draining {
            return Err(Error::Draining);
        }
        let ticket = self.workers.add_ticket(worker)?;
        match self.queues.first_for(kind) {
            Some(place) => {
                self.queues.remove(place);
                self.assign(place.execution, ticket);
            }
            None => self.queues.add_idle(kind, ticket),
        }
        Ok(ticket)
    }

    /// Takes back a request for work. One that was served or dismissed already does not matter.
    pub fn withdraw(&mut self, ticket: Ticket, now: Time) {
        self.at(now);
        if let Some(kind) = self.workers.remove_ticket(ticket) {
            self.queues.remove_idle(kind, ticket);
        }
    }

    /// Puts an execution back that never reached its worker. That is nobody's fault and does not count as a loss.
    ///
    /// # Errors
    /// [`Error::NoSuchLease`] if the worker does not hold it.
    pub fn give_back(&mut self, worker: WorkerId, lease: LeaseId, now: Time) -> Result<()> {
        self.at(now);
        if let Some(id) = self.workers.end_lease(worker, lease)? {
            self.requeue(id);
        }
        Ok(())
    }

    /// Notes how far a worker is. Of work that is not wanted any longer, it does not matter.
    ///
    /// # Errors
    /// [`Error::NoSuchWorker`], [`Error::NoSuchLease`] if the worker does not hold it.
    pub fn progress(
        &mut self,
        worker: WorkerId,
        lease: LeaseId,
        metadata: Arc<ExecutedActionMetadata>,
        now: Time,
    ) -> Result<()> {
        self.at(now);
        self.workers.heard(worker, now)?;
        if let Some(id) = self.workers.execution(worker, lease)? {
            self.executions.get_mut(id).partial_metadata = Some(metadata);
            self.show(id);
        }
        Ok(())
    }

    /// Ends a lease and frees its slot. The response completes the operations, if the work is still wanted.
    ///
    /// # Errors
    /// [`Error::NoSuchWorker`], [`Error::NoSuchLease`] if the worker does not hold it: it was given up meanwhile, and the
    /// response is another attempt's to give.
    pub fn finish(
        &mut self,
        worker: WorkerId,
        lease: LeaseId,
        response: &Arc<ExecuteResponse>,
        now: Time,
    ) -> Result<()> {
        self.at(now);
        self.workers.heard(worker, now)?;
        if let Some(id) = self.workers.end_lease(worker, lease)? {
            self.conclude(id, response);
        }
        Ok(())
    }

    /// Notes that a worker is alive. Every other report of it does as much.
    ///
    /// # Errors
    /// [`Error::NoSuchWorker`].
    pub fn heartbeat(&mut self, worker: WorkerId, now: Time) -> Result<()> {
        self.at(now);
        self.workers.heard(worker, now).map(drop)
    }

    /// Lets a worker go. What it still had to do goes back to the queue.
    ///
    /// # Errors
    /// [`Error::NoSuchWorker`].
    pub fn leave(&mut self, worker: WorkerId, now: Time) -> Result<()> {
        self.at(now);
        let gone = self.let_go(worker)?;
        self.lose_leases(worker, gone);
        Ok(())
    }

    /// Gives up the workers that were silent for too long: first all of them, then what they held, so that nothing is given
    /// from one to the next.
    pub(super) fn lose_silent_workers(&mut self) {
        let mut all_gone = Vec::new();
        while let Some(id) = self.workers.pop_silent(self.now) {
            let gone = self.let_go(id).expect("a silent worker did not leave");
            self.effects.push_back(Effect::WorkerLost {
                worker: gone.spec.name.clone(),
                leases: gone.leases.len(),
            });
            all_gone.push((id, gone));
        }
        for (id, gone) in all_gone {
            self.lose_leases(id, gone);
        }
    }

    fn let_go(&mut self, id: WorkerId) -> Result<Worker> {
        let worker = self.workers.remove(id)?;
        for ticket in &worker.tickets {
            self.queues.remove_idle(worker.kind, *ticket);
            self.effects.push_back(Effect::Dismissed(*ticket));
        }
        let retention = self.policy.platform_retention;
        self.queues.remove_worker(worker.kind, self.now, retention);
        Ok(worker)
    }

    fn lose_leases(&mut self, id: WorkerId, gone: Worker) {
        for lease in gone.leases {
            self.lose_lease(id, lease);
        }
    }

    fn lose_lease(&mut self, worker: WorkerId, lease: LeaseId) {
        let execution = self
            .workers
            .end_lease(worker, lease)
            .expect("a worker's leases are its own");
        let Some(id) = execution else { return };
        self.effects.push_back(Effect::Revoked(lease));
        let execution = self.executions.get_mut(id);
        execution.lost_workers += 1;
        let lost = execution.lost_workers;
        if lost > self.policy.lost_workers_max {
            return self.conclude(id, &outcome::workers_lost(lost));
        }
        self.requeue(id);
    }

    /// Lets an execution wait once more, where it stood before.
    fn requeue(&mut self, id: ExecutionId) {
        let execution = self.executions.get_mut(id);
        execution.lease = None;
        execution.partial_metadata = None;
        self.show(id);
        self.enqueue(id);
    }
}
