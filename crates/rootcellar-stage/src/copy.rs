//! The stager that copies: slow, and right everywhere.
//!
//! ```text
//!   <dir>/<random>/root     the staged root; the directory around it keeps other users of the host out
//! ```
//!
//! Every file is the action's own, so nothing that happens to it can reach the store.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_reapi::{Error, InputTree, Outputs};
use rootcellar_store::{Leased, LocalStore};

use crate::beneath::Beneath;
use crate::capture::{Capture, CaptureLimits};
use crate::furnish::{furnish, make_mount_points, missing_mount_points};
use crate::stage_dir::{Room, StageDir};
use crate::usage;
use crate::write::{PAGE_BYTES, Writer, blocking, io_error};
use crate::{Access, Captured, StageOptions, StagedRoot, Stager, StagerOptions};

/// Stages by copying every file out of a local store.
#[derive(Debug)]
pub struct CopyStager {
    store: Arc<dyn LocalStore>,
    dir: StageDir,
    options: StagerOptions,
}

impl CopyStager {
    /// Uses `dir`, which is made if it is missing, and is this process's alone. What an earlier process left there is removed
    /// in the background.
    ///
    /// # Errors
    /// If the directory cannot be made or read.
    pub fn open(store: Arc<dyn LocalStore>, dir: impl Into<PathBuf>, options: StagerOptions) -> Result<Self, Error> {
        Ok(Self {
            store,
            dir: StageDir::open(&dir.into())?,
            options,
        })
    }
}

impl fmt::Display for CopyStager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("copy")
    }
}

#[async_trait]
impl Stager for CopyStager {
    async fn stage(&self, root: Digest, options: StageOptions) -> Result<Box<dyn StagedRoot>, Error> {
        let tree = InputTree::load_directories(&*self.store, root, &self.options.input).await?;
        let lease = match self.store.lease(&tree.closure()).await? {
            Leased::Held(lease) => lease,
            Leased::Missing(missing) => return Err(Error::missing_blobs(missing)),
        };
        let hidden = missing_mount_points(&tree, self.options.mount_points)?;
        let access = Access::of(&tree, self.options.mount_points)?;
        let room = self.dir.room()?;
        let path = room.path().join("root");
        let make_root = || std::fs::create_dir(&path).and_then(|()| Ok(Beneath::open(&path)?));
        let root_dir = Arc::new(make_root().map_err(|error| io_error(format!("{}", path.display()), error))?);
        let mut staged = CopiedRoot {
            store: self.store.clone(),
            function: root.function(),
            limits: self.options.capture.clone(),
            room,
            path,
            root: root_dir.clone(),
            hidden: hidden.clone(),
            access,
            staged_bytes: 0,
        };
        let writer = Writer::new(self.store.clone(), root_dir.clone(), &tree, options.owner);
        staged.staged_bytes = Writer::sizes(&tree, |_| false).pages * PAGE_BYTES;
        writer.write_content().await?;
        drop(lease);
        blocking(move || {
            make_mount_points(&root_dir, &hidden, options.owner)?;
            furnish(&root_dir, &options)
        })
        .await?;
        writer.finish_directories().await?;
        Ok(Box::new(staged))
    }
}

/// A staged copy.
#[derive(Debug)]
struct CopiedRoot {
    store: Arc<dyn LocalStore>,
    function: DigestFunction,
    limits: CaptureLimits,
    room: Room,
    path: PathBuf,
    root: Arc<Beneath>,
    /// Mount points that the input tree does not have.
    hidden: Vec<&'static str>,
    access: Access,
    /// Bytes of its input files.
    staged_bytes: u64,
}

#[async_trait]
impl StagedRoot for CopiedRoot {
    fn path(&self) -> &Path {
        &self.path
    }

    fn mount(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn access(&self) -> &Access {
        &self.access
    }

    async fn written_bytes(&self, enough: u64) -> Result<u64, Error> {
        let (root, staged) = (self.root.clone(), self.staged_bytes);
        blocking(move || usage::written_bytes(&root, enough.saturating_add(staged)))
            .await
            .map(|bytes| bytes.saturating_sub(staged))
    }

    fn disk_room(&self) -> Result<(u64, u64), Error> {
        usage::disk_room(&self.root)
    }

    async fn capture(&self, outputs: &Outputs) -> Result<Captured, Error> {
        let capture = Capture {
            upper: self.root.clone(),
            lower: None,
            opaque: "",
            // Nothing keeps a descriptor that has escaped from writing.
            is_final: false,
            hidden: self.hidden.clone(),
            limits: self.limits.clone(),
        };
        capture.run(self.store.clone(), self.function, outputs).await
    }

    async fn remove(self: Box<Self>) -> Result<(), Error> {
        self.room.remove().await
    }
}
