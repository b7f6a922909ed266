//! What is in a spool file so far.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::hashing::Hashing;
use super::partial::Partial;
use crate::Result;

/// A file that is being written, and the hash of what is in it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) hashing: Hashing,
    pub(super) partial: Partial,
    /// How much of the file can be read.
    readable_bytes: Arc<AtomicU64>,
}

impl Written {
    pub(super) fn new(hashing: Hashing, partial: Partial) -> Self {
        Self {
            hashing,
            partial,
            readable_bytes: Arc::default(),
        }
    }

    /// How much of the file can be read, now and later.
    pub(super) fn readable_bytes(&self) -> Arc<AtomicU64> {
        self.readable_bytes.clone()
    }

    /// Whether hashing takes less time in turns with another one.
    pub(super) fn gains_in_turns(&self) -> bool {
        self.hashing.gains_in_turns()
    }

    /// Makes room for so many bytes more, unless that takes waiting; tells whether there is room.
    pub(super) fn reserve_at_once(&mut self, len: u64) -> Result<bool> {
        self.partial.reserve_at_once(len)
    }

    /// Hashes pieces.
    pub(super) fn hash(&mut self, pieces: &[Bytes]) {
        pieces.iter().for_each(|piece| self.hashing.update(piece));
    }

    /// Hashes pieces of two files, for less than one after the other.
    pub(super) fn hash_both(both: [&mut Self; 2], pieces: [&[Bytes]; 2]) {
        Hashing::update_both(both.map(|written| &mut written.hashing), pieces);
    }

    /// Writes pieces that were hashed. Blocks.
    pub(super) fn write_hashed(&mut self, pieces: &[Bytes]) -> Result<()> {
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &**piece).collect();
        self.partial.write(&pieces)?;
        self.readable_bytes.store(self.partial.written, Ordering::Release);
        Ok(())
    }
}
