//! Clients, workers and time, as they come.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::{ExecuteResponse, ExecutedActionMetadata};
use rootcellar_proto::rpc::Code;
use rootcellar_scheduler::{Error, LeaseId, Offer, Policy, Requirements, Scheduler, Task, Time, WorkerId, WorkerSpec};

use crate::model::{Expected, Model};
use crate::random::Random;

/// A scheduler, its model, and a source of events for both.
#[derive(Debug)]
pub(crate) struct World {
    random: Random,
    scheduler: Scheduler,
    model: Model,
    names_made: usize,
    /// Leases that once were, to report on them too late.
    old_leases: Vec<(WorkerId, LeaseId)>,
    checks: usize,
    is_replay: bool,
}

/// Comparing all operations takes as long as all the rest. What is wrong with one stays wrong until this many events later.
const LISTING_EVERY: usize = 8;

fn platforms() -> [Offer; 4] {
    let linux = Offer::new().os_family("linux");
    [
        linux.clone().isa("x86-64").network(true),
        linux.clone().isa("x86-64"),
        linux.isa("aarch64").unix_ids(0..=9),
        Offer::new().os_family("windows"),
    ]
}

fn requirements(n: usize) -> Requirements {
    let pairs: &[&[(&str, &str)]] = &[
        &[],
        &[("OSFamily", "linux")],
        &[("OSFamily", "linux"), ("ISA", "x86-64")],
        &[("OSFamily", "linux"), ("ISA", "x86-32"), ("network", "on")],
        &[("ISA", "arm-a64"), ("unixUID", "7")],
        &[("OSFamily", "windows")],
        &[("OSFamily", "plan9")],
    ];
    Requirements::new(pairs[n % pairs.len()].iter().copied()).unwrap()
}

fn action(n: usize) -> Digest {
    Digest::of(DigestFunction::Sha256, &n.to_le_bytes())
}

fn policy(random: &mut Random) -> Policy {
    let mut seconds = |end| Duration::from_secs(u64::try_from(random.below(end)).unwrap());
    let (platform_retention, finished_retention, unwatched_grace) = (seconds(60), seconds(60), seconds(120));
    Policy {
        platforms: platforms()[..random.below(4)].to_vec(),
        wait_for_unknown_platforms: random.one_in(3),
        platform_retention,
        platforms_max: 2 + random.below(3),
        queued_max: 1 + random.below(20),
        operations_max: 1 + random.below(40),
        workers_max: 1 + random.below(8),
        finished_retention: finished_retention.max(Duration::from_secs(1)),
        finished_max: 1 + random.below(30),
        finished_bytes_max: random.below(2000),
        unwatched_grace,
        lost_workers_max: u32::try_from(random.below(3)).unwrap(),
    }
}

fn codes<T>(outcome: Result<T, Error>) -> Expected {
    outcome.map(drop).map_err(|error| error.code())
}

impl World {
    pub(crate) fn new(mut random: Random, is_replay: bool) -> Self {
        let policy = policy(&mut random);
        Self {
            scheduler: Scheduler::new(policy.clone()),
            model: Model::new(policy),
            random,
            names_made: 0,
            old_leases: Vec::new(),
            checks: 0,
            is_replay,
        }
    }

    /// Lets something happen, and checks what comes of it.
    pub(crate) fn step(&mut self) {
        match self.random.below(100) {
            0..25 => self.submit(),
            25..28 => self.add_completed(),
            28..36 => self.watch(),
            36..41 => self.unwatch(),
            41..43 => self.ask(),
            43..50 => self.cancel(),
            50..52 => self.delete(),
            52..57 => self.join(),
            57..72 => self.ready(),
            72..74 => self.withdraw(),
            74..76 => self.give_back(),
            76..79 => self.progress(),
            79..90 => self.finish(),
            90..92 => self.heartbeat(),
            92..94 => self.leave(),
            94..99 => self.pass_time(),
            _ if self.random.one_in(20) => self.shut_down(),
            _ => self.pass_time(),
        }
        self.check();
    }

    /// Lets everything come to its end, and says how many operations did.
    pub(crate) fn end(mut self) -> usize {
        while let Some((worker, lease)) = self.any_lease() {
            self.finish_lease(worker, lease);
            self.check();
        }
        for name in self.names() {
            self.cancel_one(&name);
            self.check();
        }
        for worker in self.model.workers.keys().copied().collect::<Vec<_>>() {
            self.remove(worker);
            self.check();
        }
        self.model.now = self.model.now.after(Duration::from_secs(3600));
        self.tick();
        self.check();
        let counts = self.scheduler.counts();
        let everything = counts.queued + counts.leases + counts.unfinished + counts.finished + counts.workers;
        assert_eq!(everything, 0, "after all is done, nothing is left");
        self.model.completed
    }

