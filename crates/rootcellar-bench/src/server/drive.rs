//! Drives a load against servers: rounds of calls that are made ready while no clock runs, and then made so many at a time. The servers
//! take turns, round by round, back and forth: what else goes on on the machine then costs all of them as much.
//!
//! ```text
//!   each is ready, and warm ──┬─ one server: CPU? ─ prepare ─ clock: calls ─ CPU? ─┬── until the bound
//!                             └──────────────────── the next ──────────────────────┘
//! ```
//!
//! The processor time of a server is taken over all of its rounds, those of the others in between, and a pause before and after: what it
//! does in the background belongs to the load that caused it. What earlier loads have left for the disk is written before; and where the
//! server is to keep contents, memory for them is made ready before each round ([`touch_page_cache`] says why), so a round keeps no
//! more than that. It does not always succeed, so what an item of such a load costs is the mean of the rounds in the middle where they are
//! alike, and not of all.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::failure::{Failure, Failures};
use super::histogram::Histogram;
use super::peer::{Peer, Windows};
use super::process;
use super::settings::{Bound, Settings, Target};
use crate::measure::count;
use crate::random::Random;
use crate::usage::touch_page_cache;

/// Memory that the calls of a round may take.
const ROUND_BYTES_MAX: u64 = 256 << 20;
/// Contents that a server keeps of a round.
const ROUND_STORED_BYTES_MAX: u64 = 512 << 20;
/// Calls of a round.
const ROUND_CALLS_MAX: usize = 50_000;
/// Calls of a round at the least, for each that is in flight. The first has no more: they show how many the next one can have.
const ROUND_CALLS_EACH_MIN: usize = 4;
/// How long a round takes, about: short beside what changes on the machine by itself, and long beside how a round begins and ends.
const ROUND_TIME: Duration = Duration::from_millis(500);
/// For what a server does a moment after it has answered.
const SETTLE: Duration = Duration::from_millis(300);
/// Longer than any call takes that ends at all.
const CALL_TIME_MAX: Duration = Duration::from_secs(120);
/// After so many failures the rest would not tell more.
const FAILURES_MAX: u64 = 100;

/// A sort of calls. What one needs is made when it is told so, and is all in the call.
pub(super) trait Load: Sized {
    /// A call that is ready to be made.
    type Call: Send + 'static;

    /// Whether it has an end of its own, so that nothing of it may be left out or made to warm up.
    const ENDS: bool = false;

    /// Sees that the server has what the calls need.
    fn ready(peer: &Peer, settings: &Settings, random: Random) -> impl Future<Output = Result<Self, Failure>>;

    /// Bytes of memory that a call takes before it is made, about.
    fn call_bytes(&self) -> u64;

    /// Bytes that the server keeps of a call, about.
    fn stored_bytes(&self) -> u64 {
        0
    }

    /// Makes at most `most` calls ready; none if the load is at its end.
    fn round(&mut self, most: usize) -> Vec<Self::Call>;

    /// Makes a call, and checks the answer.
    fn make(peer: &Peer, call: Self::Call) -> impl Future<Output = Result<Done, Failure>> + Send;
}

/// What a call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    /// What is counted: blobs, digests and so on.
    pub(super) items: u64,
    /// Content that was sent or received.
    pub(super) bytes: u64,
}

/// What many calls did, and what they cost.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) items: u64,
    pub(super) bytes: u64,
    pub(super) latency: Histogram,
    pub(super) failures: Failures,
    /// Time on the clock while calls were made.
    pub(super) wall: Duration,
    /// Processor time of the server for each item, in seconds.
    pub(super) cpu: Option<f64>,
    /// A call that the server does not know.
    pub(super) is_not_offered: bool,
}

