//! Staging: an input root as a directory that an action can have for its own `/`, and the way back.
//!
//! A [`Stager`] puts a tree of a store at a path; the [`StagedRoot`] brings what the action left at its output paths back into
//! the store. [`CopyStager`] copies every file, which works everywhere. [`OverlayStager`] copies nothing: it mounts an image that shows
//! the tree over the store's own bytes, and below a layer that takes what the action writes.

mod access;
mod attributes;
mod beneath;
mod capture;
mod copy;
pub mod erofs;
mod furnish;
mod overlay;
mod plan;
mod remove;
mod stage_dir;
mod stager;
mod usage;
mod write;

pub use access::{Access, Subtree};
pub use beneath::Owner;
pub use capture::{CaptureLimits, Captured, read_tree};
pub use copy::CopyStager;
pub use overlay::{
    ImageLimits, ImageStatistics, Means, MountHelper, OverlayOptions, OverlayStager, OverlayUnavailable,
    UserNamespaces, probe_overlay, serve_mounts,
};
pub use stager::{StageOptions, StagedRoot, Stager, StagerOptions};
pub use write::write_tree;
