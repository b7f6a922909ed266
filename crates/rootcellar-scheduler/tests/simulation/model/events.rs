//! Events, as the scheduler is told them.

use std::sync::Arc;

use rootcellar_digest::Digest;
use rootcellar_proto::reapi::{ExecuteResponse, ExecutedActionMetadata};
use rootcellar_proto::rpc::Code;
use rootcellar_scheduler::{LeaseId, Requirements, Task, WorkerId, WorkerSpec};

use super::{Ending, Expected, Finished, Group, Model, Operation, Worker};

impl Model {
    pub(crate) fn submit(&mut self, name: &Arc<str>, task: Task) -> Expected {
        self.admit(name)?;
        let shared = self
            .groups
            .iter_mut()
            .find(|(_, group)| !task.do_not_cache && !group.task.do_not_cache && group.task.action == task.action);
        let (action, id) = (task.action, shared.as_ref().map_or(self.groups_made, |(id, _)| **id));
        if let Some((_, group)) = shared {
            group.operations.insert(Arc::clone(name));
            group.task.priority = group.task.priority.min(task.priority);
        } else {
            self.admit_group(&task.requirements)?;
            self.groups_made += 1;
            self.groups.insert(id, Group::new(name, task, self.now));
        }
        self.add(name, action, Ok(id));
        Ok(())
    }

    fn admit(&self, name: &str) -> Expected {
        let unfinished = self.operations.values().filter(|operation| operation.state.is_ok());
        match () {
            () if self.is_draining => Err(Code::Unavailable),
            () if self.operations.contains_key(name) => Err(Code::AlreadyExists),
            () if unfinished.count() >= self.policy.operations_max => Err(Code::ResourceExhausted),
            () => Ok(()),
        }
    }

    fn admit_group(&self, requirements: &Requirements) -> Expected {
        let has_idle_worker = self
            .tickets
            .values()
            .any(|worker| self.workers[worker].spec.offer.satisfies(requirements));
        match () {
            () if !self.may_run(requirements) => Err(Code::FailedPrecondition),
            () if self.queued() >= self.policy.queued_max && !has_idle_worker => Err(Code::ResourceExhausted),
            () => Ok(()),
        }
    }

    fn may_run(&self, requirements: &Requirements) -> bool {
        self.policy.wait_for_unknown_platforms || self.platforms.keys().any(|offer| offer.satisfies(requirements))
    }

    pub(crate) fn add_completed(
        &mut self,
        name: &Arc<str>,
        action: Digest,
        response: &Arc<ExecuteResponse>,
    ) -> Expected {
        self.admit(name)?;
        let at = self.now;
        let response = Arc::clone(response);
        self.add(name, action, Err(Finished { response, at }));
        self.completed += 1;
        self.forget_beyond_bounds();
        Ok(())
    }

    fn add(&mut self, name: &Arc<str>, action: Digest, state: Result<u64, Finished>) {
        let operation = Operation {
            action,
            watchers: 0,
            state,
            last_asked: self.now,
        };
        self.operations.insert(Arc::clone(name), operation);
    }

    pub(crate) fn cancel(&mut self, name: &Arc<str>) -> Expected {
        let operation = self.operations.get(name).ok_or(Code::NotFound)?;
        if operation.state.is_ok() {
            self.due.insert(Arc::clone(name), Ending::Failed(Code::Cancelled));
        }
        Ok(())
    }

    pub(crate) fn delete(&mut self, name: &Arc<str>) -> Expected {
        let operation = self.operations.get(name).ok_or(Code::NotFound)?;
        if operation.state.is_ok() {
            return Err(Code::FailedPrecondition);
        }
        self.operations.remove(name);
        Ok(())
    }

    pub(crate) fn watch(&mut self, name: &Arc<str>) -> Expected {
        let operation = self.operations.get_mut(name).ok_or(Code::NotFound)?;
        operation.watchers += 1;
        Ok(())
    }

    pub(crate) fn unwatch(&mut self, name: &Arc<str>) {
        let operation = self.operations.get_mut(name).unwrap();
        operation.watchers -= 1;
        operation.last_asked = self.now;
    }

    pub(crate) fn ask(&mut self, name: &Arc<str>) -> Expected {
        let operation = self.operations.get_mut(name).ok_or(Code::NotFound)?;
        operation.last_asked = self.now;
        Ok(())
    }

    pub(crate) fn admit_worker(&self, spec: &WorkerSpec) -> Expected {
        let is_new = !self.platforms.contains_key(&spec.offer);
        if self.workers.len() >= self.policy.workers_max || is_new && self.platforms.len() >= self.policy.platforms_max
        {
            return Err(Code::ResourceExhausted);
        }
        Ok(())
    }

    pub(crate) fn join(&mut self, id: WorkerId, spec: WorkerSpec) {
        self.platforms.insert(spec.offer.clone(), None);
        let last_heard = self.now;
        let replaced = self.workers.insert(id, Worker { spec, last_heard });
        assert!(replaced.is_none(), "the name of a worker is new");
    }

