//! The stager that copies: slow, and right everywhere.
//!
//! ```text
//!   <dir>/<random>/root     the staged root; the directory around it keeps other users of the host out
//! ```
//!
//! Every file is the action's own, so nothing that happens to it can reach the store.

use std::fmt;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rootcellar_digest::DigestFunction;
use rootcellar_reapi::{Error, ErrorKind, InputTree, Outputs, RelPath};
use rootcellar_store::{Leased, LocalStore};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::beneath::{Beneath, file_type, join};
use crate::capture::{self, CaptureLimits};
use crate::plan::MTIME;
use crate::remove::Remover;
use crate::write::{Writer, blocking, io_error, staging};
use crate::{Captured, Owner, StageOptions, StagedRoot, Stager};

/// Stages by copying every file out of a local store.
#[derive(Debug)]
pub struct CopyStager {
    store: Arc<dyn LocalStore>,
    dir: PathBuf,
    limits: CaptureLimits,
    remover: Arc<Remover>,
}

impl CopyStager {
    /// Uses `dir`, which is made if it is missing, and is this process's alone. What an earlier process left there is removed
    /// in the background.
    ///
    /// # Errors
    /// If the directory cannot be made or read.
    pub fn open(store: Arc<dyn LocalStore>, dir: impl Into<PathBuf>, limits: CaptureLimits) -> Result<Self, Error> {
        let dir = dir.into();
        let leftovers = prepare(&dir)
            .map_err(|error| io_error(format!("preparing the staging directory {}", dir.display()), error))?;
        let remover = Remover::start().map_err(|error| io_error("starting the thread that removes roots", error))?;
        if !leftovers.is_empty() {
            tracing::info!(
                count = leftovers.len(),
                "removing roots that an earlier run left staged"
            );
        }
        for leftover in leftovers {
            drop(remover.remove(leftover));
        }
        Ok(Self {
            store,
            dir,
            limits,
            remover: Arc::new(remover),
        })
    }
}

fn prepare(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir)?;
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    std::fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

impl fmt::Display for CopyStager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("copy")
    }
}

#[async_trait]
impl Stager for CopyStager {
    async fn stage(&self, tree: &InputTree, options: StageOptions) -> Result<Box<dyn StagedRoot>, Error> {
        let lease = match self.store.lease(&tree.closure()).await? {
            Leased::Held(lease) => lease,
            Leased::Missing(missing) => return Err(Error::missing_blobs(missing)),
        };
        let mut staged = CopiedRoot::create(self)?;
        let writer = Writer::new(self.store.clone(), staged.root.clone(), tree, options.owner);
        writer.write_content().await?;
        drop(lease);
        let root = staged.root.clone();
        staged.made = blocking(move || furnish(&root, &options)).await?;
        writer.finish_directories().await?;
        Ok(Box::new(staged))
    }
}

/// Makes what the action needs beyond its input tree. Returns the mount points that were made.
fn furnish(root: &Beneath, options: &StageOptions) -> Result<Vec<&'static str>, Error> {
    check_working_directory(root, &options.working_directory)?;
    for directory in &options.directories {
        make_dirs(root, directory, options.owner)?;
    }
    let mut made = Vec::new();
    for mount_point in options.mount_points {
        if make_mount_point(root, mount_point, options.owner)? {
            made.push(*mount_point);
        }
    }
    Ok(made)
}

fn check_working_directory(root: &Beneath, path: &RelPath) -> Result<(), Error> {
    let path = path.as_str();
    root.open_dir(path).map(drop).map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Error::new(
            ErrorKind::InvalidArgument,
            format!("the working directory {path:?} is no directory of the input root"),
        ),
        error => staging(path, error),
    })
}

/// Makes `path` and the directories above it where they are missing. Links on the way lead where they lead inside the root.
fn make_dirs(root: &Beneath, path: &RelPath, owner: Owner) -> Result<(), Error> {
    let mut prefix = String::new();
    for segment in path.components() {
        prefix = join(&prefix, segment);
        match root.open_dir(&prefix) {
            Ok(_) => continue,
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(no_directory(&prefix)),
            Err(error) => return Err(staging(&prefix, error)),
        }
        let made = root.make_dir(&prefix).and_then(|()| root.own(&prefix, owner));
        made.and_then(|()| root.set_mtime(&prefix, MTIME))
            .map_err(|error| match error {
                // A link that leads nowhere.
                Errno::EXIST => no_directory(&prefix),
                error => staging(&prefix, error),
            })?;
    }
    Ok(())
}

fn make_mount_point(root: &Beneath, name: &str, owner: Owner) -> Result<bool, Error> {
    match root.stat(name) {
        Ok(stat) if file_type(&stat) == FileType::Directory => Ok(false),
        Ok(_) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("the input root has a {name:?} that is no directory; the sandbox mounts its own there"),
        )),
        Err(Errno::NOENT) => {
            root.make_dir(name)
                .and_then(|()| root.own(name, owner))
                .map_err(|error| staging(name, error))?;
            Ok(true)
        }
        Err(error) => Err(staging(name, error)),
    }
}

fn no_directory(path: &str) -> Error {
    let reason = format!("an output lies below {path:?}, which is no directory in the input root");
    Error::new(ErrorKind::InvalidArgument, reason)
}

/// A staged copy.
#[derive(Debug)]
struct CopiedRoot {
    store: Arc<dyn LocalStore>,
    limits: CaptureLimits,
    remover: Arc<Remover>,
    /// `<dir>/<random>`, until it is removed.
    around: Option<PathBuf>,
    path: PathBuf,
    root: Arc<Beneath>,
    /// Mount points that the input tree does not have.
    made: Vec<&'static str>,
}

impl CopiedRoot {
    fn create(stager: &CopyStager) -> Result<Self, Error> {
        let failed = |error: std::io::Error| io_error(format!("making a directory in {}", stager.dir.display()), error);
        let around = tempfile::Builder::new()
            .prefix("root-")
            .tempdir_in(&stager.dir)
            .map_err(failed)?
            .keep();
        let path = around.join("root");
        let mut staged = Self {
            store: stager.store.clone(),
            limits: stager.limits.clone(),
            remover: stager.remover.clone(),
            root: Arc::new(Beneath::open(&around).map_err(|error| failed(error.into()))?),
            around: Some(around),
            path,
            made: Vec::new(),
        };
        staged.root.make_dir("root").map_err(|error| failed(error.into()))?;
        staged.root = Arc::new(Beneath::open(&staged.path).map_err(|error| failed(error.into()))?);
        Ok(staged)
    }
}

#[async_trait]
impl StagedRoot for CopiedRoot {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn capture(&self, function: DigestFunction, outputs: &Outputs) -> Result<Captured, Error> {
        let (store, limits) = (self.store.clone(), self.limits.clone());
        capture::capture(&self.root, store, function, outputs, &self.made, limits).await
    }

    async fn remove(mut self: Box<Self>) -> Result<(), Error> {
        let around = self.around.take().expect("removed once, by value");
        let subject = format!("removing {}", around.display());
        let removed = self
            .remover
            .remove(around)
            .await
            .expect("the thread answers for every tree it takes");
        removed.map_err(|error| io_error(subject, error))
    }
}

impl Drop for CopiedRoot {
    fn drop(&mut self) {
        if let Some(around) = self.around.take() {
            drop(self.remover.remove(around));
        }
    }
}
