//! When blobs were used, in 4 bytes for each.
//!
//! A *tick* is a moment of the store's own clock. The clock goes on with every second, and with every four-thousandth part of the
//! store's size that is written, so that the order of uses is told well when much happens in a second. What a tick means in
//! seconds is kept for as long as a promise of lifetime needs it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Parts of the store's size that make a tick.
const TICKS_A_TURN: u64 = 4096;
/// How many moments of the timeline cover the promised lifetime.
const MOMENTS: u32 = 64;

/// A tick, and the time when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) tick: u32,
    pub(super) seconds: u64,
}

#[derive(Debug)]
pub(super) struct Recency {
    tick: AtomicU32,
    /// When the current tick began.
    seconds: AtomicU64,
    written: AtomicU64,
    bytes_per_tick: u64,
    lifetime: Duration,
    /// Guards the timeline, oldest moment first.
    timeline: Mutex<VecDeque<Moment>>,
}

impl Recency {
    /// Goes on behind the last tick that is known of, if one is.
    pub(super) fn new(bytes_max: u64, lifetime: Duration, timeline: Vec<Moment>, last: u32, now: SystemTime) -> Self {
        let recency = Self {
            tick: AtomicU32::new(last),
            seconds: AtomicU64::new(seconds(now)),
            written: AtomicU64::new(0),
            bytes_per_tick: (bytes_max / TICKS_A_TURN).max(1),
            lifetime,
            timeline: Mutex::new(timeline.into()),
        };
        recency.advance(1, seconds(now));
        recency
    }

    /// The current tick.
    pub(super) fn tick(&self, now: SystemTime) -> u32 {
        let now = seconds(now);
        if now > self.seconds.load(Ordering::Relaxed) {
            self.advance(1, now);
        }
        self.tick.load(Ordering::Relaxed)
    }

    /// Notes that bytes were written.
    pub(super) fn wrote(&self, bytes: u64) {
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        let ticks = (before + bytes) / self.bytes_per_tick - before / self.bytes_per_tick;
        if ticks > 0 {
            let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
            self.advance(ticks, self.seconds.load(Ordering::Relaxed));
        }
    }

    fn advance(&self, ticks: u32, now: u64) {
        let mut timeline = self.timeline();
        let step = (self.lifetime / MOMENTS).as_secs();
        let mut tick = self.tick.load(Ordering::Relaxed).saturating_add(ticks);
        let before = self.seconds.swap(now, Ordering::Relaxed);
        if before + step < now {
            // Nothing was used meanwhile. What was used last was used then, and not just before now.
            timeline.push_back(Moment {
                tick,
                seconds: before + 1,
            });
            tick = tick.saturating_add(1);
        }
        self.tick.store(tick, Ordering::Relaxed);
        if timeline
            .back()
            .is_none_or(|last| last.seconds + step < now || last.seconds > now)
        {
            timeline.push_back(Moment { tick, seconds: now });
        }
        let is_past =
            |moment: Option<&Moment>| moment.is_some_and(|moment| moment.seconds + 2 * self.lifetime.as_secs() < now);
        // The second one is past: nothing needs the first any more.
        while is_past(timeline.get(1)) {
            timeline.pop_front();
        }
    }

    fn timeline(&self) -> MutexGuard<'_, VecDeque<Moment>> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn moments(&self) -> Vec<Moment> {
        self.timeline().iter().copied().collect()
    }

    /// How long ago a tick was, at the least.
    pub(super) fn age(&self, tick: u32, now: SystemTime) -> Duration {
        let timeline = self.timeline();
        let later = timeline.iter().find(|moment| moment.tick > tick);
        // What is later than every moment was since the last one.
        let began = later.map_or(self.seconds.load(Ordering::Relaxed), |moment| moment.seconds);
        Duration::from_secs(seconds(now).saturating_sub(began))
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(time: Duration) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + time
    }

    fn recency() -> Recency {
        Recency::new(4096 * 100, 3 * HOUR, Vec::new(), 0, at(Duration::ZERO))
    }

    #[test]
    fn ticks_follow_the_clock_and_what_is_written() {
        let recency = recency();
        let first = recency.tick(at(Duration::ZERO));
        assert_eq!(recency.tick(at(Duration::ZERO)), first);
        let second = recency.tick(at(Duration::from_secs(1)));
        assert_eq!(second, first + 1);
        recency.wrote(99);
        assert_eq!(recency.tick(at(Duration::from_secs(1))), second);
        recency.wrote(1);
        assert_eq!(recency.tick(at(Duration::from_secs(1))), second + 1);
        recency.wrote(1000);
        assert_eq!(recency.tick(at(Duration::from_secs(1))), second + 11);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nothing_younger() {
        let recency = recency();
        let late = recency.tick(at(2 * HOUR));
        assert!(recency.tick(at(HOUR)) >= late);
        assert_eq!(recency.age(late, at(HOUR)), Duration::ZERO);
    }

    #[test]
    fn an_age_is_never_overstated_and_little_understated() {
        let recency = recency();
        let mut uses = Vec::new();
        for minute in 0..600 {
            let time = Duration::from_secs(60 * minute);
            recency.wrote(150);
            uses.push((time, recency.tick(at(time))));
        }
        let now = Duration::from_secs(60 * 600);
        for (time, tick) in uses {
            let (age, told) = (now - time, recency.age(tick, at(now)));
            assert!(told <= age, "{age:?} is said to be {told:?}");
            if age < 3 * HOUR {
                assert!(age - told <= Duration::from_secs(240), "{age:?} is said to be {told:?}");
            }
        }
    }

    #[test]
    fn idle_time_makes_what_was_used_before_it_older() {
        let recency = recency();
        let used = recency.tick(at(Duration::ZERO));
        let later = recency.tick(at(10 * HOUR));
        assert_eq!(recency.age(used, at(10 * HOUR)), 10 * HOUR - Duration::from_secs(1));
        assert_eq!(recency.age(later, at(10 * HOUR)), Duration::ZERO);
    }

    #[test]
    fn ages_outlive_a_restart() {
        let first = recency();
        let early = first.tick(at(Duration::ZERO));
        let late = first.tick(at(HOUR));
        let again = Recency::new(4096 * 100, 3 * HOUR, first.moments(), late, at(2 * HOUR));
        assert!(again.tick(at(2 * HOUR)) > late);
        assert!(again.age(early, at(2 * HOUR)) > HOUR - Duration::from_secs(240));
        assert!(again.age(late, at(2 * HOUR)) <= HOUR);
    }
}
