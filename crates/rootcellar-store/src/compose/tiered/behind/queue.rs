//! What waits to be written, in memory: in which order, with what keeps it in the fast store, and its part of what may wait.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rootcellar_digest::{Digest, DigestMap};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::{Content, Lease, Verified};

/// Bytes of blobs that wait in memory, so that they need not be read again. Others are read from the fast store.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// Files that are kept open for the same reason.
const FILES_MAX: usize = 256;

/// How long a blob waits that the slow store did not take, though it answered: longer each time.
const DEFERRED_FIRST: Duration = Duration::from_secs(1);
const DEFERRED_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// What may be written now, in order. Some of it may have been taken before its turn.
    waiting: VecDeque<Digest>,
    /// What is to be tried again later.
    deferred: BTreeSet<(Instant, Digest)>,
    /// What waits, and what is being written.
    pub(super) entries: DigestMap<Entry>,
    pub(super) bytes: u64,
    memory_bytes: u64,
    files: usize,
    /// Of what waits, what the slow store did not take.
    refused_bytes: u64,
    refused_blobs: usize,
    /// Why a blob could not be written, the last time.
    pub(super) last_failure: Option<String>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) since: Instant,
    /// The content, if it need not be read again.
    pub(super) blob: Option<Verified>,
    /// Whether it is being written.
    is_taken: bool,
    /// Whether it has a place among what waits, or is deferred. What is taken before its turn keeps it.
    is_queued: bool,
    /// How often the slow store did not take it.
    refusals: u32,
    _lease: Lease,
    _room: Option<Taken>,
}

/// A blob's part of what may wait.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) _blob: OwnedSemaphorePermit,
    pub(super) _bytes: OwnedSemaphorePermit,
}

impl Queue {
    pub(super) fn push(&mut self, digest: Digest, blob: Option<Verified>, lease: Lease, room: Option<Taken>) {
        if self.entries.contains_key(&digest) {
            return;
        }
        let blob = blob
            .filter(|blob| self.may_keep(blob))
            .map(Verified::in_memory_of_its_own);
        match blob.as_ref().map(Verified::content) {
            Some(Content::Bytes(_)) => self.memory_bytes += digest.size_bytes(),
            Some(_) => self.files += 1,
            None => {}
        }
        self.bytes += digest.size_bytes();
        let entry = Entry {
            since: Instant::now(),
            blob,
            is_taken: false,
            is_queued: true,
            refusals: 0,
            _lease: lease,
            _room: room,
        };
        self.entries.insert(digest, entry);
        self.waiting.push_back(digest);
    }

    fn may_keep(&self, blob: &Verified) -> bool {
        match blob.content() {
            Content::Bytes(_) => self.memory_bytes + blob.digest().size_bytes() <= MEMORY_BYTES_MAX,
            Content::Spooled(_) | Content::Part(..) => self.files < FILES_MAX,
        }
    }

    /// Takes the next blobs to be written, a part of what waits, and `count_max` at the most.
    pub(super) fn take(&mut self, part: usize, count_max: usize) -> Vec<Digest> {
        let now = Instant::now();
        while self.deferred.first().is_some_and(|(due, _)| *due <= now) {
            let (_, digest) = self.deferred.pop_first().expect("there is one");
            self.waiting.push_back(digest);
        }
        let count = self.waiting.len().div_ceil(part.max(1)).min(count_max);
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some(digest) = self.waiting.pop_front()
        {
            if let Some(entry) = self.entries.get_mut(&digest) {
                entry.is_queued = false;
            }
            taken.extend(self.claim(&digest).then_some(digest));
        }
        taken
    }

    /// Takes a blob whether it is its turn or not; says whether it was waiting.
    pub(super) fn claim(&mut self, digest: &Digest) -> bool {
        match self.entries.get_mut(digest) {
            Some(entry) if !entry.is_taken => {
                entry.is_taken = true;
                true
            }
            _ => false,
        }
    }

    /// Takes a blob before its turn; not if it was refused before.
    pub(super) fn claim_new(&mut self, digest: &Digest) -> bool {
        self.entries.get(digest).is_some_and(|entry| entry.refusals == 0) && self.claim(digest)
    }

    /// Of blobs that were refused, the one whose next try is furthest off, if such blobs take more than half of all that may wait.
    pub(super) fn clogging(&mut self, bytes_max: u64, blobs_max: usize) -> Option<Digest> {
        if self.refused_bytes <= bytes_max / 2 && self.refused_blobs <= blobs_max / 2 {
            return None;
        }
        while let Some((_, digest)) = self.deferred.pop_last() {
            // Others were given up, or are being written, since they were deferred.
            if self.entries.get(&digest).is_some_and(|entry| !entry.is_taken) {
                return Some(digest);
            }
        }
        None
    }

    /// Since when a blob waits that is being written.
    pub(super) fn taken_since(&self, digest: &Digest) -> Option<Instant> {
        self.entries
            .get(digest)
            .filter(|entry| entry.is_taken)
            .map(|entry| entry.since)
    }

    /// Has a blob that was taken wait again.
    pub(super) fn put_back(&mut self, digest: Digest) {
        if let Some(entry) = self.entries.get_mut(&digest) {
            entry.is_taken = false;
            if !std::mem::replace(&mut entry.is_queued, true) {
                self.waiting.push_back(digest);
            }
        }
    }

    /// Has a blob that was taken, and was not to be written, wait for a while; says how often that was so.
    pub(super) fn defer(&mut self, digest: Digest) -> u32 {
        let Some(entry) = self.entries.get_mut(&digest) else {
            return 0;
        };
        entry.is_taken = false;
        let pause = DEFERRED_FIRST
            .saturating_mul(1 << entry.refusals.min(16))
            .min(DEFERRED_MAX);
        if entry.refusals == 0 {
            self.refused_bytes += digest.size_bytes();
            self.refused_blobs += 1;
        }
        entry.refusals = entry.refusals.saturating_add(1);
        let refusals = entry.refusals;
        if !std::mem::replace(&mut entry.is_queued, true) {
            self.deferred.insert((Instant::now() + pause, digest));
        }
        refusals
    }

    /// When there is something to be taken, if nothing comes before: now, or never, or at a time.
    pub(super) fn next_due(&self) -> Option<Instant> {
        match self.waiting.is_empty() {
            true => self.deferred.first().map(|(due, _)| *due),
            false => Some(Instant::now()),
        }
    }

    pub(super) fn remove(&mut self, digest: &Digest) {
        let Some(entry) = self.entries.remove(digest) else {
            return;
        };
        self.bytes -= digest.size_bytes();
        if entry.refusals > 0 {
            self.refused_bytes -= digest.size_bytes();
            self.refused_blobs -= 1;
        }
        match entry.blob.as_ref().map(Verified::content) {
            Some(Content::Bytes(_)) => self.memory_bytes -= digest.size_bytes(),
            Some(_) => self.files -= 1,
            None => {}
        }
    }
}
