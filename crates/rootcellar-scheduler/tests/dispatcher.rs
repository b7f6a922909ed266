//! The dispatcher and its sessions, on tokio's paused time.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::{ActionResult, ExecuteResponse, ExecutedActionMetadata};
use rootcellar_proto::rpc::Code;
use rootcellar_scheduler::{
    Dispatcher, Error, MonotonicClock, Offer, OperationStage, OperationState, Policy, Requirements, Task, WorkSession,
    WorkSource, WorkerSpec,
};
use tokio::time::timeout;

const MOMENT: Duration = Duration::from_millis(1);

fn linux() -> Offer {
    Offer::new().os_family("linux").isa("x86-64")
}

fn policy() -> Policy {
    Policy {
        platforms: vec![linux()],
        ..Policy::default()
    }
}

fn dispatcher() -> Dispatcher {
    Dispatcher::new(policy(), Arc::new(MonotonicClock::start()))
}

async fn worker(dispatcher: &Dispatcher) -> Box<dyn WorkSession> {
    dispatcher.join(WorkerSpec::new("worker", linux())).await.unwrap()
}

fn task(action: &str) -> Task {
    Task {
        action: Digest::of(DigestFunction::Sha256, action.as_bytes()),
        requirements: Requirements::new([("OSFamily", "linux")]).unwrap(),
        priority: 0,
        timeout: None,
        do_not_cache: false,
    }
}

