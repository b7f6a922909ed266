//! Storage and servers under the workload of builds: layouts of the engine, and whatever else keeps blobs, side by side.
//!
//! ```text
//!   Mix ──> Workload ──> measure(candidate) ──┐
//!                                             ├──> Report ──> a table, JSON, or a page with charts
//!   figures: one question each, with a goal ──┤
//!   staging: what a root costs ───────────────┤
//!   server: any server of the API, under load ┘
//! ```
//!
//! A [`Candidate`] is anything that keeps blobs: the engine over a layout ([`DiskCandidate`]), yours included, or another engine
//! (`benches/compare` has some). Processor time is what counts: it is the same on a busy machine, where time on the clock is not.

mod candidate;
pub mod figures;
mod measure;
mod mix;
mod random;
pub mod report;
pub mod server;
pub mod staging;
mod usage;
mod workload;

pub use candidate::{Candidate, CandidateKind, DiskCandidate};
pub use measure::{Allocated, measure};
pub use mix::{MIXES, Mix};
pub use random::Random;
pub use report::Report;
pub use usage::Usage;
pub use workload::Workload;
