//! Making calls again: when, how often, and after how long.

use std::future::Future;
use std::time::Duration;

use tonic::Status;
use uuid::Uuid;

use super::failure::{is_transient, retry_delay};

/// How calls are made again that a server could not answer for the moment.
///
/// The pauses grow by doubling and each is cut by a random part of up to half, so that clients that failed together do not come
/// back together. A server that says when to come back is obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// How often a call is made in all, 6: with these pauses, a restart of the server in between goes unnoticed.
    pub attempts_max: u32,
    /// The first pause, 200 ms.
    pub pause_first: Duration,
    /// The longest pause of our own, 5 s.
    pub pause_max: Duration,
    /// The longest pause that a server may ask for, a minute; more than that is cut.
    pub asked_pause_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts_max: 6,
            pause_first: Duration::from_millis(200),
            pause_max: Duration::from_secs(5),
            asked_pause_max: Duration::from_secs(60),
        }
    }
}

impl Retry {
    /// Makes a call that may be made any number of times.
    pub(super) async fn call<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut pauses = self.pauses();
        loop {
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(status) => pauses.pause_after(status).await?,
            }
        }
    }

    pub(super) fn pauses(&self) -> Pauses {
        Pauses {
            retry: self.clone(),
            taken: 0,
        }
    }

    /// The pause after the attempt of this number, counted from 0; `random` is any number.
    fn pause(&self, attempt: u32, asked: Option<Duration>, random: u32) -> Duration {
        let doubled = self.pause_first.saturating_mul(2_u32.saturating_pow(attempt));
        let own = doubled.min(self.pause_max);
        let cut = own.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0);
        let asked = asked.unwrap_or_default().min(self.asked_pause_max);
        asked.max(own - cut)
    }
}

/// The pauses between the attempts of one call.
#[derive(Debug)]
pub(super) struct Pauses {
    retry: Retry,
    taken: u32,
}

impl Pauses {
    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The status itself, if trying again cannot help or was done often enough.
    pub(super) async fn pause_after(&mut self, status: Status) -> Result<(), Status> {
        if !is_transient(&status) || self.taken + 1 >= self.retry.attempts_max {
            return Err(status);
        }
        // The low bits of a random name are random.
        let (random, _, _, _) = Uuid::new_v4().as_fields();
        let pause = self.retry.pause(self.taken, retry_delay(&status), random);
        tracing::debug!(%status, ?pause, "a call is made again");
        tokio::time::sleep(pause).await;
        self.taken += 1;
        Ok(())
    }

    /// Counts from the beginning: the last attempt got further than the one before it.
    pub(super) fn reset(&mut self) {
        self.taken = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_lose_up_to_half() {
        let retry = Retry::default();
        let longest: Vec<_> = (0..7)
            .map(|attempt| retry.pause(attempt, None, 0).as_millis())
            .collect();
        assert_eq!(longest, [200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(retry.pause(1, None, u32::MAX), Duration::from_millis(200));
        assert_eq!(retry.pause(u32::MAX, None, 0), retry.pause_max);
    }

    #[test]
    fn a_pause_that_the_server_asks_for_is_kept_within_reason() {
        let retry = Retry::default();
        let asked = |seconds| retry.pause(0, Some(Duration::from_secs(seconds)), 0);
        assert_eq!(asked(0), retry.pause_first);
        assert_eq!(asked(7), Duration::from_secs(7));
        assert_eq!(asked(100_000), retry.asked_pause_max);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        for (status, expected) in [
            (Status::unavailable("later"), 6),
            (Status::not_found("never"), 1),
            (Status::internal("the server said so"), 1),
        ] {
            let mut calls = 0;
            let outcome: Result<(), _> = Retry::default()
                .call(|| {
                    calls += 1;
                    let status = status.clone();
                    async { Err(status) }
                })
                .await;
            assert_eq!(outcome.unwrap_err().code(), status.code());
            assert_eq!(calls, expected, "{status:?}");
        }
    }
}