impl Measured {
    fn note(&mut self, time: Duration, outcome: Result<Done, Failure>) {
        match outcome {
            Ok(done) => {
                self.items += done.items;
                self.bytes += done.bytes;
                self.latency.add(time);
            }
            Err(failure) => {
                self.is_not_offered |= failure.is_unimplemented();
                self.failures.add(failure);
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.items += other.items;
        self.bytes += other.bytes;
        self.latency.merge(&other.latency);
        self.failures.merge(other.failures);
        self.is_not_offered |= other.is_not_offered;
    }

    pub(super) fn calls(&self) -> u64 {
        self.latency.count() + self.failures.count()
    }
}

/// A server under a load, and what that has shown so far.
pub(super) struct Driven<L> {
    load: L,
    peers: Vec<Peer>,
    process: Option<u32>,
    costs: Costs,
    measured: Measured,
    /// No more calls are made.
    is_over: bool,
}

impl<L: Load> Driven<L> {
    /// Connects, sees that the server has what the load needs, and makes some calls before any of them count.
    pub(super) async fn ready(target: &Target, settings: &Settings, random: Random) -> Result<Self, Failure> {
        let peers = Peer::connect(target, settings.connections, Windows::WIDE).await?;
        let load = L::ready(&peers[0], settings, random).await?;
        let mut driven = Self {
            process: target.process,
            costs: Costs::default(),
            measured: Measured::default(),
            is_over: false,
            load,
            peers,
        };
        if !L::ENDS {
            driven.warm_up(settings).await;
        }
        Ok(driven)
    }

    async fn warm_up(&mut self, settings: &Settings) {
        let calls = self.load.round(settings.concurrency);
        let warmed_up = run::<L>(calls, &self.peers, settings.concurrency).await;
        // What went well took no time that anybody measured.
        if warmed_up.failures.count() > 0 {
            self.measured.failures = warmed_up.failures;
            self.measured.is_not_offered = warmed_up.is_not_offered;
            self.is_over = true;
        }
    }

    /// Makes the calls of a round, if there is one.
    async fn round(&mut self, settings: &Settings) {
        let calls = self.load.round(round_calls(&self.load, &self.measured, settings));
        if calls.is_empty() {
            self.is_over = true;
            return;
        }
        let stored_bytes = self.load.stored_bytes().saturating_mul(calls.len() as u64);
        if self.process.is_some() && self.peers.iter().any(|peer| peer.keeps) {
            have_memory(stored_bytes, settings);
        }
        let begin = Instant::now();
        let round = run::<L>(calls, &self.peers, settings.concurrency).await;
        self.measured.wall += begin.elapsed();
        self.look(round.items);
        self.measured.merge(round);
        self.is_over = self.measured.failures.count() >= FAILURES_MAX;
    }

    /// Looks at the clock of the server's process.
    fn look(&mut self, items: u64) {
        self.costs.note(self.process.and_then(process::cpu_time), items);
    }

    fn end(mut self) -> Measured {
        self.look(0);
        let rounds_are_alike = !L::ENDS;
        self.measured.cpu = match self.load.stored_bytes() > 0 && rounds_are_alike {
            true => self.costs.mean_of_the_middle(),
            false => self.costs.mean(),
        };
        self.measured
    }
}

/// Drives a load against servers until its bound, or its end.
pub(super) async fn in_turns<L: Load>(mut servers: Vec<Driven<L>>, settings: &Settings) -> Vec<Measured> {
    rustix::fs::sync();
    tokio::time::sleep(SETTLE).await;
    servers.iter_mut().for_each(|server| server.look(0));
    let mut order: Vec<usize> = (0..servers.len()).collect();
    while servers.iter().any(|server| !server.is_over) {
        for &at in &order {
            if !servers[at].is_over {
                servers[at].round(settings).await;
            }
        }
        // What one does in the background takes time from the next.
        order.reverse();
    }
    tokio::time::sleep(SETTLE).await;
    servers.into_iter().map(Driven::end).collect()
}

/// What the items of each round have cost the server.
#[derive(Default)]
struct Costs {
    /// Its processor time when it was looked at last.
    before: Option<Duration>,
    rounds: Vec<(Duration, u64)>,
}

impl Costs {
    /// Notes a round, and what was done in the background since the one before it. No items are a pause, which belongs to the last round.
    fn note(&mut self, now: Option<Duration>, items: u64) {
        let spent = self.before.zip(now).map(|(before, now)| now.saturating_sub(before));
        self.before = now;
        match (spent, self.rounds.last_mut()) {
            (Some(spent), Some(last)) if items == 0 => last.0 += spent,
            (Some(spent), _) if items > 0 => self.rounds.push((spent, items)),
            _ => {}
        }
    }

    /// Seconds for each item, of all rounds together.
    fn mean(&self) -> Option<f64> {
        mean_of(&self.rounds)
    }

    /// Seconds for each item, without the quarter of the rounds that cost least, and without that which cost most.
    fn mean_of_the_middle(&self) -> Option<f64> {
        let of_item = |(spent, items): &(Duration, u64)| spent.as_secs_f64() / count(*items);
        let mut rounds = self.rounds.clone();
        rounds.sort_by(|one, other| of_item(one).total_cmp(&of_item(other)));
        let left_out = rounds.len() / 4;
        mean_of(&rounds[left_out..rounds.len() - left_out])
    }
}

fn mean_of(rounds: &[(Duration, u64)]) -> Option<f64> {
    let spent: Duration = rounds.iter().map(|round| round.0).sum();
    let items: u64 = rounds.iter().map(|round| round.1).sum();
    (items > 0).then(|| spent.as_secs_f64() / count(items))
}

/// Sees that there is memory for what a server on this machine is going to keep.
fn have_memory(bytes: u64, settings: &Settings) {
    let bytes = bytes.min(ROUND_STORED_BYTES_MAX);
    // Some of it is taken back before it is used.
    touch_page_cache(&settings.scratch, 2 * bytes);
}

/// How many calls the next round should have: what is left of the bound, at the rate so far, and what fits into memory.
fn round_calls<L: Load>(load: &L, measured: &Measured, settings: &Settings) -> usize {
    let prepared = ROUND_BYTES_MAX / load.call_bytes().max(1);
    let stored = ROUND_STORED_BYTES_MAX / load.stored_bytes().max(1);
    let in_memory = usize::try_from(prepared.min(stored)).unwrap_or(usize::MAX);
    let most = in_memory.clamp(settings.concurrency, ROUND_CALLS_MAX.max(settings.concurrency));
    if L::ENDS {
        return most;
    }
    match settings.bound {
        Bound::Calls(calls) => {
            let left = usize::try_from(calls.saturating_sub(measured.calls())).unwrap_or(usize::MAX);
            calls_for(Duration::MAX, measured, settings.concurrency)
                .min(left)
                .min(most)
        }
        Bound::Time(time) => calls_for(time, measured, settings.concurrency).min(most),
    }
}

/// How many calls take as long as a round, or what is left of a time; none if that is next to nothing.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of calls, about"
)]
fn calls_for(time: Duration, measured: &Measured, concurrency: usize) -> usize {
    let least = concurrency * ROUND_CALLS_EACH_MIN;
    if measured.wall.is_zero() {
        return least;
    }
    let left = time.saturating_sub(measured.wall);
    if left < time / 20 {
        return 0;
    }
    let rate = measured.calls() as f64 / measured.wall.as_secs_f64();
    ((rate * left.min(ROUND_TIME).as_secs_f64()) as usize).max(least)
}

