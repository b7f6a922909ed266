//! A content-addressed store engine: one contract, several backends, no network.
//!
//! [`BlobStore`] is the contract. Content comes in as [`Verified`], which only hashing makes, through a [`Spool`] where it is
//! large, and goes out as [`Blob`]. A store on this machine is also a [`LocalStore`]: it says where blobs lie and leases them.
//! [`Records`] keeps the small mutable things that point at blobs.

mod blob;
#[cfg(feature = "bucket")]
pub mod bucket;
mod budget;
mod byte_counter;
mod checksum;
mod clock;
mod compose;
mod disk_records;
mod engine;
mod error;
mod fsck;
mod inventory;
pub mod io;
pub mod layout;
mod local;
mod memory;
mod pending;
mod records;
mod spool;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod verified;

pub use blob::{Blob, ByteRange};
pub use byte_counter::{ByteCounter, Share};
pub use clock::{Clock, SystemClock};
pub use compose::{
    BehindOptions, BehindStatistics, Checked, ExistenceCached, Limited, Limits, Observation, Observed, Operation,
    PresenceOptions, Rebalanced, RecordShard, Shard, ShardStatistics, Sharded, ShardedOptions, ShardedRecords,
    ShardedStatistics, Statistics, Tiered, TieredOptions,
};
pub use disk_records::{DiskRecords, RecordsOptions};
pub use engine::{Counters, DiskOptions, DiskStatistics, DiskStore, Durability, Scrub, ScrubProgress, WhenFull};
pub use error::{Error, ErrorKind, Result};
pub use fsck::{FsckOptions, FsckProgress, FsckReport, fsck};
pub use inventory::Inventory;
pub use local::{Lease, LeaseGroups, LeaseHolder, Leased, LocalStore, Location, SeeLocation, Shortage};
pub use memory::{MemoryRecords, MemoryStore};
pub use records::{Record, RecordKind, Records};
pub use spool::{HashedFile, Ingest, Spool};
pub use store::{BlobStore, BlobStoreExt, Kept, Mark};
pub use verified::{Content, SpoolFile, Verified};
