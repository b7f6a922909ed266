//! Uses of records by readers, noted in memory until the writer takes them along.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::format::Key;

/// Uses that are noted before the writer is asked to write them: some megabytes.
const NOTED_MAX: usize = 16 * 1024;

/// Counts uses, and keeps those that are not in the file yet.
#[derive(Debug)]
pub(super) struct Uses {
    next_stamp: AtomicU64,
    /// Guards the latest use of each record that was read.
    noted: Mutex<HashMap<Key, u64>>,
}

impl Uses {
    pub(super) fn new(next_stamp: u64) -> Self {
        Self {
            next_stamp: AtomicU64::new(next_stamp),
            noted: Mutex::default(),
        }
    }

    /// A number larger than all before it.
    pub(super) fn stamp(&self) -> u64 {
        self.next_stamp.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes a use now. Tells whether the writer should come for the notes. Beyond the bound, uses of further records are
    /// forgotten: their order is less exact then.
    pub(super) fn note(&self, key: Key) -> bool {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < NOTED_MAX || noted.contains_key(&key) {
            noted.insert(key, self.stamp());
        }
        noted.len() >= NOTED_MAX / 2
    }

    pub(super) fn take(&self) -> HashMap<Key, u64> {
        std::mem::take(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
