//! The promises of the scheduler, one small history each. `simulation` tests them in all mixtures.

#![allow(clippy::unwrap_used)]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::ExecuteResponse;
use rootcellar_proto::reapi::execution_stage::Value as Stage;
use rootcellar_proto::rpc::Code;
use rootcellar_scheduler::{
    Effect, Error, Lease, LeaseId, Offer, Policy, Requirements, Result, Scheduler, Task, Time, WorkerId, WorkerSpec,
};

const SECOND: Duration = Duration::from_secs(1);

/// A scheduler with a clock and a memory of its effects.
struct Bench {
    scheduler: Scheduler,
    now: Time,
    effects: Vec<Effect>,
}

fn linux() -> Offer {
    Offer::new().os_family("linux")
}

fn policy() -> Policy {
    Policy {
        platforms: vec![linux()],
        ..Policy::default()
    }
}

fn task(action: &str) -> Task {
    Task {
        action: Digest::of(DigestFunction::Sha256, action.as_bytes()),
        requirements: Requirements::default(),
        priority: 0,
        timeout: None,
        do_not_cache: false,
    }
}

fn response(message: &str) -> Arc<ExecuteResponse> {
    Arc::new(ExecuteResponse {
        message: message.to_owned(),
        ..Default::default()
    })
}

impl Bench {
    fn new(policy: Policy) -> Self {
        Self {
            scheduler: Scheduler::new(policy),
            now: Time::START,
            effects: Vec::new(),
        }
    }

    fn after<T>(&mut self, outcome: T) -> T {
        self.effects.clear();
        self.effects.extend(std::iter::from_fn(|| self.scheduler.poll_effect()));
        outcome
    }

    fn submit(&mut self, name: &str, task: Task) -> Result<()> {
        let outcome = self.scheduler.submit(name.into(), task, self.now);
        self.after(outcome)
    }

    fn cancel(&mut self, name: &str) {
        let outcome = self.scheduler.cancel(name, self.now);
        self.after(outcome).unwrap();
    }

    fn join_with(&mut self, offer: Offer) -> WorkerId {
        let spec = WorkerSpec::new("worker", offer);
        self.scheduler.join(spec, self.now).unwrap()
    }

    fn join(&mut self) -> WorkerId {
        self.join_with(linux())
    }

    fn ready(&mut self, worker: WorkerId) -> Option<Lease> {
        let outcome = self.scheduler.ready(worker, self.now);
        self.after(outcome).unwrap();
        self.assigned()
    }

    /// What the last event handed out.
    fn assigned(&self) -> Option<Lease> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Assigned { lease, .. } => Some(lease.clone()),
            _ => None,
        })
    }

    fn finish(&mut self, worker: WorkerId, lease: LeaseId, message: &str) -> Result<()> {
        let outcome = self.scheduler.finish(worker, lease, &response(message), self.now);
        self.after(outcome)
    }

    fn leave(&mut self, worker: WorkerId) {
        let outcome = self.scheduler.leave(worker, self.now);
        self.after(outcome).unwrap();
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.scheduler.tick(self.now);
        self.after(());
    }

    fn stage(&mut self, name: &str) -> Stage {
        self.scheduler.ask(name, self.now).unwrap().stage()
    }

    fn is_forgotten(&mut self, name: &str) -> bool {
        self.scheduler.ask(name, self.now) == Err(Error::NoSuchOperation(name.to_owned()))
    }

    /// The code and the message with which an operation completed.
    fn outcome(&mut self, name: &str) -> (Code, String) {
        let state = self.scheduler.ask(name, self.now).unwrap();
        let response = state.outcome().unwrap();
        match &response.status {
            Some(status) => (Code::try_from(status.code).unwrap(), status.message.clone()),
            None => (Code::Ok, response.message.clone()),
        }
    }
}

#[test]
fn operations_for_the_same_action_share_one_execution() {
    let mut bench = Bench::new(policy());
    bench.submit("a", task("x")).unwrap();
    bench.submit("b", task("x")).unwrap();
    let worker = bench.join();
    let lease = bench.ready(worker).unwrap();
    bench.submit("c", task("x")).unwrap();
    assert_eq!(bench.stage("c"), Stage::Executing, "it joins what runs already");
    assert_eq!(bench.scheduler.counts().queued, 0);
    bench.finish(worker, lease.id, "done").unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(bench.outcome(name), (Code::Ok, "done".to_owned()));
    }
    bench.submit("d", task("x")).unwrap();
    assert_eq!(bench.stage("d"), Stage::Queued, "what is finished is not joined");
}