/// Makes all calls, so many at a time, and ends when all have ended.
async fn run<L: Load>(calls: Vec<L::Call>, peers: &[Peer], concurrency: usize) -> Measured {
    let calls = Arc::new(Mutex::new(calls.into_iter()));
    let mut workers = JoinSet::new();
    for (_, peer) in (0..concurrency).zip(peers.iter().cycle()) {
        let (peer, calls) = (peer.clone(), calls.clone());
        workers.spawn(async move {
            let mut measured = Measured::default();
            loop {
                let next = calls.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(call) = next else { return measured };
                let begin = Instant::now();
                let outcome = tokio::time::timeout(CALL_TIME_MAX, L::make(&peer, call)).await;
                measured.note(begin.elapsed(), outcome.unwrap_or_else(|_| Err(Failure::overdue())));
            }
        });
    }
    let mut all = Measured::default();
    while let Some(measured) = workers.join_next().await {
        all.merge(measured.expect("a worker of the benchmark does not panic"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(calls: u32, wall: Duration) -> Measured {
        let mut measured = Measured::default();
        let done = Done { items: 1, bytes: 0 };
        (0..calls).for_each(|_| measured.note(Duration::from_millis(1), Ok(done)));
        measured.wall = wall;
        measured
    }

    #[test]
    fn a_time_is_filled_round_by_round_at_the_rate_so_far_and_then_over() {
        let time = Duration::from_secs(10);
        assert_eq!(calls_for(time, &after(0, Duration::ZERO), 8), 32);
        assert_eq!(calls_for(time, &after(100, Duration::from_secs(1)), 8), 50);
        assert_eq!(calls_for(time, &after(1000, Duration::from_millis(9_400)), 8), 53);
        assert_eq!(calls_for(time, &after(100, Duration::from_millis(9_400)), 8), 32);
        assert_eq!(calls_for(time, &after(100, Duration::from_millis(9_600)), 8), 0);
        assert_eq!(calls_for(time, &after(100, Duration::from_secs(11)), 8), 0);
    }

    #[test]
    fn a_round_that_cost_too_much_moves_the_mean_and_not_that_of_the_middle() {
        let at = |millis| Some(Duration::from_millis(millis));
        let mut costs = Costs::default();
        for (now, items) in [(1000, 0), (1100, 10), (1210, 10), (2210, 10), (2310, 10), (2320, 0)] {
            costs.note(at(now), items);
        }
        assert_eq!(costs.mean(), Some(1.32 / 40.0));
        assert_eq!(costs.mean_of_the_middle(), Some(0.22 / 20.0));
        assert_eq!(Costs::default().mean_of_the_middle(), None);
    }

    #[test]
    fn a_call_that_is_not_known_is_noted_beside_the_failure() {
        let mut measured = after(1, Duration::ZERO);
        measured.note(Duration::ZERO, Err(tonic::Status::unimplemented("no").into()));
        assert!(measured.is_not_offered);
        assert_eq!((measured.calls(), measured.failures.count()), (2, 1));
    }
}
