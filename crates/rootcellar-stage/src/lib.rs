//! Staging: an input root as a directory that an action can have for its own `/`, and the way back.
//!
//! A [`Stager`] puts a tree of a store at a path; the [`StagedRoot`] brings what the action left at its output paths back into
//! the store. [`CopyStager`] copies every file, which works everywhere.

mod beneath;
mod capture;
mod copy;
pub mod erofs;
mod plan;
mod remove;
mod stager;
mod write;

pub use beneath::Owner;
pub use capture::{CaptureLimits, Captured, read_tree};
pub use copy::CopyStager;
pub use stager::{StageOptions, StagedRoot, Stager};
pub use write::write_tree;
