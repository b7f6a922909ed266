//! Effects, as the scheduler tells them.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message;
use rootcellar_scheduler::{Effect, Lease, LeaseId, OperationStage, OperationState, Ticket, WorkerId};

use super::{Ending, Finished, Group, Held, Model};

impl Model {
    /// Follows the effects of one event, and checks that nothing is missing and nothing too much.
    pub(crate) fn follow(&mut self, effects: &[Effect]) {
        for (n, effect) in effects.iter().enumerate() {
            match effect {
                Effect::Assigned { ticket, lease } => self.assigned(*ticket, lease, &effects[n + 1..]),
                Effect::Changed(state) => self.changed(state),
                Effect::Dismissed(ticket) => self.dismissed(*ticket),
                Effect::Revoked(lease) => self.revoked(*lease, &effects[n + 1..]),
                Effect::WorkerLost { .. } => {}
                other => panic!("{other:?} is new to the model"),
            }
        }
        assert!(self.due.is_empty(), "{:?} did not complete", self.due);
        self.put_back.clear();
    }

    fn assigned(&mut self, ticket: Ticket, lease: &Lease, rest: &[Effect]) {
        let worker = self.tickets.remove(&ticket).expect("who gets work has asked for it");
        let shown: BTreeSet<_> = rest.iter().map_while(executing).collect();
        let first = shown.first().expect("who waits for the work is told");
        let id = *self.operations[*first].state.as_ref().expect("it is not finished");
        self.check_choice(id, worker, ticket);
        let group = self.groups.get_mut(&id).unwrap();
        assert!(group.lease.is_none(), "an execution has one lease at a time");
        assert!(
            shown.into_iter().eq(&group.operations),
            "all operations of an execution see it"
        );
        assert!(
            !group.task.do_not_cache || group.operations.len() == 1,
            "an action that is not cached is not shared"
        );
        assert_eq!((lease.action, lease.timeout), (group.task.action, group.task.timeout));
        assert_eq!(lease.attempt, group.lost_workers + 1);
        assert_eq!(lease.waited, self.now.since(group.submitted));
        assert!(
            self.latest_lease.is_none_or(|latest| latest < lease.id),
            "a lease is new"
        );
        self.latest_lease = Some(lease.id);
        group.lease = Some(lease.id);
        let group = Some(id);
        self.leases.insert(lease.id, Held { worker, group });
    }

    /// The most urgent and then oldest of what waits comes first, and the worker that waited longest gets it.
    fn check_choice(&self, id: u64, worker: WorkerId, ticket: Ticket) {
        let offer = &self.workers[&worker].spec.offer;
        let requirements = &self.groups[&id].task.requirements;
        assert!(offer.satisfies(requirements), "a worker gets what it can run");
        let urgency = |(id, group): (&u64, &Group)| (group.task.priority, *id);
        let more_urgent = self.groups.iter().find(|entry| {
            let is_due = entry.1.operations.iter().any(|name| self.due.contains_key(name));
            let fits = offer.satisfies(&entry.1.task.requirements);
            let waits = entry.1.lease.is_none() && !is_due && !self.put_back.contains(entry.0);
            waits && fits && urgency(*entry) < urgency((&id, &self.groups[&id]))
        });
        assert!(more_urgent.is_none(), "{more_urgent:?} had to be first");
        let mut older = self.tickets.iter().filter(|(other, _)| **other < ticket);
        assert!(
            !older.any(|(_, worker)| self.workers[worker].spec.offer.satisfies(requirements)),
            "the worker that waited longest is next"
        );
    }

    fn changed(&mut self, state: &OperationState) {
        let OperationStage::Completed(response) = &state.stage else {
            let operation = &self.operations[&state.name];
            assert!(operation.state.is_ok(), "a finished operation does not change");
            return;
        };
        match self.due.remove(&state.name) {
            Some(Ending::Finished(due)) => assert_eq!(*response, due),
            Some(Ending::Failed(due)) => assert_eq!(response.status.as_ref().unwrap().code, i32::from(due)),
            None => panic!("{} completed for no reason", state.name),
        }
        let at = self.now;
        let response = Arc::clone(response);
        let operation = self.operations.get_mut(&state.name).unwrap();
        let group = std::mem::replace(&mut operation.state, Err(Finished { response, at }));
        let group = group.expect("an operation completes once");
        self.remove_from_group(group, &state.name);
        self.completed += 1;
        self.forget_beyond_bounds();
    }

    fn remove_from_group(&mut self, id: u64, name: &Arc<str>) {
        let group = self.groups.get_mut(&id).unwrap();
        group.operations.remove(name);
        if group.operations.is_empty() {
            let is_running = group.lease.is_some_and(|lease| self.leases[&lease].group.is_some());
            assert!(!is_running, "work that nobody waits for is revoked");
            self.groups.remove(&id);
        }
    }

    fn dismissed(&mut self, ticket: Ticket) {
        let worker = self.tickets.remove(&ticket).expect("a ticket is dismissed once");
        assert!(
            self.is_draining || !self.workers.contains_key(&worker),
            "who waits is dismissed for a reason"
        );
    }

    fn revoked(&mut self, lease: LeaseId, rest: &[Effect]) {
        // A lease that was lost with its worker is not in the table any longer.
        let Some(held) = self.leases.get_mut(&lease) else {
            return;
        };
        let id = held.group.take().expect("work is revoked once");
        let completed = rest.iter().filter(|effect| match effect {
            Effect::Changed(state) => state.is_completed() && self.groups[&id].operations.contains(&state.name),
            _ => false,
        });
        assert_eq!(
            completed.count(),
            self.groups[&id].operations.len(),
            "work is revoked when nobody waits for it"
        );
    }

    pub(super) fn forget_beyond_bounds(&mut self) {
        loop {
            let finished = self.operations.iter().filter_map(|(name, operation)| {
                let finished = operation.state.as_ref().err()?;
                Some((finished.at, name, finished.response.encoded_len()))
            });
            let finished: Vec<_> = finished.collect();
            let bytes: usize = finished.iter().map(|(_, _, bytes)| bytes).sum();
            let is_within = finished.len() <= self.policy.finished_max
                && (finished.len() <= 1 || bytes <= self.policy.finished_bytes_max);
            if is_within {
                return;
            }
            let oldest = finished.into_iter().min().map(|(_, name, _)| Arc::clone(name));
            self.operations.remove(&oldest.unwrap());
        }
    }
}

fn executing(effect: &Effect) -> Option<&Arc<str>> {
    match effect {
        Effect::Changed(state) if matches!(state.stage, OperationStage::Executing(_)) => Some(&state.name),
        _ => None,
    }
}