fn response(exit_code: i32) -> Arc<ExecuteResponse> {
    Arc::new(ExecuteResponse {
        result: Some(ActionResult {
            exit_code,
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn code(state: &OperationState) -> Code {
    let status = state.outcome().unwrap().status.as_ref().unwrap();
    Code::try_from(status.code).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_seen_queued_then_executing_then_completed() {
    let dispatcher = dispatcher();
    let mut watch = dispatcher.submit("a", task("x")).unwrap();
    assert_eq!(watch.next().await.unwrap().stage, OperationStage::Queued);

    let session = worker(&dispatcher).await;
    let assignment = session.next().await.unwrap().unwrap();
    assert_eq!(assignment.lease.action, task("x").action);
    assert_eq!(watch.next().await.unwrap().stage, OperationStage::Executing(None));

    let metadata = Arc::new(ExecutedActionMetadata {
        worker: "worker".to_owned(),
        ..Default::default()
    });
    session
        .progress(assignment.lease.id, Arc::clone(&metadata))
        .await
        .unwrap();
    assert_eq!(watch.next().await.unwrap().partial_metadata(), Some(&metadata));

    session.finish(assignment.lease.id, response(3)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().outcome(), Some(&response(3)));
    assert_eq!(watch.next().await, None, "a watch ends with the completed state");
    assert_eq!(dispatcher.get("a").unwrap().outcome(), Some(&response(3)));
}

#[tokio::test(start_paused = true)]
async fn a_watch_begins_with_the_current_state_and_skips_what_was_missed() {
    let dispatcher = dispatcher();
    let first = dispatcher.submit("a", task("x")).unwrap();
    let session = worker(&dispatcher).await;
    let assignment = session.next().await.unwrap().unwrap();
    let mut late = dispatcher.watch("a").unwrap();
    assert_eq!(late.next().await.unwrap().stage, OperationStage::Executing(None));
    session.finish(assignment.lease.id, response(0)).await.unwrap();
    assert!(first.completed().await.is_completed());
    assert!(late.next().await.unwrap().is_completed());
    let mut afterwards = dispatcher.watch("a").unwrap();
    assert!(afterwards.next().await.unwrap().is_completed());
    assert_eq!(afterwards.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn cancelling_the_last_operation_tells_the_worker() {
    let dispatcher = dispatcher();
    let (one, other) = (
        dispatcher.submit("a", task("x")).unwrap(),
        dispatcher.submit("b", task("x")).unwrap(),
    );
    let session = worker(&dispatcher).await;
    let assignment = session.next().await.unwrap().unwrap();
    dispatcher.cancel("a").unwrap();
    assert_eq!(code(&one.completed().await), Code::Cancelled);
    assert!(!assignment.cancelled.is_cancelled(), "another operation waits for it");
    dispatcher.cancel("b").unwrap();
    assignment.cancelled.cancelled().await;
    assert_eq!(code(&other.completed().await), Code::Cancelled);
    assert_eq!(
        session.next().await.unwrap_err().code(),
        Code::FailedPrecondition,
        "the slot is taken until the worker has cleaned up"
    );
    session.finish(assignment.lease.id, response(0)).await.unwrap();
    assert_eq!(code(&dispatcher.get("b").unwrap()), Code::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn work_that_a_dropped_wait_would_have_got_goes_to_another_worker() {
    let dispatcher = dispatcher();
    let (first, second) = (worker(&dispatcher).await, worker(&dispatcher).await);
    // The wait is polled, gets its assignment while nobody polls it, and is dropped with it.
    let mut abandoned = Box::pin(first.next());
    assert!(timeout(MOMENT, &mut abandoned).await.is_err());
    let _watch = dispatcher.submit("a", task("x")).unwrap();
    drop(abandoned);
    assert_eq!(dispatcher.get("a").unwrap().stage, OperationStage::Queued);
    let assignment = second.next().await.unwrap().unwrap();
    assert_eq!(assignment.lease.attempt, 1, "nobody was lost");
    assert!(
        timeout(MOMENT, first.next()).await.is_err(),
        "the slot of the dropped wait is free"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_session_loses_its_work_to_another_worker() {
    let dispatcher = dispatcher();
    let watch = dispatcher.submit("a", task("x")).unwrap();
    let first = worker(&dispatcher).await;
    let lost = first.next().await.unwrap().unwrap();
    drop(first);
    assert!(lost.cancelled.is_cancelled());
    let second = worker(&dispatcher).await;
    let assignment = second.next().await.unwrap().unwrap();
    assert_eq!(assignment.lease.attempt, 2);
    assert_eq!(
        second.finish(lost.lease.id, response(1)).await,
        Err(Error::NoSuchLease(lost.lease.id)),
        "a lost lease is nobody's"
    );
    second.finish(assignment.lease.id, response(0)).await.unwrap();
    assert_eq!(watch.completed().await.outcome(), Some(&response(0)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_worker_is_given_up_and_told_so() {
    let dispatcher = dispatcher();
    let spec = WorkerSpec {
        heartbeat_timeout: Some(Duration::from_secs(10)),
        ..WorkerSpec::new("remote", linux())
    };
    let session = dispatcher.join(spec).await.unwrap();
    let silent = async {
        let error = session.next().await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
    };
    tokio::select! {
        () = dispatcher.keep_time() => unreachable!("time goes on for ever"),
        () = silent => {}
    }
    assert_eq!(dispatcher.counts().workers, 0);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_a_worker() {
    let dispatcher = dispatcher();
    let spec = WorkerSpec {
        heartbeat_timeout: Some(Duration::from_secs(10)),
        ..WorkerSpec::new("remote", linux())
    };
    let session = dispatcher.join(spec).await.unwrap();
    let beating = async {
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            session.heartbeat().await.unwrap();
        }
    };
    tokio::select! {
        () = dispatcher.keep_time() => unreachable!("time goes on for ever"),
        () = beating => {}
    }
    assert_eq!(dispatcher.counts().workers, 1);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_nobody_watches_is_abandoned_in_the_end() {
    let dispatcher = dispatcher();
    drop(dispatcher.submit("a", task("x")).unwrap());
    let watched = dispatcher.submit("b", task("y")).unwrap();
    let grace = policy().unwatched_grace;
    let late = timeout(grace + Duration::from_secs(2), dispatcher.keep_time());
    late.await.unwrap_err();
    assert_eq!(code(&dispatcher.get("a").unwrap()), Code::Cancelled);
    assert_eq!(dispatcher.get("b").unwrap().stage, OperationStage::Queued);
    drop(watched);
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_what_runs_and_fails_what_waits() {
    let dispatcher = dispatcher();
    let running = dispatcher.submit("a", task("x")).unwrap();
    let waiting = dispatcher.submit("b", task("y")).unwrap();
    let session = worker(&dispatcher).await;
    let assignment = session.next().await.unwrap().unwrap();
    let mut drained = Box::pin(dispatcher.drain(Duration::from_secs(60)));
    assert!(timeout(MOMENT, &mut drained).await.is_err(), "one is running");
    assert_eq!(code(&waiting.completed().await), Code::Unavailable);
    assert_eq!(dispatcher.submit("c", task("z")).unwrap_err(), Error::Draining);
    session.finish(assignment.lease.id, response(0)).await.unwrap();
    drained.await;
    assert_eq!(running.completed().await.outcome(), Some(&response(0)));
    assert!(session.next().await.unwrap().is_none(), "there will be no more work");
}

#[tokio::test(start_paused = true)]
async fn draining_ends_what_runs_for_too_long() {
    let dispatcher = dispatcher();
    let running = dispatcher.submit("a", task("x")).unwrap();
    let session = worker(&dispatcher).await;
    let assignment = session.next().await.unwrap().unwrap();
    let idle = worker(&dispatcher).await;
    let (nothing, ()) = tokio::join!(idle.next(), dispatcher.drain(Duration::from_secs(60)));
    assert!(nothing.unwrap().is_none());
    assert!(assignment.cancelled.is_cancelled());
    assert_eq!(code(&running.completed().await), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_listing_comes_in_pages_by_name() {
    let dispatcher = dispatcher();
    let names = [
        "main/operations/1",
        "main/operations/2",
        "main/operations/3",
        "other/operations/1",
    ];
    for name in names {
        dispatcher.add_completed(name, task("x").action, response(0)).unwrap();
    }
    let page = dispatcher.list("main/operations/", None, 2);
    let listed: Vec<_> = page.operations.iter().map(|state| &*state.name).collect();
    assert_eq!(listed, names[..2]);
    let rest = dispatcher.list("main/operations/", page.next.as_deref(), 2);
    assert_eq!(&*rest.operations[0].name, names[2]);
    assert_eq!((rest.operations.len(), rest.next), (1, None));
}

#[tokio::test(start_paused = true)]
async fn thousands_of_operations_are_dispatched_without_one_being_lost() {
    let dispatcher = dispatcher();
    let work = async {
        let session = worker(&dispatcher).await;
        while let Some(assignment) = session.next().await.unwrap() {
            session.finish(assignment.lease.id, response(0)).await.unwrap();
        }
    };
    let clients = async {
        let watches: Vec<_> = (0..5000)
            .map(|n| {
                dispatcher
                    .submit(format!("op{n}"), task(&format!("{}", n / 2)))
                    .unwrap()
            })
            .collect();
        for watch in watches {
            assert!(watch.completed().await.is_completed());
        }
        dispatcher.drain(Duration::ZERO).await;
    };
    tokio::join!(work, clients);
    assert_eq!(dispatcher.counts().unfinished, 0);
}
