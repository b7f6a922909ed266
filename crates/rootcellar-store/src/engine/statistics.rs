//! What a store on disk can tell about itself.

use std::time::Duration;

/// Numbers about a [`DiskStore`](super::DiskStore).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskStatistics {
    /// Blobs that are present.
    pub blobs: u64,
    /// Bytes of memory that the index of these blobs takes.
    pub index_bytes: u64,
    /// Bytes of the disk that the layout takes: blobs, packs with what is free or out of date in them, logs.
    pub bytes: u64,
    /// The part of `bytes` that leases protect.
    pub leased_bytes: u64,
    /// Bytes of content that is being ingested.
    pub spooled_bytes: u64,
    /// Bytes that others keep under the same directory, and the store's own small files.
    pub other_bytes: u64,
    /// The bound on the sum of `bytes`, `spooled_bytes` and `other_bytes`.
    pub bytes_max: u64,
    /// Blobs that a power cut may have torn, and that were not checked yet. They count as absent.
    pub doubtful_blobs: u64,
    /// How far the scrub is.
    pub scrub: ScrubProgress,
    /// What happened since the store was opened.
    pub counters: Counters,
}

/// Numbers that only ever grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Blobs that had to make room.
    pub evicted_blobs: u64,
    /// The bytes of these blobs.
    pub evicted_bytes: u64,
    /// Evicted blobs that were used within the least lifetime that was promised.
    pub evicted_early_blobs: u64,
    /// The shortest time between a blob's last use and its eviction, if it was below the promised one.
    pub shortest_lifetime: Option<Duration>,
    /// Regions whose blobs were moved elsewhere, so that what was out of date in them came back.
    pub compacted_regions: u64,
    /// Bytes of blobs that were moved.
    pub moved_bytes: u64,
    /// Blobs dropped because their content was not what their digest says, torn ones after a power cut included.
    pub damaged_blobs: u64,
    /// Slots of logs that could not be read at the start.
    pub damaged_log_slots: u64,
    /// Batches of puts that were written.
    pub commits: u64,
    /// Syncs.
    pub syncs: u64,
}

/// How far the scrub is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubProgress {
    /// Passes over everything that were finished since the store was opened.
    pub passes: u64,
    /// Blobs that this pass has looked at, of `blobs`.
    pub scrubbed_blobs: u64,
    /// Blobs that this pass looks at; zero between two passes.
    pub blobs: u64,
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
