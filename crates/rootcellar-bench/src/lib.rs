//! Storage under the workload of builds: layouts of the engine, and whatever else keeps blobs, side by side.

mod candidate;
mod figures;
mod mix;
mod random;
mod usage;

pub use candidate::{Candidate, CandidateKind, DiskCandidate};
pub use figures::figures;
pub use mix::{MIXES, Mix};
pub use random::Random;
pub use usage::Usage;
