//! What can be chosen about a store on disk, with the reasons for what is chosen by default.

use std::sync::Arc;
use std::time::Duration;

use crate::ByteCounter;
use crate::io::{Disk, OsDisk};
use crate::layout::{HybridKind, LayoutKind};

/// Settings of a [`DiskStore`](super::DiskStore).
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// How blobs lie on the disk. Chosen when the store is made; later it has to be the same. Small blobs in packs and larger ones
    /// in files: fast for both.
    pub layout: Arc<dyn LayoutKind>,
    /// Bytes that the store keeps under its directory: blobs, packs and logs, what is being ingested, and what
    /// [`others`](Self::others) counts. 50 GiB: some large projects' builds, and less than a small disk.
    pub bytes_max: u64,
    /// What an acknowledged put has survived.
    pub durability: Durability,
    /// How long a blob stays after its last use. 3 hours: longer than a client trusts what it was told at a build's begin.
    pub min_lifetime: Duration,
    /// What gives way when blobs younger than `min_lifetime` fill the store.
    pub when_full: WhenFull,
    /// Reads of the disk at once; others wait. 64: a disk's queue is full with fewer, and threads are cheap.
    pub reads_max: usize,
    /// Bytes under the same directory that others keep: records, images.
    pub others: ByteCounter,
    /// How everything is read again now and then, to find what has rotted; `None` leaves that to the reads.
    pub scrub: Option<Scrub>,
    /// Threads that read the logs when the store is opened. As many as there are processors, up to 8: more only wait for the disk.
    pub start_threads: usize,
    /// The disk. Anything but the operating system's is for tests.
    pub disk: Arc<dyn Disk>,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            layout: Arc::new(HybridKind::default()),
            bytes_max: 50 << 30,
            durability: Durability::default(),
            min_lifetime: Duration::from_secs(3 * 3600),
            when_full: WhenFull::Shorten,
            reads_max: 64,
            others: ByteCounter::default(),
            scrub: Some(Scrub::default()),
            start_threads: std::thread::available_parallelism().map_or(1, |threads| threads.get().min(8)),
            disk: Arc::new(OsDisk),
        }
    }
}

/// How everything is read again now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrub {
    /// Bytes read in a second. 8 MiB: a disk or a processor does not notice, and 50 GiB take two hours.
    pub bytes_per_second: u64,
    /// From the end of one pass to the beginning of the next. A week: bits rot slowly.
    pub interval: Duration,
}

impl Default for Scrub {
    fn default() -> Self {
        Self {
            bytes_per_second: 8 << 20,
            interval: Duration::from_secs(7 * 86_400),
        }
    }
}

/// What a put that was acknowledged has survived. In every mode a blob that is reported present is whole, and a process that
/// is killed loses nothing that it acknowledged: the modes differ in what a crash of the machine loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: content and directory are on the disk before a put returns. Whatever waits is synced together.
    Always,
    /// What was put in the last such interval, and what was put while the disk took to sync it. Costs a sync of what was written in
    /// each interval in which something was. After a crash of the machine, what the last sync may not have covered is hashed before
    /// it counts as present.
    Interval(Duration),
    /// Whatever the kernel had not written by itself. Nothing is synced for the sake of puts: only before something is given up or
    /// tidied, and when the store is closed. After a crash of the machine, everything since the last sync is hashed before it counts
    /// as present.
    None,
}

/// A second: as much as a person repeats without noticing, and a sync a second costs an idle disk nothing.
impl Default for Durability {
    fn default() -> Self {
        Self::Interval(Duration::from_secs(1))
    }
}

/// What happens when there is no room but that of blobs used within `min_lifetime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// They are evicted early, which is logged and counted.
    Shorten,
    /// Puts are refused with [`ErrorKind::Exhausted`](crate::ErrorKind::Exhausted).
    Refuse,
}