#[test]
fn an_action_that_is_not_to_be_cached_has_an_execution_of_its_own() {
    let mut bench = Bench::new(policy());
    let uncached = Task {
        do_not_cache: true,
        ..task("x")
    };
    bench.submit("a", uncached.clone()).unwrap();
    bench.submit("b", uncached).unwrap();
    bench.submit("c", task("x")).unwrap();
    assert_eq!(bench.scheduler.counts().queued, 3);
}

#[test]
fn cancelling_an_operation_leaves_the_others_of_its_execution_alone() {
    let mut bench = Bench::new(policy());
    bench.submit("a", task("x")).unwrap();
    bench.submit("b", task("x")).unwrap();
    let worker = bench.join();
    let lease = bench.ready(worker).unwrap().id;
    bench.cancel("a");
    assert_eq!(bench.outcome("a").0, Code::Cancelled);
    assert_eq!(bench.stage("b"), Stage::Executing);
    assert!(!bench.effects.contains(&Effect::Revoked(lease)));
    bench.cancel("b");
    assert!(bench.effects.contains(&Effect::Revoked(lease)));
    bench.submit("c", task("x")).unwrap();
    assert_eq!(bench.stage("c"), Stage::Queued, "what is being killed is not joined");
    bench.finish(worker, lease, "too late").unwrap();
    assert_eq!(bench.outcome("b").0, Code::Cancelled);
    bench.cancel("b");
    assert_eq!(bench.outcome("b").0, Code::Cancelled, "a second time changes nothing");
}

#[test]
fn the_most_urgent_and_then_the_oldest_comes_first() {
    let mut bench = Bench::new(policy());
    for (name, priority) in [
        ("a", 1),
        ("b", 0),
        ("c", -1),
        ("d", 0),
        ("e", i32::MIN),
        ("f", i32::MAX),
    ] {
        let task = Task { priority, ..task(name) };
        bench.submit(name, task).unwrap();
    }
    let order = ["e", "c", "b", "d", "a", "f"];
    for name in order {
        let worker = bench.join();
        assert_eq!(bench.ready(worker).unwrap().action, task(name).action);
    }
}

#[test]
fn an_urgent_operation_hurries_the_execution_that_it_joins() {
    let mut bench = Bench::new(policy());
    bench.submit("a", task("x")).unwrap();
    bench.submit("b", task("y")).unwrap();
    let urgent = Task {
        priority: -1,
        ..task("y")
    };
    bench.submit("c", urgent).unwrap();
    let worker = bench.join();
    assert_eq!(bench.ready(worker).unwrap().action, task("y").action);
}

#[test]
fn an_execution_whose_worker_is_lost_runs_again_and_first() {
    let mut bench = Bench::new(policy());
    bench.submit("a", task("x")).unwrap();
    let (first, second) = (bench.join(), bench.join());
    let lost = bench.ready(first).unwrap();
    bench.submit("b", task("y")).unwrap();
    bench.wait(SECOND);
    bench.leave(first);
    assert_eq!(bench.stage("a"), Stage::Queued);
    let lease = bench.ready(second).unwrap();
    assert_eq!((lease.action, lease.attempt, lease.waited), (lost.action, 2, SECOND));
    assert_eq!(bench.finish(first, lost.id, "late"), Err(Error::NoSuchWorker(first)));
    assert_eq!(
        bench.finish(second, lost.id, "late"),
        Err(Error::NoSuchLease(lost.id)),
        "a lost lease is nobody's"
    );
    bench.finish(second, lease.id, "done").unwrap();
    assert_eq!(bench.outcome("a"), (Code::Ok, "done".to_owned()));
}

#[test]
fn an_action_that_kills_its_workers_does_not_kill_them_all() {
    let mut bench = Bench::new(policy());
    bench.submit("a", task("x")).unwrap();
    for attempt in 1..=4 {
        let worker = bench.join();
        assert_eq!(bench.ready(worker).unwrap().attempt, attempt);
        bench.leave(worker);
    }
    assert_eq!(bench.outcome("a").0, Code::Unavailable);
    assert_eq!(bench.scheduler.counts().queued, 0);
}

