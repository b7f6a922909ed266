//! Results that were found complete a while ago, so that they need not be found complete again.
//!
//! A closure can have tens of thousands of blobs. A store that keeps an order of uses can say in one word whether all that was used
//! since a moment is still there ([`BlobStore::has_kept`]). So a hit remembers the moment before the closure was looked through,
//! and the next hit asks about that moment. When the uses that the look-through noted grow old, it is done again in the background.

use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use prost::Message as _;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi;
use rootcellar_store::{BlobStore, Kept, Mark};

/// Results that are remembered.
const RESULTS_MAX: NonZero<usize> = NonZero::new(16 * 1024).expect("not zero");
/// Bytes of a result and its record that are worth remembering. Together with the number: a gigabyte, if all were so large.
const BYTES_MAX: usize = 64 * 1024;

/// What is remembered of complete results.
#[derive(Debug)]
pub(super) struct KeptResults(
    /// Guards the results, those used last first.
    Mutex<LruCache<Digest, KeptResult>>,
);

#[derive(Debug)]
struct KeptResult {
    /// The record that the result was read from: another one is another result.
    record: Bytes,
    result: reapi::ActionResult,
    mark: Mark,
    /// Whether somebody was told that its blobs were used long ago.
    is_being_renewed: bool,
}

/// What is known of a result without looking at its closure.
#[derive(Debug)]
pub(super) enum Known {
    /// It is complete.
    Complete(reapi::ActionResult),
    /// It is complete, and its blobs were used so long ago that the caller should use them again. Only one caller is told so.
    ToBeRenewed(reapi::ActionResult),
    Nothing,
}

impl Default for KeptResults {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(RESULTS_MAX)))
    }
}

impl KeptResults {
    fn results(&self) -> MutexGuard<'_, LruCache<Digest, KeptResult>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks a result up that was read from `record` before.
    pub(super) fn look_up(&self, store: &dyn BlobStore, action: &Digest, record: &Bytes) -> Known {
        let mut results = self.results();
        let Some(kept) = results.get_mut(action).filter(|kept| kept.record == *record) else {
            return Known::Nothing;
        };
        match store.has_kept(kept.mark) {
            Kept::AllUsedLongAgo if !kept.is_being_renewed => {
                kept.is_being_renewed = true;
                Known::ToBeRenewed(kept.result.clone())
            }
            Kept::All | Kept::AllUsedLongAgo => Known::Complete(kept.result.clone()),
            Kept::Unknown => {
                results.pop(action);
                Known::Nothing
            }
        }
    }

    /// Forgets a result, so that it is looked through again.
    pub(super) fn forget(&self, action: &Digest) {
        self.results().pop(action);
    }

    /// Remembers that a result was complete after `mark`.
    pub(super) fn remember(&self, action: Digest, record: Bytes, result: &reapi::ActionResult, mark: Option<Mark>) {
        let Some(mark) = mark else {
            return;
        };
        if record.len() + result.encoded_len() > BYTES_MAX {
            return;
        }
        let kept = KeptResult {
            record,
            result: result.clone(),
            mark,
            is_being_renewed: false,
        };
        self.results().put(action, kept);
    }
}
