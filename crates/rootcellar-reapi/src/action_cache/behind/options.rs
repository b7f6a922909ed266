//! How results are written behind, and what is told of it.

use std::path::PathBuf;
use std::time::Duration;

/// How results are written behind. Each value has a default and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResultsBehindOptions {
    /// The file that lists what waits. One process has it at a time.
    pub list: PathBuf,
    /// Results that may wait, 100,000: each takes some 400 bytes of memory.
    pub results_max: usize,
    /// Bytes of their records, 256 MiB. Records are kept as long as there is room for them: let it be a quarter of that at the most.
    pub bytes_max: u64,
    /// How long a put waits for room before it is refused, 30 s. What is inlined in a result is put into the store, and may wait as long.
    pub patience: Duration,
    /// Results that are written at a time, 8.
    pub writers: usize,
    /// Whether the list is synced before a put is acknowledged. If not, it is synced each second: a power cut may leave a result that was put
    /// just before here only.
    pub is_synced: bool,
}

impl ResultsBehindOptions {
    /// Lists what waits in the file `list`.
    pub fn new(list: impl Into<PathBuf>) -> Self {
        Self {
            list: list.into(),
            results_max: 100_000,
            bytes_max: 256 << 20,
            patience: Duration::from_secs(30),
            writers: 8,
            is_synced: false,
        }
    }

    /// Lets so many results wait.
    #[must_use]
    pub fn with_results_max(self, results_max: usize) -> Self {
        Self { results_max, ..self }
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

/// How far behind the upstream cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultsBehindStatistics {
    /// Results that wait.
    pub results: usize,
    /// How long the oldest of them waits.
    pub oldest: Duration,
    /// Results that were written since the start.
    pub written: u64,
    /// Attempts that failed since the start, and were or will be repeated.
    pub failures: u64,
    /// Puts that were refused since the start because nothing more could wait.
    pub refused: u64,
    /// Results that will never be written, because what they are made of was lost here or because the upstream cache does not take them. Each
    /// is an error in the log.
    pub lost: u64,
}
