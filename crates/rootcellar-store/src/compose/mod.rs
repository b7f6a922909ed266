//! Stores made of stores. Each is one idea, keeps the contract if what it wraps keeps it, and names in `Display` what it wraps.
//!
//! ```text
//!   Tiered           a fast store in front of a slow one                 tiered/
//!   Sharded          blobs spread over several stores, N copies of each  sharded/
//!   Checked          whole reads are hashed                              checked.rs
//!   ExistenceCached  what was found present is not asked again for a while
//!   Limited          so many operations and bytes at a time
//!   Observed         counts and times
//! ```

mod checked;
mod existence_cached;
mod health;
mod limited;
mod observed;
mod presence;
mod sharded;
mod tasks;
mod tiered;
mod transfer;

pub use self::checked::Checked;
#[cfg(feature = "bucket")]
pub(crate) use self::checked::check_blob;
pub use self::existence_cached::ExistenceCached;
pub use self::limited::{Limited, Limits};
pub use self::observed::{Observation, Observed, Operation, Statistics};
#[cfg(feature = "bucket")]
pub(crate) use self::presence::Presence;
pub use self::presence::PresenceOptions;
pub use self::sharded::{
    Rebalanced, RecordShard, Shard, ShardStatistics, Sharded, ShardedOptions, ShardedRecords, ShardedStatistics,
};
pub use self::tiered::{BehindOptions, BehindStatistics, Tiered, TieredOptions};
