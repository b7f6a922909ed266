//! What waits to be written, in memory: in which order, with what keeps it in the fast store, and its part of what may wait.

use std::collections::VecDeque;

use rootcellar_digest::{Digest, DigestMap};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::{Content, Lease, Verified};

/// Bytes of blobs that wait in memory, so that they need not be read again. Others are read from the fast store.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// Files that are kept open for the same reason.
const FILES_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Digest>,
    /// What waits, and what is being written.
    pub(super) entries: DigestMap<Entry>,
    pub(super) bytes: u64,
    memory_bytes: u64,
    files: usize,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) since: Instant,
    /// The content, if it need not be read again.
    pub(super) blob: Option<Verified>,
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

    pub(super) fn remove(&mut self, digest: &Digest) {
        let Some(entry) = self.entries.remove(digest) else {
            return;
        };
        self.bytes -= digest.size_bytes();
        match entry.blob.as_ref().map(Verified::content) {
            Some(Content::Bytes(_)) => self.memory_bytes -= digest.size_bytes(),
            Some(_) => self.files -= 1,
            None => {}
        }
    }
}
