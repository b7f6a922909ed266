//! Time as an argument: a [`Time`] is a distance from a start, and where it comes from is not the scheduler's concern.

use std::fmt;
use std::time::Duration;

/// A moment, as the time passed since some start. It never goes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

impl Time {
    /// The moment that all others are counted from.
    pub const START: Self = Self(Duration::ZERO);

    /// The moment `duration` after this one.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// The time passed since `earlier`; zero if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Tells the time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The current moment; never earlier than one told before.
    fn now(&self) -> Time;
}

/// The machine's monotonic clock, started when this is made. Only a program makes one; libraries are given it.
///
/// It is tokio's, so a test that pauses tokio's time pauses this.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock {
    start: tokio::time::Instant,
}

impl MonotonicClock {
    /// Starts a clock at [`Time::START`].
    pub fn start() -> Self {
        Self {
            start: tokio::time::Instant::now(),
        }
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Time {
        Time::START.after(self.start.elapsed())
    }
}
