//! A content-addressed store engine: one contract, several backends, no network of its own.
//!
//! [`BlobStore`] is the contract. Content comes in as [`Verified`], which only hashing makes, through a [`Spool`] where it is
//! large, and goes out as [`Blob`]. A store on this machine is also a [`LocalStore`]: it says where blobs lie and leases them.
//! [`Records`] keeps the small mutable things that point at blobs.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> rootcellar_store::Result<()> {
//! use std::sync::Arc;
//!
//! use rootcellar_digest::{Digest, DigestFunction};
//! use rootcellar_store::{BlobStore, BlobStoreExt, DiskOptions, DiskStore, SystemClock};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path().join("store");
//! let store = DiskStore::open(dir, DiskOptions::default(), Arc::new(SystemClock)).await?;
//! let hello = store.put_bytes(DigestFunction::Sha256, "hello\n".into()).await?;
//! let absent = Digest::of(DigestFunction::Sha256, b"nobody put this");
//! assert_eq!(store.find_missing(&[hello, absent]).await?, [absent]);
//! assert_eq!(store.read(hello, 1 << 20).await?, "hello\n");
//! store.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Stores
//!
//! | | |
//! |---|---|
//! | [`DiskStore`] | a directory: packs and files under one engine, with layouts to choose from ([`layout`]) |
//! | [`MemoryStore`] | memory, bounded; what the contract means in the fewest lines |
//! | `Bucket` (feature `bucket`) | a bucket of S3 and its kin, of Google Cloud Storage, of Azure, or a directory |
//! | `rootcellar_grpc::client::Remote` | another server of the Remote Execution API |
//!
//! And made of others, in any depth; `Display` shows the whole composition:
//!
//! | | |
//! |---|---|
//! | [`Tiered`] | a fast store in front of a slow one, written through or behind |
//! | [`Sharded`] | several stores with a part of the blobs each, so many copies of each, healed |
//! | [`ExistenceCached`] | what was found present is not asked again for a while |
//! | [`Checked`] | whole reads are hashed on their way out: around a backend that does not do it itself |
//! | [`Limited`], [`Observed`] | bounds on what is asked at a time; counts and times |
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> rootcellar_store::Result<()> {
//! # use std::sync::Arc;
//! # use rootcellar_store::{MemoryStore, Shard, Sharded, ShardedOptions, Spool, SystemClock, Tiered, TieredOptions};
//! # let dir = tempfile::tempdir().unwrap();
//! let shard = |name: &str| Shard {
//!     name: name.to_owned(),
//!     weight: 1.0,
//!     store: Arc::new(MemoryStore::new(1 << 30)),
//!     inventory: None,
//! };
//! let shards = vec![shard("a"), shard("b"), shard("c")];
//! let spool = Spool::new(dir.path());
//! let slow = Sharded::new(shards, spool.clone(), ShardedOptions::default().with_replicas(2))?;
//! let fast = Arc::new(MemoryStore::new(1 << 20));
//! let store = Tiered::new(fast, Arc::new(slow), spool, &TieredOptions::default(), Arc::new(SystemClock));
//! assert!(store.to_string().starts_with("tiered(memory(1048576 bytes), write-through sharded(2 copies on a memory("));
//! # Ok(())
//! # }
//! ```
//!
//! # A backend of your own
//!
//! Implement [`BlobStore`]; the conformance suite in `testing` (feature `testing`) says whether it keeps the contract, clause by clause, and
//! `testing::Faulty` what becomes of it when what it stands on fails. `examples/custom_backend.rs` is one of sixty lines,
//! `examples/store_alone.rs` uses the engine without anything else, and `rootcellar-bench` has an example of a layout of your own.

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
mod pooled_buffer;
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
pub use pending::Pending;
pub use pooled_buffer::PooledBuffer;
pub use records::{Record, RecordKind, Records};
pub use spool::{HashedFile, Ingest, Spool};
pub use store::{BlobStore, BlobStoreExt, Kept, Mark};
pub use verified::{Content, SpoolFile, Verified};