/// What one silent worker held was once handed to the next one, which fell silent at the same time. So the loss of a rack
/// counted as several, and the execution failed without ever having been tried again.
#[test]
fn workers_that_fall_silent_together_are_one_loss() {
    let mut bench = Bench::new(policy());
    bench.submit("a", task("x")).unwrap();
    for _ in 0..10 {
        let spec = WorkerSpec {
            heartbeat_timeout: Some(10 * SECOND),
            ..WorkerSpec::new("rack", linux())
        };
        let worker = bench.scheduler.join(spec, bench.now).unwrap();
        bench.ready(worker);
    }
    bench.wait(10 * SECOND);
    assert_eq!(bench.scheduler.counts().workers, 0);
    let worker = bench.join();
    assert_eq!(bench.ready(worker).unwrap().attempt, 2);
}

#[test]
fn a_worker_holds_as_many_leases_as_it_has_slots() {
    let mut bench = Bench::new(policy());
    for name in ["a", "b", "c"] {
        bench.submit(name, task(name)).unwrap();
    }
    let spec = WorkerSpec {
        slots: NonZeroU32::new(2).unwrap(),
        ..WorkerSpec::new("worker", linux())
    };
    let worker = bench.scheduler.join(spec, bench.now).unwrap();
    let lease = bench.ready(worker).unwrap();
    bench.ready(worker).unwrap();
    assert_eq!(bench.scheduler.ready(worker, bench.now), Err(Error::NoFreeSlot(worker)));
    bench.finish(worker, lease.id, "done").unwrap();
    assert!(bench.ready(worker).is_some());
}

#[test]
fn an_action_waits_for_a_known_platform_until_that_is_given_up() {
    let retention = policy().platform_retention;
    let mut bench = Bench::new(policy());
    let windows = Offer::new().os_family("windows");
    let task = Task {
        requirements: Requirements::new([("OSFamily", "windows")]).unwrap(),
        ..task("x")
    };
    assert!(matches!(bench.submit("a", task.clone()), Err(Error::Unsatisfiable(_))));
    let worker = bench.join_with(windows.clone());
    bench.leave(worker);
    bench.submit("a", task.clone()).unwrap();
    bench.scheduler.watch("a", bench.now).unwrap();
    bench.wait(retention - SECOND);
    assert_eq!(bench.stage("a"), Stage::Queued, "a machine may be replaced");
    bench.wait(SECOND);
    let (code, message) = bench.outcome("a");
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("OSFamily=windows"), "{message}");
    assert!(matches!(bench.submit("b", task), Err(Error::Unsatisfiable(_))));
}

#[test]
fn a_platform_that_may_appear_is_waited_for() {
    let mut bench = Bench::new(Policy {
        wait_for_unknown_platforms: true,
        ..policy()
    });
    let task = Task {
        requirements: Requirements::new([("OSFamily", "windows")]).unwrap(),
        ..task("x")
    };
    bench.submit("a", task).unwrap();
    let other = bench.join();
    assert_eq!(bench.ready(other), None);
    let worker = bench.join_with(Offer::new().os_family("windows"));
    assert!(bench.ready(worker).is_some());
}

#[test]
fn a_full_queue_refuses_what_would_wait_and_nothing_else() {
    let mut bench = Bench::new(Policy {
        queued_max: 1,
        platforms: vec![linux(), Offer::new().os_family("windows")],
        ..policy()
    });
    let windows = Task {
        requirements: Requirements::new([("OSFamily", "windows")]).unwrap(),
        ..task("w")
    };
    bench.submit("a", windows).unwrap();
    assert_eq!(
        bench.submit("b", task("x")).unwrap_err().code(),
        Code::ResourceExhausted
    );
    let worker = bench.join();
    bench.ready(worker);
    bench.submit("b", task("x")).unwrap();
    assert_eq!(bench.stage("b"), Stage::Executing, "a worker was waiting for it");
    bench.submit("c", task("x")).unwrap();
    assert_eq!(
        bench.stage("c"),
        Stage::Executing,
        "what is shared adds nothing to the queue"
    );
}

