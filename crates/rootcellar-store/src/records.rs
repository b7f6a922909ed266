//! The store's other half: small mutable records.
//!
//! Blobs never change; what points at them does. Action results and asset associations are records: a key, a value of some
//! kilobytes, an expiry if there is one. What they mean is known elsewhere.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;

use crate::Result;

/// Names a kind of record. Keys of different kinds never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKind(pub &'static str);

/// A value, and when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The value.
    pub value: Bytes,
    /// When it stops being there; `None` leaves it to the bound of the store.
    pub expires: Option<SystemTime>,
}

/// How "never" is written where an expiry is a number.
const NEVER_MICROS: u64 = u64::MAX;

impl Record {
    /// The expiry as a number, for stores that write records in a form of their own: microseconds since 1970, or all ones for none.
    pub fn expiry_micros(&self) -> u64 {
        let micros = |expires: SystemTime| {
            let since = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
            u64::try_from(since).unwrap_or(NEVER_MICROS)
        };
        self.expires.map_or(NEVER_MICROS, micros)
    }

    /// Makes a record of a value and such a number.
    pub fn of_expiry_micros(value: Bytes, expiry_micros: u64) -> Self {
        let expires = match expiry_micros {
            NEVER_MICROS => None,
            micros => UNIX_EPOCH.checked_add(Duration::from_micros(micros)),
        };
        Self { value, expires }
    }

    /// Whether the record's time is over at `now`.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// What a record costs besides key and value: expiry, recency, and their places in an index.
const ENTRY_BYTES: u64 = 192;

/// The bytes by which a record counts against the bound of a store.
pub(crate) fn charge(key: &[u8], record: &Record) -> u64 {
    charge_bytes(key, record.value.len() as u64)
}

/// The same, where only the length of the value is known.
pub(crate) fn charge_bytes(key: &[u8], value_bytes: u64) -> u64 {
    key.len() as u64 + value_bytes + ENTRY_BYTES
}

/// Keeps records by kind and key.
///
/// 1. **Last write wins.** A `get` that begins after a `put` returned sees that value or a later one.
/// 2. **Expired is absent**, by the clock that the implementation was given.
/// 3. **Bounded.** When the bound is reached, the records used longest ago go first. A store that stands on another one, or on a service,
///    leaves the bound to that.
/// 4. **Whole or absent**, after a crash too: never a mixture of two values.
#[async_trait]
pub trait Records: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Reads a record. Counts as a use of it.
    async fn get(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Record>>;

    /// Writes a record, in place of the one under that key if there is one.
    async fn put(&self, kind: RecordKind, key: &[u8], record: Record) -> Result<()>;

    /// Removes a record if it is there.
    async fn remove(&self, kind: RecordKind, key: &[u8]) -> Result<()>;
}
