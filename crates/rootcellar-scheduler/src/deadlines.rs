//! Things that fall due: a set of keys, each with the moment at which something happens to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::Time;

/// Keys ordered by when they fall due. Every operation is logarithmic.
#[derive(Debug)]
pub(crate) struct Deadlines<K> {
    times: BTreeMap<K, Time>,
    order: BTreeSet<(Time, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self {
            times: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Deadlines<K> {
    /// Lets `key` fall due at `time`, whenever it would have before.
    pub(crate) fn set(&mut self, key: K, time: Time) {
        self.clear(&key);
        self.order.insert((time, key.clone()));
        self.times.insert(key, time);
    }

    /// Takes `key` out.
    pub(crate) fn clear(&mut self, key: &K) {
        if let Some((key, time)) = self.times.remove_entry(key) {
            self.order.remove(&(time, key));
        }
    }

    /// Takes out the key that fell due first, if one has.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<K> {
        let (time, _) = self.order.first()?;
        if *time > now { None } else { self.pop() }
    }

    /// Takes out the key that falls due first.
    pub(crate) fn pop(&mut self) -> Option<K> {
        let (_, key) = self.order.pop_first()?;
        self.times.remove(&key);
        Some(key)
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }
}