#[test]
fn unfinished_operations_are_bounded() {
    let mut bench = Bench::new(Policy {
        operations_max: 2,
        ..policy()
    });
    bench.submit("a", task("x")).unwrap();
    bench.submit("b", task("x")).unwrap();
    assert_eq!(
        bench.submit("c", task("x")).unwrap_err().code(),
        Code::ResourceExhausted
    );
    assert_eq!(bench.submit("a", task("x")), Err(Error::NameTaken("a".to_owned())));
    bench.cancel("a");
    bench.submit("c", task("x")).unwrap();
}

#[test]
fn a_finished_operation_is_kept_for_a_while() {
    let retention = policy().finished_retention;
    let mut bench = Bench::new(policy());
    bench.submit("a", task("x")).unwrap();
    assert_eq!(
        bench.scheduler.delete("a", bench.now),
        Err(Error::NotFinished("a".to_owned()))
    );
    bench.cancel("a");
    bench.wait(retention - SECOND);
    assert!(!bench.is_forgotten("a"));
    bench.wait(SECOND);
    assert!(bench.is_forgotten("a"));
}

#[test]
fn finished_operations_are_bounded_in_number_and_in_bytes() {
    let mut bench = Bench::new(Policy {
        finished_max: 3,
        finished_bytes_max: 1000,
        ..policy()
    });
    let mut add = |name: &str, bytes| {
        bench.now = bench.now.after(SECOND);
        let response = response(&"x".repeat(bytes));
        let outcome = bench
            .scheduler
            .add_completed(&name.into(), task("x").action, response, bench.now);
        outcome.unwrap();
        let left = bench.scheduler.list("", None);
        left.map(|state| state.name.to_string()).collect::<String>()
    };
    assert_eq!(add("a", 0), "a");
    assert_eq!(add("b", 0), "ab");
    assert_eq!(add("c", 0), "abc");
    assert_eq!(add("d", 0), "bcd", "the oldest goes");
    assert_eq!(add("e", 600), "cde");
    assert_eq!(add("f", 600), "f", "as many go as there is need for");
    assert_eq!(add("g", 5000), "g", "the latest stays, whatever its size");
}

#[test]
fn an_operation_is_abandoned_when_nobody_wants_it_any_longer() {
    let grace = policy().unwatched_grace;
    let mut bench = Bench::new(policy());
    for name in ["watched", "asked", "unwatched"] {
        bench.submit(name, task(name)).unwrap();
        bench.scheduler.watch(name, bench.now).unwrap();
    }
    for name in ["asked", "unwatched"] {
        bench.scheduler.unwatch(&name.into(), bench.now);
    }
    bench.wait(grace - SECOND);
    assert_eq!(bench.stage("asked"), Stage::Queued);
    bench.wait(SECOND);
    assert_eq!(bench.outcome("unwatched").0, Code::Cancelled);
    assert_eq!(bench.stage("watched"), Stage::Queued);
    assert_eq!(bench.stage("asked"), Stage::Queued, "who asks wants to know");
}

#[test]
fn a_draining_scheduler_takes_nothing_and_hands_out_nothing() {
    let mut bench = Bench::new(policy());
    let worker = bench.join();
    bench.submit("a", task("x")).unwrap();
    let lease = bench.ready(worker).unwrap();
    bench.submit("b", task("y")).unwrap();
    bench.scheduler.drain(bench.now);
    bench.after(());
    assert_eq!(bench.outcome("b").0, Code::Unavailable);
    assert_eq!(bench.submit("c", task("z")), Err(Error::Draining));
    bench.finish(worker, lease.id, "done").unwrap();
    assert_eq!(bench.outcome("a").0, Code::Ok);
    assert_eq!(bench.scheduler.ready(worker, bench.now), Err(Error::Draining));
}

/// Counts what an event costs by how long many of them take would need a clock; this only shows that many are no problem.
#[test]
fn a_long_queue_is_worked_off() {
    const COUNT: usize = 20_000;
    let mut bench = Bench::new(policy());
    for n in 0..COUNT {
        bench.submit(&format!("{n}"), task(&format!("{n}"))).unwrap();
    }
    let worker = bench.join();
    for n in 0..COUNT {
        let lease = bench.ready(worker).unwrap();
        assert_eq!(lease.action, task(&format!("{n}")).action, "first come, first served");
        bench.finish(worker, lease.id, "done").unwrap();
    }
    assert_eq!(bench.scheduler.counts().unfinished, 0);
}
