//! The stagers that mount.
//!
//! ```text
//!             /                    what the action sees
//!             │
//!   overlayfs ├── upper            what it writes, in a directory of its own
//!             ├── image            names, modes, times and links of its input root, and what of its files is not found below
//!             └── data             the store's files of larger blobs, by the paths that the image has
//! ```
//!
//! | | the image | small files | needs |
//! |---|---|---|---|
//! | `overlay` | in EROFS ([`in_erofs`]) | a place in one of the store's packs | root |
//! | `overlay-tmpfs` | files in memory ([`in_tmpfs`]) | copied into it | user namespaces: a process in one makes the mounts ([`helper`]) |
//!
//! An image is made once for a root, stays mounted while it is in use now and then ([`images`]), and is shared by all actions on that
//! root. What it shows is leased directory by directory, and roots that are mostly alike share that ([`leased`]). Each action gets an
//! overlay of its own, which takes less than a millisecond whatever the size of the root. Nothing of the store is written to, since
//! nothing of it is in the only layer that can be written.
//!
//! When the action has ended, the overlay is made read-only for good before anything is captured. From then on not even a descriptor
//! that was passed out of the sandbox can change what becomes a blob, so that large outputs are moved and not copied. If something
//! still writes a moment later, everything is copied.

mod helper;
mod image;
mod images;
mod in_erofs;
mod in_tmpfs;
mod leased;
mod mounts;
mod places;
mod probe;
mod root;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rootcellar_digest::Digest;
use rootcellar_reapi::{Error, ErrorKind};
use rootcellar_store::LocalStore;

pub use self::helper::{MountHelper, serve_mounts};
use self::images::Images;
pub use self::images::{ImageLimits, ImageStatistics};
use self::mounts::{Layers, Marks};
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

/// By what right mounts are made.
#[derive(Debug, Clone)]
pub enum Means {
    /// This process may mount: EROFS images, in which owners other than root are mapped.
    Privileged(Arc<dyn UserNamespaces>),
    /// Another one may, in a user namespace: trees in memory, all of this process's user.
    Unprivileged(Arc<MountHelper>),
}

impl Means {
    fn marks(&self) -> Marks {
        match self {
            Self::Privileged(_) => Marks::Trusted,
            Self::Unprivileged(_) => Marks::User,
        }
    }

    fn is_by_helper(&self) -> bool {
        matches!(self, Self::Unprivileged(_))
    }

    /// Blocks.
    fn mount_overlay(&self, layers: &Layers<'_>) -> io::Result<OwnedFd> {
        match self {
            Self::Privileged(_) => mounts::mount_overlay(layers, Marks::Trusted),
            Self::Unprivileged(helper) => helper.overlay(layers),
        }
    }

    /// Blocks.
    fn make_read_only(&self, mount: &OwnedFd) -> io::Result<()> {
        use std::os::fd::AsFd as _;

        match self {
            Self::Privileged(_) => mounts::make_read_only(mount.as_fd()),
            Self::Unprivileged(helper) => helper.make_read_only(mount.as_fd()),
        }
    }
}

/// What an [`OverlayStager`] is made of.
#[derive(Debug)]
pub struct OverlayOptions {
    /// What holds for all roots.
    pub roots: StagerOptions,
    /// Bounds on the images that are kept.
    pub images: ImageLimits,
    /// By what right it mounts.
    pub means: Means,
}

/// Stages by mounting an image over the files of a local store.
///
/// Wants Linux 6.16 or newer. [`Means::Privileged`] also wants the right to mount in the host's own user namespace, and a store on a
/// disk whose files EROFS can be mounted from: not on tmpfs, and not on another overlayfs.
#[derive(Debug)]
pub struct OverlayStager {
    store: Arc<dyn LocalStore>,
    dir: StageDir,
    /// The directory of the store's files, where it has some.
    data: Option<Arc<Path>>,
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
        let dir = StageDir::open(&dir.into())?;
        let data = store.loose_dir().as_deref().map(absolute).transpose()?;
        let images = Images::new(store.clone(), dir.clone(), &options);
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
        f.write_str(match self.options.means {
            Means::Privileged(_) => "overlay",
            Means::Unprivileged(_) => "overlay-tmpfs",
        })
    }
}

#[async_trait]
impl Stager for OverlayStager {
    async fn stage(&self, root: Digest, options: StageOptions) -> Result<Box<dyn StagedRoot>, Error> {
        let image = self.images.get(root).await?;
        let owned = match &self.options.means {
            Means::Privileged(namespaces) => image.owned_by(options.owner, &**namespaces).await?,
            Means::Unprivileged(_) => {
                check_own(options.owner)?;
                None
            }
        };
        let new = root::NewRoot {
            store: self.store.clone(),
            function: root.function(),
            limits: self.options.roots.capture.clone(),
            dir: self.dir.clone(),
            data: self.data.clone(),
            means: self.options.means.clone(),
            image,
            owned,
        };
        let staged = blocking(move || OverlayRoot::make(new, &options)).await?;
        Ok(Box::new(staged))
    }
}

/// A process without privileges has no files but its own to give.
fn check_own(owner: Owner) -> Result<(), Error> {
    match owner == Owner::current() {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Internal,
            format!("a root in a user namespace cannot belong to user {}", owner.uid),
        )),
    }
}

/// The same directory, wherever a process is that hears of it.
fn absolute(path: &Path) -> Result<Arc<Path>, Error> {
    let absolute = std::fs::canonicalize(path);
    Ok(absolute
        .map_err(|error| io_error(path.display().to_string(), error))?
        .into())
}
