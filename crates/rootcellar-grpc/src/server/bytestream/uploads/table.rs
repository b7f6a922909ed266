//! Which uploads there are, by name: those with a writer, and those set aside without one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use rootcellar_store::Ingest;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::server::limits::UploadLimits;

/// All uploads by resource name.
///
/// Methods hand back what they remove, so that files are deleted without the lock that guards this.
#[derive(Debug)]
pub(super) struct Table {
    /// From the one parked longest ago to the latest.
    parked: LruCache<Arc<str>, Parked>,
    parked_bytes: u64,
    active: HashMap<Arc<str>, Vec<Arc<Writer>>>,
}

/// An upload without a writer.
#[derive(Debug)]
pub(super) struct Parked {
    ingest: Ingest,
    told_bytes: u64,
    since: Instant,
}

/// What others may know of an active upload, and ask of it.
#[derive(Debug)]
pub(super) struct Writer {
    committed_bytes: AtomicU64,
    /// The last answer that was given for this upload while it went on. A client may continue from there, though more has
    /// been taken since: it cannot know.
    told_bytes: AtomicU64,
    /// Someone continues this upload elsewhere: its own connection is most likely dead.
    pub(super) give_way: Notify,
}

/// What there is for one who wants to continue an upload.
pub(super) enum Found {
    /// The upload, with at least as many bytes as were asked for.
    Upload(Box<Ingest>),
    /// Its writers, which were told to give way.
    Busy,
    /// Nothing with that many bytes.
    Other { committed_bytes: Option<u64> },
}

impl Writer {
    pub(super) fn new(committed_bytes: u64) -> Self {
        Self {
            committed_bytes: committed_bytes.into(),
            told_bytes: 0.into(),
            give_way: Notify::new(),
        }
    }

    pub(super) fn commit(&self, committed_bytes: u64) {
        self.committed_bytes.store(committed_bytes, Ordering::Relaxed);
    }
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            parked: LruCache::unbounded(),
            parked_bytes: 0,
            active: HashMap::new(),
        }
    }

    /// Tells how far the upload got that is called `name`.
    pub(super) fn tell(&self, name: &str) -> Option<u64> {
        let parked = self.parked.peek(name).map(|parked| parked.ingest.taken_bytes());
        let writers = self.writers(name);
        let committed = writers
            .iter()
            .map(|writer| writer.committed_bytes.load(Ordering::Relaxed));
        let told = committed.max().max(parked)?;
        for writer in writers {
            writer.told_bytes.store(told, Ordering::Relaxed);
        }
        Some(told)
    }

    /// Takes out the upload that has `offset` bytes.
    pub(super) fn take(&mut self, name: &str, offset: u64) -> Found {
        let parked = self.parked.peek(name);
        if parked.is_some_and(|parked| parked.can_continue_at(offset)) {
            let parked = self
                .remove(name)
                .expect("it was there a line above, under the same lock");
            return Found::Upload(Box::new(parked.ingest));
        }
        let committed_bytes = parked.map(|parked| parked.ingest.taken_bytes());
        let writers = self.writers(name);
        if writers.is_empty() {
            return Found::Other { committed_bytes };
        }
        for writer in writers {
            writer.give_way.notify_one();
        }
        Found::Busy
    }

    /// Sets aside what `writer` has, unless more is set aside already, and makes room for it.
    pub(super) fn park(
        &mut self,
        name: &Arc<str>,
        writer: &Writer,
        ingest: Ingest,
        limits: &UploadLimits,
    ) -> Vec<Parked> {
        let (bytes, room_bytes) = (ingest.taken_bytes(), ingest.room_bytes());
        let parked = Parked {
            ingest,
            told_bytes: writer.told_bytes.load(Ordering::Relaxed),
            since: Instant::now(),
        };
        let furthest = self.parked.peek(name).map_or(0, |parked| parked.ingest.taken_bytes());
        if bytes <= furthest || room_bytes > limits.parked_bytes_max {
            return vec![parked];
        }
        let mut dropped = Vec::from_iter(self.remove(name));
        self.parked_bytes += room_bytes;
        self.parked.put(name.clone(), parked);
        while self.parked.len() > limits.parked_max || self.parked_bytes > limits.parked_bytes_max {
            dropped.extend(self.remove_oldest());
        }
        dropped
    }

    /// Removes what was set aside too long ago.
    pub(super) fn expire(&mut self, limits: &UploadLimits) -> Vec<Parked> {
        let mut expired = Vec::new();
        while let Some((_, oldest)) = self.parked.peek_lru()
            && oldest.since.elapsed() > limits.parked_time_max
        {
            expired.extend(self.remove_oldest());
        }
        expired
    }

    /// Removes what is set aside under `name`.
    pub(super) fn remove(&mut self, name: &str) -> Option<Parked> {
        let parked = self.parked.pop(name)?;
        self.parked_bytes -= parked.ingest.room_bytes();
        Some(parked)
    }

    fn remove_oldest(&mut self) -> Option<Parked> {
        let (_, parked) = self.parked.pop_lru()?;
        self.parked_bytes -= parked.ingest.room_bytes();
        Some(parked)
    }

    pub(super) fn enter(&mut self, name: &Arc<str>, writer: &Arc<Writer>) {
        self.active.entry(name.clone()).or_default().push(writer.clone());
    }

    pub(super) fn leave(&mut self, name: &str, writer: &Arc<Writer>) {
        if let Some(writers) = self.active.get_mut(name) {
            writers.retain(|other| !Arc::ptr_eq(other, writer));
            if writers.is_empty() {
                self.active.remove(name);
            }
        }
    }

    fn writers(&self, name: &str) -> &[Arc<Writer>] {
        self.active.get(name).map_or(&[], Vec::as_slice)
    }
}

impl Parked {
    fn can_continue_at(&self, offset: u64) -> bool {
        let committed = self.ingest.taken_bytes();
        offset == committed || offset == self.told_bytes && offset < committed
    }
}
