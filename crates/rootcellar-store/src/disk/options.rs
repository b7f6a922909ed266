//! What can be chosen about a store on disk, with the reasons for what is chosen by default.

use std::time::Duration;

use crate::ByteCounter;

/// Settings of a [`DiskStore`](super::DiskStore).
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// Bytes that the store keeps under its directory: whole filesystem blocks and inodes of blobs, what is being ingested, and
    /// what [`others`](Self::others) counts. 50 GiB: some large projects' builds, and less than a small disk.
    pub bytes_max: u64,
    /// What an acknowledged put has survived.
    pub durability: Durability,
    /// How long a blob stays after its last use. 3 hours: longer than a client trusts what it was told at a build's begin.
    pub min_lifetime: Duration,
    /// What gives way when blobs younger than `min_lifetime` fill the store.
    pub when_full: WhenFull,
    /// Operations on the disk at once; others wait. 64: a disk's queue is full with fewer, and threads are cheap.
    pub jobs_max: usize,
    /// Bytes under the same directory that others keep: records, images.
    pub others: ByteCounter,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            bytes_max: 50 << 30,
            durability: Durability::default(),
            min_lifetime: Duration::from_secs(3 * 3600),
            when_full: WhenFull::Shorten,
            jobs_max: 64,
            others: ByteCounter::default(),
        }
    }
}

/// What a put that was acknowledged has survived. In every mode a blob that is reported present is whole, and a process that
/// is killed loses nothing that it acknowledged: the modes differ in what a crash of the machine loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: content and directory are on the disk before a put returns. Each batch waits for the disk.
    Always,
    /// What was put in the last such interval, and some more if the disk is slow to sync. Costs one `syncfs` an interval in
    /// which something was put. After a crash of the machine, what the last sync may not have covered is hashed before it counts
    /// as present.
    Interval(Duration),
    /// Whatever the kernel had not written by itself. Nothing is synced except when the store is opened and closed. After a
    /// crash of the machine, everything since then is hashed before it counts as present.
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