    fn check(&mut self) {
        let effects: Vec<_> = std::iter::from_fn(|| self.scheduler.poll_effect()).collect();
        if self.is_replay {
            println!("    {effects:?}");
        }
        self.model.follow(&effects);
        self.model.check_that_nothing_starves();
        assert_eq!(self.scheduler.counts(), self.model.counts());
        self.checks += 1;
        if self.is_replay || self.checks.is_multiple_of(LISTING_EVERY) {
            assert!(self.scheduler.list("", None).eq(self.model.states()));
        }
    }

    fn note(&self, event: &str, subject: impl std::fmt::Debug) {
        if self.is_replay {
            println!("{:?} {event} {subject:?}", self.model.now.since(Time::START));
        }
    }
}

// Clients.
impl World {
    fn names(&self) -> Vec<Arc<str>> {
        self.model.operations.keys().cloned().collect()
    }

    /// An operation there is, or now and then one that there is not.
    fn any_name(&mut self) -> Arc<str> {
        let unknown = Arc::from("unknown");
        if self.random.one_in(20) {
            return unknown;
        }
        let names = self.names();
        self.random.pick(names.into_iter()).unwrap_or(unknown)
    }

    fn new_name(&mut self) -> Arc<str> {
        if self.random.one_in(30) {
            return self.any_name();
        }
        self.names_made += 1;
        // Not in order of time, as the names of a real server are not.
        Arc::from(format!("{:03}", self.names_made * 387 % 1000))
    }

    fn submit(&mut self) {
        let name = self.new_name();
        let n = self.random.below(14);
        let task = Task {
            action: action(n),
            requirements: requirements(n),
            priority: i32::try_from(self.random.below(3)).unwrap() - 1,
            timeout: None,
            do_not_cache: self.random.one_in(5),
        };
        self.note("submit", (&name, n, task.do_not_cache, task.priority));
        let expected = self.model.submit(&name, task.clone());
        let outcome = self.scheduler.submit(name, task, self.model.now);
        assert_eq!(codes(outcome), expected);
    }

    fn add_completed(&mut self) {
        let (name, action, response) = (self.new_name(), action(0), self.response());
        self.note("add completed", &name);
        let expected = self.model.add_completed(&name, action, &response);
        let outcome = self.scheduler.add_completed(&name, action, response, self.model.now);
        assert_eq!(codes(outcome), expected);
    }

    fn response(&mut self) -> Arc<ExecuteResponse> {
        Arc::new(ExecuteResponse {
            message: "x".repeat(self.random.below(100)),
            ..Default::default()
        })
    }

    fn watch(&mut self) {
        let name = self.any_name();
        self.note("watch", &name);
        let expected = self.model.watch(&name);
        assert_eq!(codes(self.scheduler.watch(&name, self.model.now)), expected);
    }

    fn unwatch(&mut self) {
        let watched = self
            .model
            .operations
            .iter()
            .filter(|(_, operation)| operation.watchers > 0);
        let watched: Vec<_> = watched.map(|(name, _)| Arc::clone(name)).collect();
        let Some(name) = self.random.pick(watched.into_iter()) else {
            return;
        };
        self.note("unwatch", &name);
        self.model.unwatch(&name);
        self.scheduler.unwatch(&name, self.model.now);
    }

    fn ask(&mut self) {
        let name = self.any_name();
        self.note("ask", &name);
        let expected = self.model.ask(&name);
        assert_eq!(codes(self.scheduler.ask(&name, self.model.now)), expected);
    }

    fn cancel(&mut self) {
        let name = self.any_name();
        self.cancel_one(&name);
    }

    fn cancel_one(&mut self, name: &Arc<str>) {
        self.note("cancel", name);
        let expected = self.model.cancel(name);
        assert_eq!(codes(self.scheduler.cancel(name, self.model.now)), expected);
    }

    fn delete(&mut self) {
        let name = self.any_name();
        self.note("delete", &name);
        let expected = self.model.delete(&name);
        assert_eq!(codes(self.scheduler.delete(&name, self.model.now)), expected);
    }
}

// Workers.
impl World {
    fn any_worker(&mut self) -> Option<WorkerId> {
        self.random.pick(self.model.workers.keys().copied())
    }

    fn any_lease(&mut self) -> Option<(WorkerId, LeaseId)> {
        let leases = self.model.leases.iter();
        self.random.pick(leases.map(|(lease, held)| (held.worker, *lease)))
    }

    /// A lease as a worker names it, which may be over, or another's.
    fn any_claim(&mut self) -> Option<(WorkerId, LeaseId)> {
        match self.random.below(10) {
            0 => self.random.pick(self.old_leases.iter().copied()),
            1 => Some((self.any_worker()?, self.any_lease()?.1)),
            _ => self.any_lease(),
        }
    }

