//! What a store on disk can tell about itself.

use std::time::Duration;

/// Numbers about a [`DiskStore`](super::DiskStore) since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskStatistics {
    /// Blobs that are present.
    pub blobs: u64,
    /// Bytes of the disk that they are counted with.
    pub bytes: u64,
    /// The part of `bytes` that leases protect.
    pub leased_bytes: u64,
    /// Bytes of content that is being ingested.
    pub spooled_bytes: u64,
    /// Bytes that others keep under the same directory.
    pub other_bytes: u64,
    /// The bound on the sum of `bytes`, `spooled_bytes` and `other_bytes`.
    pub bytes_max: u64,
    /// Blobs that had to make room.
    pub evicted_blobs: u64,
    /// Bytes of the disk that this freed.
    pub evicted_bytes: u64,
    /// Evicted blobs that were used within the least lifetime that was promised.
    pub evicted_early_blobs: u64,
    /// The shortest time between a blob's last use and its eviction, if it was below the promised one.
    pub shortest_lifetime: Option<Duration>,
    /// Blobs dropped because their content was not what their digest says: torn ones at the start included.
    pub damaged_blobs: u64,
    /// Files that were found among the blobs at the start, are none, and were left alone.
    pub odd_files: u64,
}

/// The numbers that only ever grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) evicted_blobs: u64,
    pub(super) evicted_bytes: u64,
    pub(super) evicted_early_blobs: u64,
    pub(super) shortest_lifetime: Option<Duration>,
    pub(super) damaged_blobs: u64,
    pub(super) odd_files: u64,
}

impl Counters {
    pub(super) fn evicted(&mut self, bytes: u64, lived: Duration, promised: Duration) {
        self.evicted_blobs += 1;
        self.evicted_bytes += bytes;
        if lived < promised {
            self.evicted_early(lived);
        }
    }

    fn evicted_early(&mut self, lived: Duration) {
        self.evicted_early_blobs += 1;
        let shortest = self.shortest_lifetime;
        // One line for each halving of the effective lifetime tells the operator, and does not flood the log.
        if shortest.is_none_or(|shortest| lived < shortest / 2) {
            tracing::warn!(
                lifetime = ?lived,
                "the store is too small for the lifetime it promises: evicting blobs used lately"
            );
        }
        self.shortest_lifetime = Some(shortest.map_or(lived, |shortest| shortest.min(lived)));
    }
}