    pub(crate) fn admit_ticket(&mut self, id: WorkerId) -> Expected {
        self.heartbeat(id)?;
        let tickets = self.tickets.values().filter(|worker| **worker == id).count();
        let leases = self.leases.values().filter(|held| held.worker == id).count();
        let slots = usize::try_from(self.workers[&id].spec.slots.get()).unwrap();
        match () {
            () if self.is_draining => Err(Code::Unavailable),
            () if tickets + leases >= slots => Err(Code::FailedPrecondition),
            () => Ok(()),
        }
    }

    pub(crate) fn heartbeat(&mut self, id: WorkerId) -> Expected {
        let worker = self.workers.get_mut(&id).ok_or(Code::NotFound)?;
        worker.last_heard = self.now;
        Ok(())
    }

    /// Ends a lease; its work goes back, or is finished with `response`.
    pub(crate) fn end_lease(
        &mut self,
        id: WorkerId,
        lease: LeaseId,
        response: Option<&Arc<ExecuteResponse>>,
    ) -> Expected {
        if self.leases.get(&lease).is_none_or(|held| held.worker != id) {
            return Err(Code::NotFound);
        }
        let held = self.leases.remove(&lease).unwrap();
        let Some(group) = held.group else { return Ok(()) };
        self.groups.get_mut(&group).unwrap().lease = None;
        match response {
            Some(response) => self.complete_group(group, &Ending::Finished(Arc::clone(response))),
            None => self.requeue(group),
        }
        Ok(())
    }

    fn requeue(&mut self, id: u64) {
        self.put_back.insert(id);
        let group = self.groups.get_mut(&id).unwrap();
        group.lease = None;
        group.metadata = None;
        if self.is_draining {
            self.fail_group(id, Code::Unavailable);
        }
    }

    pub(crate) fn progress(
        &mut self,
        id: WorkerId,
        lease: LeaseId,
        metadata: &Arc<ExecutedActionMetadata>,
    ) -> Expected {
        self.heartbeat(id)?;
        let held = self.leases.get(&lease).filter(|held| held.worker == id);
        if let Some(group) = held.ok_or(Code::NotFound)?.group {
            self.groups.get_mut(&group).unwrap().metadata = Some(Arc::clone(metadata));
        }
        Ok(())
    }

    pub(crate) fn leave(&mut self, id: WorkerId) -> Expected {
        let worker = self.workers.remove(&id).ok_or(Code::NotFound)?;
        let offer = worker.spec.offer;
        let is_last = !self.workers.values().any(|other| other.spec.offer == offer);
        if is_last && !self.policy.platforms.contains(&offer) {
            let retention = self.policy.platform_retention;
            self.platforms.insert(offer, Some(self.now.after(retention)));
        }
        let held: Vec<_> = self.leases.iter().filter(|(_, held)| held.worker == id).collect();
        for lease in held.into_iter().map(|(lease, _)| *lease).collect::<Vec<_>>() {
            self.lose(lease);
        }
        Ok(())
    }

    fn lose(&mut self, lease: LeaseId) {
        let held = self.leases.remove(&lease).unwrap();
        let Some(id) = held.group else { return };
        let group = self.groups.get_mut(&id).unwrap();
        group.lease = None;
        group.lost_workers += 1;
        if group.lost_workers > self.policy.lost_workers_max {
            self.fail_group(id, Code::Unavailable);
        } else {
            self.requeue(id);
        }
    }

    pub(crate) fn tick(&mut self) {
        let now = self.now;
        let silent: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.is_silent(now))
            .collect();
        let silent: Vec<_> = silent.into_iter().map(|(id, _)| *id).collect();
        for id in silent {
            self.leave(id).unwrap();
        }
        let grace = self.policy.unwatched_grace;
        for (name, operation) in &self.operations {
            let is_unwatched = operation.watchers == 0 && operation.last_asked.after(grace) <= now;
            if is_unwatched && operation.state.is_ok() {
                self.due
                    .entry(Arc::clone(name))
                    .or_insert(Ending::Failed(Code::Cancelled));
            }
        }
        let retention = self.policy.finished_retention;
        self.operations.retain(|_, operation| match &operation.state {
            Err(finished) => finished.at.after(retention) > now,
            Ok(_) => true,
        });
        self.give_up_platforms();
    }

    fn give_up_platforms(&mut self) {
        let now = self.now;
        self.platforms.retain(|_, due| due.is_none_or(|due| due > now));
        let waiting: Vec<_> = self.groups.iter().filter(|(_, group)| group.lease.is_none()).collect();
        let stranded = waiting
            .into_iter()
            .filter(|(_, group)| !self.may_run(&group.task.requirements));
        for id in stranded.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.fail_group(id, Code::FailedPrecondition);
        }
    }

    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
        let waiting = self.groups.iter().filter(|(_, group)| group.lease.is_none());
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.fail_group(id, Code::Unavailable);
        }
    }

    pub(crate) fn stop(&mut self) {
        self.drain();
        for id in self.groups.keys().copied().collect::<Vec<_>>() {
            self.fail_group(id, Code::Unavailable);
        }
    }

    fn fail_group(&mut self, id: u64, code: Code) {
        self.complete_group(id, &Ending::Failed(code));
    }

    fn complete_group(&mut self, id: u64, ending: &Ending) {
        for name in &self.groups[&id].operations {
            self.due.entry(Arc::clone(name)).or_insert_with(|| ending.clone());
        }
    }
}
