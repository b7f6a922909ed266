//! Records in memory: the reference, bounded, and gone with the process.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lru::LruCache;

use crate::records::charge;
use crate::{Clock, Error, ErrorKind, Record, RecordKind, Records, Result};

/// Bounded [`Records`] in memory. The records used longest ago make room for new ones.
pub struct MemoryRecords {
    bytes_max: u64,
    clock: Arc<dyn Clock>,
    /// Guards records and their sum together.
    contents: Mutex<Contents>,
}

type Key = (RecordKind, Box<[u8]>);

struct Contents {
    records: LruCache<Key, Record>,
    bytes: u64,
}

impl MemoryRecords {
    /// Makes an empty store that keeps up to `bytes_max` bytes, some bookkeeping for each record included.
    pub fn new(bytes_max: u64, clock: Arc<dyn Clock>) -> Self {
        let contents = Contents {
            records: LruCache::unbounded(),
            bytes: 0,
        };
        Self {
            bytes_max,
            clock,
            contents: Mutex::new(contents),
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // No code that holds the lock can stop halfway through a change.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn remove(&mut self, key: &Key) {
        if let Some(record) = self.records.pop(key) {
            self.bytes -= charge(&key.1, &record);
        }
    }

    fn insert(&mut self, key: Key, record: Record, bytes_max: u64) {
        self.remove(&key);
        self.bytes += charge(&key.1, &record);
        self.records.put(key, record);
        while self.bytes > bytes_max {
            let (key, record) = self.records.pop_lru().expect("what is counted is there to be evicted");
            self.bytes -= charge(&key.1, &record);
        }
    }
}

#[async_trait]
impl Records for MemoryRecords {
    async fn get(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Record>> {
        let (key, now) = ((kind, key.into()), self.clock.now());
        let mut contents = self.contents();
        let found = contents.records.get(&key).cloned();
        if found.as_ref().is_some_and(|record| record.is_expired(now)) {
            contents.remove(&key);
            return Ok(None);
        }
        Ok(found)
    }

    async fn put(&self, kind: RecordKind, key: &[u8], record: Record) -> Result<()> {
        let charge = charge(key, &record);
        if charge > self.bytes_max {
            let reason = format!(
                "a record of {charge} bytes exceeds the bound of {} bytes",
                self.bytes_max
            );
            return Err(Error::new(ErrorKind::Exhausted, "put record", reason));
        }
        self.contents().insert((kind, key.into()), record, self.bytes_max);
        Ok(())
    }

    async fn remove(&self, kind: RecordKind, key: &[u8]) -> Result<()> {
        self.contents().remove(&(kind, key.into()));
        Ok(())
    }
}

impl fmt::Display for MemoryRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory records({} bytes)", self.bytes_max)
    }
}

impl fmt::Debug for MemoryRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contents = self.contents();
        f.debug_struct("MemoryRecords")
            .field("records", &contents.records.len())
            .field("bytes", &contents.bytes)
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}
