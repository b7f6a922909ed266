//! What is known to be present, for a while.

use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use lru::LruCache;
use rootcellar_digest::Digest;

/// How long, and of how many blobs, it is remembered that they are present.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresenceOptions {
    /// How long an answer holds, 10 minutes. What a store may lose sooner than that after it was found should be asked more often.
    pub ttl: Duration,
    /// Blobs that are remembered, 500,000: those used longest ago are forgotten first. Each takes some 200 bytes.
    pub entries_max: NonZero<usize>,
}

impl Default for PresenceOptions {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(600),
            entries_max: NonZero::new(500_000).expect("not zero"),
        }
    }
}

impl PresenceOptions {
    /// Remembers for `ttl`.
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// Remembers so many blobs.
    #[must_use]
    pub fn with_entries_max(self, entries_max: NonZero<usize>) -> Self {
        Self { entries_max, ..self }
    }
}

/// Remembers of blobs that they were there, and something more about each. It never remembers that one is missing: somebody else may
/// put it.
#[derive(Debug)]
pub(crate) struct Presence<T> {
    options: PresenceOptions,
    /// Guards the entries. Held for look-ups only.
    entries: Mutex<LruCache<Digest, Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    found: SystemTime,
    about: T,
}

impl<T: Copy> Presence<T> {
    pub(crate) fn new(options: PresenceOptions) -> Self {
        Self {
            // It grows as it is filled: a bound that is never reached costs nothing.
            entries: Mutex::new(LruCache::unbounded()),
            options,
        }
    }

    fn entries(&self) -> MutexGuard<'_, LruCache<Digest, Entry<T>>> {
        // No code that holds the lock can stop halfway through a change.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a blob that was found not too long ago. Counts as a use.
    pub(crate) fn get(&self, digest: &Digest, now: SystemTime) -> Option<T> {
        let mut entries = self.entries();
        let entry = entries.get(digest)?;
        // A clock that was set back makes an answer from the future: it is asked again.
        let is_fresh = now.duration_since(entry.found).is_ok_and(|age| age < self.options.ttl);
        let about = entry.about;
        if !is_fresh {
            entries.pop(digest);
        }
        is_fresh.then_some(about)
    }

    /// Notes that a blob was found, in place of what was known.
    pub(crate) fn note(&self, digest: Digest, now: SystemTime, about: T) {
        let mut entries = self.entries();
        entries.put(digest, Entry { found: now, about });
        if entries.len() > self.options.entries_max.get() {
            entries.pop_lru();
        }
    }

    /// Forgets a blob that is not there after all.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.entries().pop(digest);
    }

    /// How many blobs are known.
    pub(crate) fn len(&self) -> usize {
        self.entries().len()
    }
}
