//! Whether a store is worth asking: one that does not answer is left alone for a while, which doubles with each further failure.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::{ErrorKind, Result};

const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// How a store was the last time.
#[derive(Debug, Default)]
pub(super) struct Health(
    /// Guards what is known of it.
    Mutex<Known>,
);

#[derive(Debug, Default)]
struct Known {
    failures: u32,
    /// When it may be asked again, if it failed.
    leave_alone_until: Option<Instant>,
}

impl Health {
    /// Whether it failed a moment ago.
    pub(super) fn is_down(&self) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.leave_alone_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether it failed the last time.
    pub(super) fn is_failing(&self) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.failures > 0
    }

    /// Whether it is to be asked: if it failed, by one caller after each pause, so that the others need not find out how long it does not
    /// answer. Whoever is told so asks, and notes the answer.
    pub(super) fn may_be_asked(&self) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match known.leave_alone_until {
            Some(until) if now < until => false,
            Some(_) => {
                known.leave_alone_until = Some(now + pause_after(known.failures));
                known.failures = known.failures.saturating_add(1);
                true
            }
            None => true,
        }
    }

    /// Notes whether `store` answered. What begins and ends is logged, and nothing between.
    pub(super) fn note(&self, store: &impl fmt::Display, has_answered: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if has_answered {
            if known.failures > 0 {
                tracing::info!(%store, "a store answers again");
            }
            *known = Known::default();
            return;
        }
        let now = Instant::now();
        if known.leave_alone_until.is_some_and(|until| now < until) {
            // Calls that were under way when it failed say nothing new.
            return;
        }
        if known.failures == 0 {
            tracing::warn!(%store, "a store does not answer, and is left alone for a while");
        }
        known.leave_alone_until = Some(now + pause_after(known.failures));
        known.failures = known.failures.saturating_add(1);
    }
}

fn pause_after(failures: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX)
}

/// Whether a store answered at all, be it with an error about a blob.
pub(super) fn has_answered<T>(outcome: &Result<T>) -> bool {
    !outcome
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_left_alone_for_longer_each_time_until_it_answers() {
        let health = Health::default();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            health.note(&"store", false);
            // A second failure at the same time counts for nothing.
            health.note(&"store", false);
            let begin = Instant::now();
            while health.is_down() {
                tokio::time::advance(Duration::from_millis(100)).await;
            }
            pauses.push(begin.elapsed().as_millis());
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
        health.note(&"store", true);
        health.note(&"store", false);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(!health.is_down());
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_asked_by_one_caller_after_each_pause() {
        let health = Health::default();
        let asked = |health: &Health| (0..5).filter(|_| health.may_be_asked()).count();
        assert_eq!((asked(&health), health.is_failing()), (5, false));
        health.note(&"store", false);
        assert_eq!((asked(&health), health.is_failing()), (0, true));
        // Those who ask may go away without a word, or find out late: the pauses grow all the same.
        let mut times = 0;
        for _ in 0..600 {
            tokio::time::advance(Duration::from_millis(100)).await;
            times += asked(&health);
            if times % 2 == 1 {
                health.note(&"store", false);
            }
        }
        assert_eq!(times, 7, "after 0.5, 1, 2, 4, 8, 15 and 15 seconds");
        health.note(&"store", true);
        assert_eq!((asked(&health), health.is_failing()), (5, false));
    }
}
