//! The stager that copies nothing.
//!
//! ```text
//!             /                    what the action sees
//!             │
//!   overlayfs ├── upper            what it writes, in a directory of its own
//!             ├── EROFS image      names, modes, times and links of its input root; of small files, where in which pack they are
//!             └── data             the store's files of larger blobs, by the paths that the image has
//! ```
//!
//! An image is made once for a root, stays mounted while it is in use now and then ([`images`]), and is shared by all actions on that
//! root. Each gets an overlay of its own, which takes less than a millisecond whatever the size of the root. Nothing of the store is
//! written to, since nothing of it is in the only layer that can be written.
//!
//! When the action has ended, the overlay is made read-only for good before anything is captured. From then on not even a descriptor
//! that was passed out of the sandbox can change what becomes a blob, so that large outputs are moved and not copied. If something
//! still writes a moment later, everything is copied.

mod image;
mod images;
mod mounts;
mod probe;
mod root;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use rootcellar_digest::Digest;
use rootcellar_reapi::Error;
use rootcellar_store::LocalStore;
use rustix::fs::{CWD, Mode, OFlags};

use self::images::Images;
pub use self::images::{ImageLimits, ImageStatistics};
pub use self::probe::{OverlayUnavailable, probe_overlay};
use self::root::OverlayRoot;
use crate::stage_dir::StageDir;
use crate::write::{blocking, io_error};
use crate::{Owner, StageOptions, StagedRoot, Stager, StagerOptions};

/// Knows user namespaces by their roots: a mount that is mapped to one shows root's files as that user's.
#[async_trait]
pub trait UserNamespaces: fmt::Debug + Send + Sync + 'static {
    /// A user namespace in which `owner` is the root. Asked for once for each image and owner.
    async fn of(&self, owner: Owner) -> io::Result<OwnedFd>;
}

/// What an [`OverlayStager`] is made of.
#[derive(Debug)]
pub struct OverlayOptions {
    /// What holds for all roots.
    pub roots: StagerOptions,
    /// Bounds on the images that are kept.
    pub images: ImageLimits,
    /// Needed for owners other than root.
    pub namespaces: Arc<dyn UserNamespaces>,
}

/// Stages by mounting an image over the files of a local store.
///
/// Wants the right to mount in the host's own user namespace, Linux 6.16 or newer, and a store on a disk whose files EROFS can
/// be mounted from: not on tmpfs, and not on another overlayfs.
#[derive(Debug)]
pub struct OverlayStager {
    store: Arc<dyn LocalStore>,
    dir: StageDir,
    /// The directory of the store's files, where it has some.
    data: Option<Arc<OwnedFd>>,
    options: OverlayOptions,
    images: Arc<Images>,
}

impl OverlayStager {
    /// Uses `dir`, which is made if it is missing, is this process's alone, and lies on the filesystem of the store. What an earlier
    /// process left there is removed in the background.
    ///
    /// # Errors
    /// If the directory cannot be made or read, or the store's files cannot be reached.
    pub fn open(store: Arc<dyn LocalStore>, dir: impl Into<PathBuf>, options: OverlayOptions) -> Result<Self, Error> {
        let dir = StageDir::open(dir.into())?;
        let open = |path: PathBuf| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, &path, flags, Mode::empty())
                .map_err(|error| io_error(format!("opening {}", path.display()), error))
        };
        let data = store.loose_dir().map(open).transpose()?.map(Arc::new);
        let images = Images::new(
            store.clone(),
            dir.clone(),
            options.roots.clone(),
            options.images.clone(),
        );
        Ok(Self {
            store,
            dir,
            data,
            options,
            images,
        })
    }

    /// How much the images that are kept are worth.
    pub fn image_statistics(&self) -> ImageStatistics {
        self.images.statistics()
    }
}

impl fmt::Display for OverlayStager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("overlay")
    }
}

#[async_trait]
impl Stager for OverlayStager {
    async fn stage(&self, root: Digest, options: StageOptions) -> Result<Box<dyn StagedRoot>, Error> {
        let image = self.images.get(root).await?;
        let owned = image.owned_by(options.owner, &*self.options.namespaces).await?;
        let new = root::NewRoot {
            store: self.store.clone(),
            function: root.function(),
            limits: self.options.roots.capture.clone(),
            dir: self.dir.clone(),
            data: self.data.clone(),
            image,
            owned,
        };
        let staged = blocking(move || OverlayRoot::make(new, &options)).await?;
        Ok(Box::new(staged))
    }
}
