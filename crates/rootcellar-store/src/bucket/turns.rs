//! One change of an object at a time: an upload, a judgement that ends with its removal, or a copy away and back.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use rootcellar_digest::{Digest, DigestMap};
use tokio::sync::Mutex as AsyncMutex;

/// So many that nobody holds any more are no burden.
const ENDED_MAX: usize = 1024;

/// Whose turn it is, object by object. Other servers are not seen here.
#[derive(Debug, Default)]
pub(super) struct Turns(
    /// Guards the turns that somebody holds or waits for, and some that have ended.
    Mutex<DigestMap<Weak<AsyncMutex<()>>>>,
);

impl Turns {
    /// The turns at a blob's object: whoever locks it is alone.
    pub(super) fn of(&self, digest: Digest) -> Arc<AsyncMutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&digest).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() > ENDED_MAX {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::new(AsyncMutex::new(()));
        turns.insert(digest, Arc::downgrade(&turn));
        turn
    }
}
