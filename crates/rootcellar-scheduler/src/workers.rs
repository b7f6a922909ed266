//! The table of workers: who is here, who waits for work, and who holds which lease.

use std::collections::{BTreeMap, BTreeSet};

use crate::deadlines::Deadlines;
use crate::queues::KindId;
use crate::task::ExecutionId;
use crate::{Error, LeaseId, Result, Ticket, Time, WorkerId, WorkerSpec};

/// All workers that joined and did not leave.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    by_id: BTreeMap<WorkerId, Worker>,
    tickets: BTreeMap<Ticket, WorkerId>,
    leases: BTreeMap<LeaseId, Held>,
    /// When each worker that owes heartbeats is looked at next.
    heartbeats: Deadlines<WorkerId>,
    made: u64,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) spec: WorkerSpec,
    pub(crate) kind: KindId,
    pub(crate) tickets: BTreeSet<Ticket>,
    pub(crate) leases: BTreeSet<LeaseId>,
    last_heard: Time,
}

#[derive(Debug)]
struct Held {
    worker: WorkerId,
    /// `None` once the work is not wanted any longer; the slot is taken until the worker has cleaned up.
    execution: Option<ExecutionId>,
}

impl Workers {
    /// How many are here.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many leases are held, those included whose work is not wanted any longer.
    pub(crate) fn leases(&self) -> usize {
        self.leases.len()
    }

    pub(crate) fn add(&mut self, spec: WorkerSpec, kind: KindId, now: Time) -> WorkerId {
        let id = WorkerId(self.next_id());
        if let Some(timeout) = spec.heartbeat_timeout {
            self.heartbeats.set(id, now.after(timeout));
        }
        let worker = Worker {
            spec,
            kind,
            tickets: BTreeSet::new(),
            leases: BTreeSet::new(),
            last_heard: now,
        };
        self.by_id.insert(id, worker);
        id
    }

    /// Takes a worker out, with its tickets; its leases are ended one by one with [`Self::end_lease`].
    ///
    /// # Errors
    /// [`Error::NoSuchWorker`].
    pub(crate) fn remove(&mut self, id: WorkerId) -> Result<Worker> {
        let worker = self.by_id.remove(&id).ok_or(Error::NoSuchWorker(id))?;
        self.heartbeats.clear(&id);
        for ticket in &worker.tickets {
            self.tickets.remove(ticket);
        }
        Ok(worker)
    }

    /// Notes that a worker is alive.
    ///
    /// # Errors
    /// [`Error::NoSuchWorker`].
    pub(crate) fn heard(&mut self, id: WorkerId, now: Time) -> Result<&Worker> {
        let worker = self.by_id.get_mut(&id).ok_or(Error::NoSuchWorker(id))?;
        worker.last_heard = now;
        Ok(worker)
    }

    /// Takes out the id of a worker that has been silent for too long. Whoever was heard meanwhile is looked at again later.
    pub(crate) fn pop_silent(&mut self, now: Time) -> Option<WorkerId> {
        while let Some(id) = self.heartbeats.pop_due(now) {
            let worker = &self.by_id[&id];
            let timeout = worker.spec.heartbeat_timeout.expect("it owes heartbeats");
            let due = worker.last_heard.after(timeout);
            if due <= now {
                return Some(id);
            }
            self.heartbeats.set(id, due);
        }
        None
    }

    /// Makes a ticket for one more lease.
    ///
    /// # Errors
    /// [`Error::NoFreeSlot`] if tickets and leases would be more than the slots.
    pub(crate) fn add_ticket(&mut self, id: WorkerId) -> Result<Ticket> {
        let ticket = Ticket(self.next_id());
        let worker = self.by_id.get_mut(&id).ok_or(Error::NoSuchWorker(id))?;
        let taken = worker.tickets.len() + worker.leases.len();
        if taken >= usize::try_from(worker.spec.slots.get()).unwrap_or(usize::MAX) {
            return Err(Error::NoFreeSlot(id));
        }
        worker.tickets.insert(ticket);
        self.tickets.insert(ticket, id);
        Ok(ticket)
    }

    /// Takes a ticket back, if it is still there, and says which kind its worker is.
    pub(crate) fn remove_ticket(&mut self, ticket: Ticket) -> Option<KindId> {
        let id = self.tickets.remove(&ticket)?;
        let worker = self.worker_mut(id);
        worker.tickets.remove(&ticket);
        Some(worker.kind)
    }

    /// The ticket that was made first, of those still there.
    pub(crate) fn first_ticket(&self) -> Option<Ticket> {
        self.tickets.keys().next().copied()
    }

    /// Turns a ticket into a lease on `execution`.
    pub(crate) fn redeem(&mut self, ticket: Ticket, execution: ExecutionId) -> (LeaseId, KindId) {
        let lease = LeaseId(self.next_id());
        let id = self.tickets.remove(&ticket).expect("a waiting ticket is known");
        let worker = self.worker_mut(id);
        worker.tickets.remove(&ticket);
        worker.leases.insert(lease);
        let kind = worker.kind;
        let held = Held {
            worker: id,
            execution: Some(execution),
        };
        self.leases.insert(lease, held);
        (lease, kind)
    }

    /// Marks a lease as not wanted any longer.
    pub(crate) fn revoke(&mut self, lease: LeaseId) {
        let held = self.leases.get_mut(&lease).expect("an execution's lease is held");
        held.execution = None;
    }

    /// The execution that `worker` holds by this lease; `None` if it is not wanted any longer.
    ///
    /// # Errors
    /// [`Error::NoSuchLease`] if it is not that worker's lease.
    pub(crate) fn execution(&self, worker: WorkerId, lease: LeaseId) -> Result<Option<ExecutionId>> {
        match self.leases.get(&lease) {
            Some(held) if held.worker == worker => Ok(held.execution),
            _ => Err(Error::NoSuchLease(lease)),
        }
    }

    /// Ends a lease, and says which execution it was for, if that is still wanted.
    ///
    /// # Errors
    /// [`Error::NoSuchLease`] if it is not that worker's lease.
    pub(crate) fn end_lease(&mut self, worker: WorkerId, lease: LeaseId) -> Result<Option<ExecutionId>> {
        let execution = self.execution(worker, lease)?;
        self.leases.remove(&lease);
        if let Some(worker) = self.by_id.get_mut(&worker) {
            worker.leases.remove(&lease);
        }
        Ok(execution)
    }

    fn worker_mut(&mut self, id: WorkerId) -> &mut Worker {
        self.by_id.get_mut(&id).expect("tickets go with their worker")
    }

    fn next_id(&mut self) -> u64 {
        self.made += 1;
        self.made
    }
}
