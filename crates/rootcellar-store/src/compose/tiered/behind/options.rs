//! How puts are written behind, and what is told of it.

use std::time::Duration;

/// How puts are written behind. Each value has a default and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BehindOptions {
    /// Bytes that may wait, 4 GiB. They are kept in the fast store until they are written: let it be a quarter of that at the most.
    pub bytes_max: u64,
    /// Blobs that may wait, 200,000: each takes some 300 bytes of memory.
    pub blobs_max: usize,
    /// How long a put waits for room before it is refused, 30 s: less than clients wait for an answer.
    pub patience: Duration,
    /// Batches that are written at a time, 8.
    pub writers: usize,
    /// Whether the list is synced before a put is acknowledged. If not, it is synced each second: a power cut may leave a blob that was put
    /// just before in the fast store only, until it is used again.
    pub is_synced: bool,
}

impl Default for BehindOptions {
    fn default() -> Self {
        Self {
            bytes_max: 4 << 30,
            blobs_max: 200_000,
            patience: Duration::from_secs(30),
            writers: 8,
            is_synced: false,
        }
    }
}

impl BehindOptions {
    /// Lets so many bytes wait.
    #[must_use]
    pub fn with_bytes_max(self, bytes_max: u64) -> Self {
        Self { bytes_max, ..self }
    }

    /// Lets so many blobs wait.
    #[must_use]
    pub fn with_blobs_max(self, blobs_max: usize) -> Self {
        Self { blobs_max, ..self }
    }

    /// Refuses puts after they waited so long.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Syncs the list before a put is acknowledged.
    #[must_use]
    pub fn synced(self, is_synced: bool) -> Self {
        Self { is_synced, ..self }
    }
}

/// How far behind the slow store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BehindStatistics {
    /// Blobs that wait.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How long the oldest of them waits.
    pub oldest: Duration,
    /// Blobs that were written since the start.
    pub written: u64,
    /// Attempts that failed since the start, and were or will be repeated.
    pub failures: u64,
    /// Puts that were refused since the start because nothing more could wait.
    pub refused: u64,
    /// Blobs that will not be written, because the fast store lost them or the slow one refuses them. Each is an error in the log.
    pub lost: u64,
}
