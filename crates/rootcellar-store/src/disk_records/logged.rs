//! What is in the log and not in the database yet, in memory: readers look here first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::format::Key;
use super::writer::Change;
use crate::Record;

/// What became of a record.
#[derive(Debug, Clone)]
pub(super) struct Late {
    /// `None` if it was removed.
    pub(super) record: Option<Record>,
    /// When, by the count of uses.
    pub(super) stamp: u64,
}

impl Late {
    /// What a change makes of its record.
    pub(super) fn of(change: Change, stamp: u64) -> (Key, Self) {
        let (key, record) = match change {
            Change::Put(key, record) => (key, Some(record)),
            Change::Remove(key) => (key, None),
        };
        (key, Self { record, stamp })
    }
}

#[derive(Debug, Default)]
pub(super) struct Logged(
    /// Changed by the writer only, in steps that cannot stop halfway.
    RwLock<HashMap<Key, Late>>,
);

impl Logged {
    /// What the log says of a record; `None` if nothing.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Record>> {
        self.read().get(key).map(|late| late.record.clone())
    }

    /// All of it, in the order of the keys.
    pub(super) fn all(&self) -> BTreeMap<Key, Late> {
        self.read()
            .iter()
            .map(|(key, late)| (key.clone(), late.clone()))
            .collect()
    }

    pub(super) fn add(&self, changes: Vec<Change>, mut stamp: impl FnMut() -> u64) {
        self.write()
            .extend(changes.into_iter().map(|change| Late::of(change, stamp())));
    }

    /// Forgets what was changed before a stamp, and not since.
    pub(super) fn forget_before(&self, stamp: u64) {
        let gone: Vec<_> = self.write().extract_if(|_, late| late.stamp < stamp).collect();
        // Without the lock, for which readers wait.
        drop(gone);
    }

    pub(super) fn clear(&self) {
        let gone = std::mem::take(&mut *self.write());
        drop(gone);
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Key, Late>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Key, Late>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
