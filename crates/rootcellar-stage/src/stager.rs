//! The two halves of staging: a tree of a store becomes a directory, and what became of it comes back.

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;

use async_trait::async_trait;
use rootcellar_digest::Digest;
use rootcellar_reapi::{Error, Outputs, RelPath, TreeLimits};

use crate::{Access, CaptureLimits, Captured, Owner};

/// Puts input roots at paths.
///
/// Whatever the method, the action gets a private tree: nothing that is done to it changes a stored blob or another tree.
#[async_trait]
pub trait Stager: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Stages the tree under `root`.
    ///
    /// # Errors
    /// `FailedPrecondition` with all missing blobs; `InvalidArgument` if the tree is none, goes past the limits, or cannot be staged as
    /// `options` want it.
    async fn stage(&self, root: Digest, options: StageOptions) -> Result<Box<dyn StagedRoot>, Error>;
}

/// What holds for all roots of a stager.
#[derive(Debug, Clone, Default)]
pub struct StagerOptions {
    /// Top-level directories over which the sandbox mounts something. They are made where they are missing, and are no outputs then.
    pub mount_points: &'static [&'static str],
    /// Bounds on input roots.
    pub input: TreeLimits,
    /// Bounds on what comes back.
    pub capture: CaptureLimits,
}

/// How one root is staged.
#[derive(Debug, Clone)]
pub struct StageOptions {
    /// Who owns every file: the id on the host that the action's own id maps to.
    pub owner: Owner,
    /// Has to be a directory of the tree.
    pub working_directory: RelPath,
    /// Directories made where they are missing: the parents of outputs.
    pub directories: BTreeSet<RelPath>,
}

/// A root that an action can run in. Dropping it removes it in the background.
#[async_trait]
pub trait StagedRoot: fmt::Debug + Send + Sync {
    /// By what path this process reaches the directory that becomes `/`.
    fn path(&self) -> &Path;

    /// The mount that becomes `/`, if it is a mount of its own: not attached anywhere, and to be attached as it is.
    fn mount(&self) -> Option<BorrowedFd<'_>>;

    /// Which parts of it are to be read-only. It is the sandbox that sees to that.
    fn access(&self) -> &Access;

    /// Bytes of the disk that the action has taken so far, or more than `enough` if it has. Walks all that it has written.
    ///
    /// # Errors
    /// `FailedPrecondition` if it nests deeper than can be walked.
    async fn written_bytes(&self, enough: u64) -> Result<u64, Error>;

    /// Bytes that are free on the disk that the action writes to, and its size.
    ///
    /// # Errors
    /// What the filesystem says.
    fn disk_room(&self) -> Result<(u64, u64), Error>;

    /// Brings the outputs into the store, named by the function of the root. No process of the action is left when this is called, and
    /// it is called once: large files are moved where that is safe.
    ///
    /// # Errors
    /// `FailedPrecondition` if the action left something that is no output of the kind asked for; `ResourceExhausted` if it
    /// left too much.
    async fn capture(&self, outputs: &Outputs) -> Result<Captured, Error>;

    /// Removes it, and returns when it is gone.
    async fn remove(self: Box<Self>) -> Result<(), Error>;
}
