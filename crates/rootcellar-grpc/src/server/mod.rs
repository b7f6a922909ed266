//! The server's side of the wire.
//!
//! [`Services`] puts together what is offered, over any [`BlobStore`](rootcellar_store::BlobStore), and makes routes of it that any `tonic` server can
//! serve; [`serve`] is one that is set up for blobs. Nothing here knows how blobs are kept or actions are run.

mod action_cache;
mod arrivals;
mod assets;
mod bytestream;
mod capabilities;
mod cas;
mod connections;
mod core;
mod execution;
mod frames;
mod health;
mod inventory;
mod limits;
mod observe;
mod serve;
mod services;

pub use self::execution::ExecutionOptions;
pub use self::health::Health;
pub use self::limits::{Limits, UploadLimits};
pub use self::observe::{Observed, ObservedService};
pub use self::serve::{Transport, serve};
pub use self::services::{Served, Services};

/// A size as the API's messages hold it. Sizes come from there, or from files: none has 2^63 bytes.
fn signed(size_bytes: u64) -> i64 {
    i64::try_from(size_bytes).unwrap_or(i64::MAX)
}
