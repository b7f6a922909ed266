//! Conformance suites: what the contracts promise, as functions that any implementation can be run against.
//!
//! There is one function for each numbered clause of [`BlobStore`](crate::BlobStore), [`LocalStore`](crate::LocalStore) and
//! [`Records`](crate::Records). [`check_blob_store`], [`check_local_store`] and [`check_records`] run all of one suite, each
//! clause on a store of its own, and panic with the clause's number and words where it is broken.
//!
//! ```
//! # tokio::runtime::Builder::new_multi_thread().build().unwrap().block_on(async {
//! use rootcellar_store::{MemoryStore, testing};
//! use std::sync::Arc;
//!
//! testing::check_blob_store(async |bytes_max| Arc::new(MemoryStore::new(bytes_max)) as _).await;
//! # });
//! ```

#![expect(clippy::unwrap_used, reason = "a panic here is how a suite reports")]

pub mod blob_store;
mod clock;
mod faulty;
pub mod local_store;
mod persistent;
pub mod power_cut;
pub mod records;
mod seeded;
mod simulated_disk;
mod skip;

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

pub use self::blob_store::check_blob_store;
pub use self::clock::ManualClock;
pub use self::faulty::{Faulty, StoreFault};
pub use self::local_store::check_local_store;
pub use self::persistent::Persistent;
pub use self::power_cut::{Lanes, check_power_cuts, check_power_cuts_on};
pub use self::records::{check_records, check_unbounded_records};
pub use self::seeded::Seeded;
pub use self::simulated_disk::{Fault, Loss, SimulatedDisk};
pub use self::skip::skip;
pub use crate::engine::lanes::{Lane, Next};
pub use crate::engine::stepped::{SteppedPut, SteppedStore};

/// Room enough for whatever a clause puts into a store.
const ROOMY_BYTES: u64 = 256 << 20;

/// Runs one clause and says which one it was if it panics.
async fn report(clause: &str, store: String, run: BoxFuture<'_, ()>) {
    if let Err(panic) = AssertUnwindSafe(run).catch_unwind().await {
        panic!("{store} breaks the clause \"{clause}\": {}", words(&*panic));
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}
