//! Results that are kept elsewhere: by another server, for all who ask it.
//!
//! What this cache keeps itself is then a note on what it got from there: the closure, so that it need not be gathered again as long as
//! the other one has the same result. The other one is asked each time; that all blobs are there is made sure here, in the store of
//! this cache, whatever the other one promises.

use std::fmt;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lru::LruCache;
use prost::Message as _;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;

use crate::Result;

/// Keeps results of actions, and need not look whether their blobs are there.
#[async_trait]
pub trait ActionResults: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// The result of an action, if there is one.
    async fn get(&self, action: Digest) -> Result<Option<reapi::ActionResult>>;

    /// Keeps a result in place of an earlier one.
    async fn put(&self, action: Digest, result: reapi::ActionResult) -> Result<()>;
}

/// Notes that are remembered. Without one a closure is gathered again.
const NOTES_MAX: NonZero<usize> = NonZero::new(64 * 1024).expect("not zero");

/// Another cache, and which of its results were noted here.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) results: Arc<dyn ActionResults>,
    /// Guards the notes: of an action, the digest of the result as it came.
    notes: Mutex<LruCache<Digest, Digest>>,
}

impl Upstream {
    pub(super) fn new(results: Arc<dyn ActionResults>) -> Self {
        Self {
            results,
            notes: Mutex::new(LruCache::new(NOTES_MAX)),
        }
    }

    fn notes(&self) -> MutexGuard<'_, LruCache<Digest, Digest>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the result that was noted.
    pub(super) fn is_noted(&self, action: &Digest, result: &reapi::ActionResult) -> bool {
        self.notes().get(action) == Some(&name(result))
    }

    /// Notes a result as it came.
    pub(super) fn note(&self, action: Digest, result: &reapi::ActionResult) {
        self.notes().put(action, name(result));
    }
}

fn name(result: &reapi::ActionResult) -> Digest {
    Digest::of(DigestFunction::Blake3, &result.encode_to_vec())
}
