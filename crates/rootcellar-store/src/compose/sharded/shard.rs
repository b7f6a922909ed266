//! One of several stores, and whether it is worth asking.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rootcellar_digest::Digest;
use tokio::time::timeout;

use crate::compose::health::{Health, has_answered};
use crate::{BlobStore, Error, ErrorKind, Inventory, Result};

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
    health: Health,
}

impl Watched {
    pub(super) fn new(shard: Shard) -> Self {
        Self {
            shard,
            health: Health::default(),
        }
    }

    pub(super) fn store(&self) -> &dyn BlobStore {
        &*self.shard.store
    }

    /// Whether it failed a moment ago.
    pub(super) fn is_down(&self) -> bool {
        self.health.is_down()
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
        self.health.note(self, has_answered(&outcome));
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
            self.health.note(self, outcomes.iter().any(has_answered));
        }
        outcomes
    }
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
