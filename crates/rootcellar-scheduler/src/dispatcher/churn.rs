//! Clients and workers that come, lose patience and go at random, on a clock that only moves while all wait.
//!
//! A failing test prints its seed; `ROOTCELLAR_CHURN_SEED=<seed>` replays that one.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::ExecuteResponse;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Dispatcher;
use crate::{
    Assignment, Error, MonotonicClock, Offer, Policy, Requirements, Task, WorkSession, WorkSource, WorkerSpec,
};

#[path = "../../tests/simulation/random.rs"]
mod random;

use random::Random;

const SEEDS: u64 = 100;
const OPERATIONS_PER_CLIENT: usize = 20;

/// What a client does when it has lost patience.
#[derive(Clone, Copy)]
enum Afterwards {
    Cancel,
    WatchAgain,
    Leave,
}

const AFTERWARDS: [Afterwards; 4] = [
    Afterwards::Cancel,
    Afterwards::WatchAgain,
    Afterwards::Leave,
    Afterwards::Leave,
];

/// Prints the seed of a history that ends in a panic.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("replay with ROOTCELLAR_CHURN_SEED={}", self.0);
        }
    }
}

fn moment(random: &mut Random) -> Duration {
    Duration::from_millis(u64::try_from(random.below(5)).unwrap())
}

fn task(random: &mut Random) -> Task {
    let action = random.below(6).to_le_bytes();
    Task {
        action: Digest::of(DigestFunction::Sha256, &action),
        requirements: Requirements::default(),
        priority: 0,
        timeout: None,
        do_not_cache: random.one_in(5),
    }
}

async fn client(dispatcher: Dispatcher, n: usize, mut random: Random) {
    for operation in 0..OPERATIONS_PER_CLIENT {
        let name = format!("{n}/{operation}");
        let mut watch = dispatcher.submit(name.as_str(), task(&mut random)).unwrap();
        let mut is_completed = false;
        while let Ok(Some(state)) = timeout(moment(&mut random), watch.next()).await {
            assert!(!is_completed, "the completed state is the last one");
            is_completed = state.is_completed();
        }
        match random.pick(AFTERWARDS.into_iter()).unwrap() {
            Afterwards::Cancel => dispatcher.cancel(&name).unwrap(),
            Afterwards::WatchAgain => {
                drop(watch);
                let watch = dispatcher.watch(&name).unwrap();
                // Patience may end before the operation does.
                drop(timeout(moment(&mut random), watch.completed()).await);
            }
            Afterwards::Leave => {}
        }
    }
}

async fn worker(dispatcher: Dispatcher, mut random: Random) {
    loop {
        let session = dispatcher.join(WorkerSpec::new("worker", Offer::new())).await.unwrap();
        while !random.one_in(6) {
            match timeout(moment(&mut random), session.next()).await {
                Ok(Ok(Some(assignment))) => run(&*session, assignment, &mut random).await,
                Ok(Ok(None)) => return,
                Ok(Err(error)) => assert!(matches!(error, Error::NoFreeSlot(_)), "{error}"),
                Err(_) => sleep(moment(&mut random)).await,
            }
        }
    }
}

/// Works for a while, or until that is not wanted any longer, and finishes; now and then, it forgets to.
async fn run(session: &dyn WorkSession, assignment: Assignment, random: &mut Random) {
    drop(timeout(moment(random), assignment.cancelled.cancelled()).await);
    if !random.one_in(8) {
        let response = Arc::new(ExecuteResponse::default());
        session.finish(assignment.lease.id, response).await.unwrap();
    }
}

async fn history(mut random: Random) {
    let policy = Policy {
        platforms: vec![Offer::new()],
        ..Policy::default()
    };
    let dispatcher = Dispatcher::new(policy, Arc::new(MonotonicClock::start()));
    let mut fork = || Random::new(u64::try_from(random.below(usize::MAX)).unwrap());
    let (mut clients, mut workers) = (JoinSet::new(), JoinSet::new());
    for n in 0..6 {
        clients.spawn(client(dispatcher.clone(), n, fork()));
    }
    for _ in 0..4 {
        workers.spawn(worker(dispatcher.clone(), fork()));
    }
    clients.join_all().await;
    dispatcher.drain(Duration::from_millis(20)).await;
    workers.join_all().await;

    let state = dispatcher.shared.lock();
    let counts = state.scheduler.counts();
    assert_eq!(
        (counts.queued, counts.leases, counts.unfinished, counts.workers),
        (0, 0, 0, 0)
    );
    assert_eq!(counts.finished, 6 * OPERATIONS_PER_CLIENT, "every operation completes");
    assert_eq!(
        (state.feeds.len(), state.waiting.len(), state.cancellations.len()),
        (0, 0, 0)
    );
}

#[test]
fn nothing_is_left_when_all_are_gone() {
    let replay = env::var("ROOTCELLAR_CHURN_SEED").ok();
    let replay: Option<u64> = replay.map(|text| text.parse().unwrap());
    for seed in replay.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let _guard = Seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(history(Random::new(seed)));
    }
}
