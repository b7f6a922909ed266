//! Runs actions on this machine.
//!
//! [`Workers`] take work from a [`WorkSource`](rootcellar_scheduler::WorkSource); a [`Runner`] runs one action from its digest
//! to its result; the [`sandbox`] is what the command runs in.

mod cgroups;
mod disk;
mod execution;
mod identity;
mod platform;
mod runner;
pub mod sandbox;
mod streams;
mod timeline;
mod workers;

pub use cgroups::{Cgroups, Controller, ResourceLimits, Version};
pub use identity::Slot;
pub use runner::Runner;
pub use workers::Workers;
