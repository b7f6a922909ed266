//! The two halves of staging: a tree of a store becomes a directory, and what became of it comes back.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use rootcellar_digest::DigestFunction;
use rootcellar_reapi::{Error, InputTree, Outputs, RelPath};

use crate::{Captured, Owner};

/// Puts input roots at paths.
///
/// Whatever the method, the action gets a private tree: nothing that is done to it changes a stored blob or another tree.
#[async_trait]
pub trait Stager: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Stages `tree`.
    ///
    /// # Errors
    /// `FailedPrecondition` with all missing blobs; `InvalidArgument` if the tree cannot be staged as `options` want it.
    async fn stage(&self, tree: &InputTree, options: StageOptions) -> Result<Box<dyn StagedRoot>, Error>;
}

/// How a root is staged.
#[derive(Debug, Clone)]
pub struct StageOptions {
    /// Who owns every file: the id on the host that the action's own id maps to.
    pub owner: Owner,
    /// Has to be a directory of the tree.
    pub working_directory: RelPath,
    /// Directories made where they are missing: the parents of outputs.
    pub directories: BTreeSet<RelPath>,
    /// Top-level directories over which the sandbox mounts something. One that is made here is no output.
    pub mount_points: &'static [&'static str],
}

/// A root that an action can run in. Dropping it removes it in the background.
#[async_trait]
pub trait StagedRoot: fmt::Debug + Send + Sync {
    /// The directory that becomes `/`.
    fn path(&self) -> &Path;

    /// Brings the outputs into the store, named by `function`. No process of the action is left when this is called.
    ///
    /// # Errors
    /// `FailedPrecondition` if the action left something that is no output of the kind asked for; `ResourceExhausted` if it
    /// left too much.
    async fn capture(&self, function: DigestFunction, outputs: &Outputs) -> Result<Captured, Error>;

    /// Removes it, and returns when it is gone.
    async fn remove(self: Box<Self>) -> Result<(), Error>;
}