    fn join(&mut self) {
        let offer = platforms()[self.random.below(4)].clone();
        let heartbeat = self.random.one_in(2).then(|| Duration::from_secs(20));
        let spec = WorkerSpec {
            slots: NonZeroU32::MIN.saturating_add(u32::try_from(self.random.below(3)).unwrap()),
            heartbeat_timeout: heartbeat,
            ..WorkerSpec::new("worker", offer)
        };
        self.note("join", &spec);
        let expected = self.model.admit_worker(&spec);
        let outcome = self.scheduler.join(spec.clone(), self.model.now);
        if let Ok(id) = &outcome {
            self.model.join(*id, spec);
        }
        assert_eq!(codes(outcome), expected);
    }

    fn ready(&mut self) {
        let Some(worker) = self.any_worker() else { return };
        self.note("ready", worker);
        let expected = self.model.admit_ticket(worker);
        let outcome = self.scheduler.ready(worker, self.model.now);
        if let Ok(ticket) = &outcome {
            self.model.tickets.insert(*ticket, worker);
        }
        assert_eq!(codes(outcome), expected);
    }

    fn withdraw(&mut self) {
        let Some(ticket) = self.random.pick(self.model.tickets.keys().copied()) else {
            return;
        };
        self.note("withdraw", ticket);
        self.model.tickets.remove(&ticket);
        self.scheduler.withdraw(ticket, self.model.now);
        // Who takes it back twice changes nothing.
        self.scheduler.withdraw(ticket, self.model.now);
    }

    fn give_back(&mut self) {
        let Some((worker, lease)) = self.any_claim() else {
            return;
        };
        self.note("give back", lease);
        let expected = self.model.end_lease(worker, lease, None);
        let outcome = self.scheduler.give_back(worker, lease, self.model.now);
        assert_eq!(codes(outcome), expected);
    }

    fn progress(&mut self) {
        let Some((worker, lease)) = self.any_claim() else {
            return;
        };
        self.note("progress", lease);
        let metadata = Arc::new(ExecutedActionMetadata {
            worker: self.random.below(1000).to_string(),
            ..Default::default()
        });
        let expected = self.model.progress(worker, lease, &metadata);
        let outcome = self.scheduler.progress(worker, lease, metadata, self.model.now);
        assert_eq!(codes(outcome), expected);
    }

    fn finish(&mut self) {
        if let Some((worker, lease)) = self.any_claim() {
            self.finish_lease(worker, lease);
        }
    }

    fn finish_lease(&mut self, worker: WorkerId, lease: LeaseId) {
        self.note("finish", lease);
        self.old_leases.push((worker, lease));
        let response = self.response();
        let expected = self.model.heartbeat(worker);
        let expected = expected.and_then(|()| self.model.end_lease(worker, lease, Some(&response)));
        let outcome = self.scheduler.finish(worker, lease, &response, self.model.now);
        assert_eq!(codes(outcome), expected);
    }

    fn heartbeat(&mut self) {
        let Some(worker) = self.any_worker() else { return };
        self.note("heartbeat", worker);
        let expected = self.model.heartbeat(worker);
        assert_eq!(codes(self.scheduler.heartbeat(worker, self.model.now)), expected);
    }

    fn leave(&mut self) {
        if let Some(worker) = self.any_worker() {
            self.remove(worker);
        }
    }

    fn remove(&mut self, worker: WorkerId) {
        self.note("leave", worker);
        let held = self.model.leases.iter().filter(|(_, held)| held.worker == worker);
        let held = held.map(|(lease, _)| (worker, *lease));
        self.old_leases.extend(held);
        let expected = self.model.leave(worker);
        assert_eq!(codes(self.scheduler.leave(worker, self.model.now)), expected);
        let again = self.scheduler.leave(worker, self.model.now);
        assert_eq!(codes(again), Err(Code::NotFound), "a worker leaves once");
    }
}

// Time.
impl World {
    fn pass_time(&mut self) {
        let end = if self.random.one_in(5) { 100 } else { 5 };
        let seconds = self.random.below(end);
        let passed = Duration::from_secs(u64::try_from(seconds).unwrap());
        self.model.now = self.model.now.after(passed);
        if self.random.one_in(2) {
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.note("tick", ());
        self.model.tick();
        self.scheduler.tick(self.model.now);
    }

    fn shut_down(&mut self) {
        self.note("shut down", ());
        if self.random.one_in(2) {
            self.model.drain();
            self.scheduler.drain(self.model.now);
        } else {
            self.model.stop();
            self.scheduler.stop(self.model.now);
        }
    }
}
