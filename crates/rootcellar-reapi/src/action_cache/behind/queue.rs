//! What waits to be written, in memory: in which order, and its part of what may wait.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rootcellar_digest::{Digest, DigestMap};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// How long a result waits that the upstream cache did not take, though it answered: longer each time.
const DEFERRED_FIRST: Duration = Duration::from_secs(1);
const DEFERRED_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Actions whose results may be written now, in order.
    waiting: VecDeque<Digest>,
    /// Those that are to be tried again later.
    deferred: BTreeSet<(Instant, Digest)>,
    /// The latest put of each action, until it is written. Those that a writer has are in none of the above.
    puts: DigestMap<Put>,
    /// Why a result could not be written, the last time.
    pub(super) last_failure: Option<String>,
}

#[derive(Debug)]
struct Put {
    number: u64,
    since: Instant,
    /// How often the upstream cache did not take it.
    refusals: u32,
    _room: Option<Room>,
}

/// A result's part of what may wait.
#[derive(Debug)]
pub(in crate::action_cache) struct Room {
    _result: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
}

impl Room {
    pub(super) fn new(result: OwnedSemaphorePermit, bytes: OwnedSemaphorePermit) -> Self {
        Self { _result: result, bytes }
    }

    /// Gives back what is more than these units of bytes.
    pub(super) fn shrink_to(&mut self, units: u32) {
        let surplus = self.bytes.num_permits().saturating_sub(units as usize);
        drop(self.bytes.split(surplus));
    }
}

impl Queue {
    pub(super) fn holds(&self, action: &Digest) -> bool {
        self.puts.contains_key(action)
    }

    pub(super) fn len(&self) -> usize {
        self.puts.len()
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        self.puts.values().map(|put| put.since).min()
    }

    /// Adds a put, in the place of an earlier one of the action. Tells which one need not be written any more.
    pub(super) fn push(&mut self, action: Digest, number: u64, room: Option<Room>) -> Option<u64> {
        let put = Put {
            number,
            since: Instant::now(),
            refusals: 0,
            _room: room,
        };
        match self.puts.get_mut(&action) {
            None => {
                self.puts.insert(action, put);
                self.waiting.push_back(action);
                None
            }
            Some(later) if later.number > number => Some(number),
            Some(earlier) => Some(std::mem::replace(earlier, put).number),
        }
    }

    /// Takes an action whose result is to be written, and the number of its put.
    pub(super) fn take(&mut self) -> Option<(Digest, u64)> {
        let now = Instant::now();
        while self.deferred.first().is_some_and(|(due, _)| *due <= now) {
            let (_, action) = self.deferred.pop_first().expect("there is one");
            self.waiting.push_back(action);
        }
        let action = self.waiting.pop_front()?;
        Some((action, self.puts[&action].number))
    }

    /// When there is something to be taken again, if nothing comes before.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.deferred.first().map(|(due, _)| *due)
    }

    /// Whether there is something to be taken now.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes out, of results that were refused, the one whose next try is furthest off, if such results are more than half of all that wait.
    /// Tells its action and the number of the put.
    pub(super) fn take_clogging(&mut self) -> Option<(Digest, u64)> {
        if self.deferred.len() <= self.puts.len() / 2 {
            return None;
        }
        let (_, action) = self.deferred.pop_last()?;
        let put = self.puts.remove(&action).expect("what is deferred waits");
        Some((action, put.number))
    }

    /// Has an action that was taken wait again.
    pub(super) fn put_back(&mut self, action: Digest) {
        self.waiting.push_back(action);
    }

    /// Has an action that was taken wait for a while; says how often that was so.
    pub(super) fn defer(&mut self, action: Digest) -> u32 {
        let put = self
            .puts
            .get_mut(&action)
            .expect("what was taken waits until it is done");
        let pause = DEFERRED_FIRST
            .saturating_mul(1 << put.refusals.min(16))
            .min(DEFERRED_MAX);
        put.refusals = put.refusals.saturating_add(1);
        self.deferred.insert((Instant::now() + pause, action));
        put.refusals
    }

    /// How often the result of an action was refused.
    pub(super) fn refusals(&self, action: &Digest) -> u32 {
        self.puts.get(action).map_or(0, |put| put.refusals)
    }

    /// Ends a put that was taken. If a later one took its place, that is to be written.
    pub(super) fn done(&mut self, action: Digest, number: u64) {
        match self.puts.get(&action) {
            Some(put) if put.number == number => _ = self.puts.remove(&action),
            Some(_) => self.waiting.push_back(action),
            None => {}
        }
    }
}
