//! One of several stores, and whether it is worth asking.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rootcellar_digest::Digest;
use tokio::time::{Instant, timeout};

use crate::{BlobStore, Error, ErrorKind, Inventory, Result};

/// After a failure a shard is left alone for a while, which doubles with each further one.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// A shard that moves fewer bytes in a second is as good as none.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// A store that holds a part of the blobs.
#[derive(Debug, Clone)]
pub struct Shard {
    /// By which it draws its blobs: with another name it has others.
    pub name: String,
    /// Its share, against the others'. With 0 it gets no blobs, and what it has is still read: so it can be emptied.
    pub weight: f64,
    /// The store.
    pub store: Arc<dyn BlobStore>,
    /// The same store, if it can tell what it holds. It takes that to rebalance.
    pub inventory: Option<Arc<dyn Inventory>>,
}

/// A shard, and how it was the last time.
pub(super) struct Watched {
    pub(super) shard: Shard,
    /// Guards what is known of it.
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    /// When it may be asked again, if it failed.
    leave_alone_until: Option<Instant>,
}

impl Watched {
    pub(super) fn new(shard: Shard) -> Self {
        Self {
            shard,
            health: Mutex::default(),
        }
    }

    pub(super) fn store(&self) -> &dyn BlobStore {
        &*self.shard.store
    }

    /// Whether it failed a moment ago.
    pub(super) fn is_down(&self) -> bool {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.leave_alone_until.is_some_and(|until| Instant::now() < until)
    }

    fn note(&self, has_failed: bool) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_failed {
            if health.failures > 0 {
                tracing::info!(shard = %self, "a shard answers again");
            }
            *health = Health::default();
            return;
        }
        let now = Instant::now();
        if health.leave_alone_until.is_some_and(|until| now < until) {
            // Calls that were under way when it failed say nothing new.
            return;
        }
        if health.failures == 0 {
            tracing::warn!(shard = %self, "a shard does not answer, and the others go on without it");
        }
        let pause = PAUSE_FIRST.saturating_mul(1 << health.failures.min(16)).min(PAUSE_MAX);
        health.failures = health.failures.saturating_add(1);
        health.leave_alone_until = Some(now + pause);
    }

    fn late(&self, operation: &'static str, patience: Duration) -> Error {
        let reason = format!("{self} did not answer within {patience:?}");
        Error::new(ErrorKind::Unavailable, operation, reason)
    }

    /// Makes a call, and learns from it.
    pub(super) async fn call<T>(
        &self,
        operation: &'static str,
        patience: Duration,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let outcome = match timeout(patience, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.late(operation, patience)),
        };
        self.note(outcome.as_ref().is_err_and(is_absence));
        outcome
    }

    /// Makes a call about many blobs, and learns from it.
    pub(super) async fn call_many<T>(
        &self,
        operation: &'static str,
        patience: Duration,
        digests: &[Digest],
        call: impl Future<Output = Vec<Result<T>>>,
    ) -> Vec<Result<T>> {
        let outcomes = match timeout(patience, call).await {
            Ok(outcomes) => outcomes,
            Err(_) => digests
                .iter()
                .map(|digest| Err(self.late(operation, patience).on(*digest)))
                .collect(),
        };
        if !outcomes.is_empty() {
            self.note(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(is_absence)));
        }
        outcomes
    }
}

/// Whether an error says that the shard is not there, rather than something about a blob.
fn is_absence(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable
}

/// How long a call may take that moves bytes.
pub(super) fn patience_for(patience: Duration, bytes: u64) -> Duration {
    patience + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN)
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.shard.name, self.shard.store)
    }
}
