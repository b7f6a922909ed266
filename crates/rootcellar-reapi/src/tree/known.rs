//! Directories that were read before: one input root of a build is mostly like the one before it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use rootcellar_digest::{Digest, Secret};

use super::TreeDirectory;

/// About how much a Directory takes as it was read, for each byte of its message.
const READ_PART: u64 = 3;
/// What it takes at the least.
const LEAST_BYTES: u64 = 512;

/// Keeps Directories for trees to come, those used last. Trees share them.
///
/// That one is here does not say that a store still has it: whoever relies on that takes a lease.
pub struct KnownDirectories {
    bytes_max: u64,
    kept: Mutex<Kept>,
}

struct Kept {
    directories: LruCache<Digest, Arc<TreeDirectory>, Secret>,
    bytes: u64,
}

impl fmt::Debug for KnownDirectories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnownDirectories")
    }
}

impl KnownDirectories {
    /// Keeps about so many bytes at the most.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            kept: Mutex::new(Kept {
                directories: LruCache::unbounded_with_hasher(Secret::default()),
                bytes: 0,
            }),
        }
    }

    /// Those of `digests` that are here.
    pub(super) fn find(&self, digests: &[Digest]) -> Vec<Option<Arc<TreeDirectory>>> {
        let mut kept = self.kept();
        let find = |digest| kept.directories.get(digest).cloned();
        digests.iter().map(find).collect()
    }

    pub(super) fn add(&self, read: Vec<Arc<TreeDirectory>>) {
        let mut gone = Vec::new();
        let mut kept = self.kept();
        for directory in read {
            kept.bytes += bytes_of(&directory);
            if let Some((_, twice)) = kept.directories.push(directory.digest, directory) {
                kept.bytes -= bytes_of(&twice);
                gone.push(twice);
            }
        }
        while kept.bytes > self.bytes_max {
            let Some((_, oldest)) = kept.directories.pop_lru() else {
                break;
            };
            kept.bytes -= bytes_of(&oldest);
            gone.push(oldest);
        }
        // What is large takes a while to be given back: not under the lock.
        drop(kept);
        drop(gone);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes_of(directory: &TreeDirectory) -> u64 {
    LEAST_BYTES + directory.digest.size_bytes() * (1 + READ_PART)
}
