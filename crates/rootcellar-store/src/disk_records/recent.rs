//! Records that were read lately, in memory: reading one takes no thread and no look at the file.
//!
//! The writer forgets what it changes or evicts, after the change can be seen elsewhere and before anybody is told of it. A reader that had
//! looked elsewhere before that must not bring the old value back: so each forgetting moves a count of the key's part on, and what was read
//! counts only if the count is what it was before the reader looked anywhere, at what is logged above all.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::format::Key;
use crate::Record;
use crate::records::charge;

/// Parts by which keys are told apart where exactness is not needed.
const PARTS: usize = 64;

#[derive(Debug)]
pub(super) struct Recent {
    bytes_max: u64,
    hasher: RandomState,
    forgettings: [AtomicU64; PARTS],
    /// Guards the records, those used last first, and their sum.
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    records: LruCache<Key, Record>,
    bytes: u64,
}

/// When the reading of a record began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun(u64);

impl Recent {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            hasher: RandomState::new(),
            forgettings: std::array::from_fn(|_| AtomicU64::new(0)),
            kept: Mutex::new(Kept {
                records: LruCache::unbounded(),
                bytes: 0,
            }),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No code that holds the lock can stop halfway through a change.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forgettings(&self, key: &[u8]) -> &AtomicU64 {
        let part = self.hasher.hash_one(key) % PARTS as u64;
        &self.forgettings[usize::try_from(part).expect("a small number")]
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Record> {
        self.kept().records.get(key).cloned()
    }

    /// To be called before a record is looked for anywhere.
    pub(super) fn begin(&self, key: &[u8]) -> Begun {
        Begun(self.forgettings(key).load(Ordering::SeqCst))
    }

    /// Keeps what was read, unless it may have changed meanwhile.
    pub(super) fn keep(&self, key: Key, record: &Record, begun: Begun) {
        let bytes = charge(&key, record);
        if bytes > self.bytes_max / 8 {
            return;
        }
        let mut kept = self.kept();
        if self.forgettings(&key).load(Ordering::SeqCst) != begun.0 {
            return;
        }
        kept.remove(&key);
        kept.records.put(key, record.clone());
        kept.bytes += bytes;
        while kept.bytes > self.bytes_max {
            let (key, record) = kept.records.pop_lru().expect("what is counted is there");
            kept.bytes -= charge(&key, &record);
        }
    }

    /// Forgets records that have changed.
    pub(super) fn forget<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>) {
        let mut kept = self.kept();
        for key in keys {
            self.forgettings(key).fetch_add(1, Ordering::SeqCst);
            kept.remove(key);
        }
    }

    /// Forgets everything: nobody knows what the file has.
    pub(super) fn clear(&self) {
        let mut kept = self.kept();
        for part in &self.forgettings {
            part.fetch_add(1, Ordering::SeqCst);
        }
        kept.records.clear();
        kept.bytes = 0;
    }
}

impl Kept {
    fn remove(&mut self, key: &[u8]) {
        if let Some((key, record)) = self.records.pop_entry(key) {
            self.bytes -= charge(&key, &record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &'static str) -> Record {
        Record {
            value: value.into(),
            expires: None,
        }
    }

    fn key(text: &str) -> Key {
        text.as_bytes().into()
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept_after_it() {
        let recent = Recent::new(1 << 20);
        let begun = recent.begin(b"a");
        recent.forget([&b"a"[..]]);
        recent.keep(key("a"), &record("old"), begun);
        assert_eq!(recent.get(b"a"), None);
        let begun = recent.begin(b"a");
        recent.keep(key("a"), &record("new"), begun);
        assert_eq!(recent.get(b"a"), Some(record("new")));
        recent.clear();
        assert_eq!(recent.get(b"a"), None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_was_used_last_stays() {
        let recent = Recent::new(10_000);
        for number in 0..100 {
            let name = number.to_string();
            recent.keep(key(&name), &record("value"), recent.begin(name.as_bytes()));
            recent.get(b"0").expect("it is used all the time");
        }
        let kept = (0..100)
            .filter(|number| recent.get(number.to_string().as_bytes()).is_some())
            .count();
        assert!((20..60).contains(&kept), "{kept}");
        assert!(recent.kept().bytes <= 10_000);
    }
}
