//! One action's root: an overlay over a shared image.
//!
//! ```text
//!   <stage dir>/root-<random>/upper   what the action writes
//!                             work    overlayfs's own
//! ```

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rootcellar_digest::DigestFunction;
use rootcellar_reapi::{Error, Outputs};
use rootcellar_store::LocalStore;

use super::Means;
use super::image::Image;
use super::mounts::Layers;
use crate::attributes::Attributes;
use crate::beneath::Beneath;
use crate::capture::{Capture, CaptureLimits};
use crate::furnish::furnish;
use crate::stage_dir::{Room, StageDir};
use crate::write::{blocking, io_error, staging};
use crate::{Access, Captured, StageOptions, StagedRoot, usage};

/// How often it is tried to make an overlay read-only, and how long in between. What still writes after all processes are gone is work
/// that the kernel finishes for them, within some 60 ms.
const READ_ONLY_TRIES: u32 = 12;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// What a root is made of.
#[derive(Debug)]
pub(super) struct NewRoot {
    pub(super) store: Arc<dyn LocalStore>,
    pub(super) function: DigestFunction,
    pub(super) limits: CaptureLimits,
    pub(super) dir: StageDir,
    pub(super) data: Option<Arc<Path>>,
    pub(super) means: Means,
    pub(super) image: Arc<Image>,
    /// The image as its owner has it, if that is not root.
    pub(super) owned: Option<Arc<OwnedFd>>,
}

/// A staged overlay.
#[derive(Debug)]
pub(super) struct OverlayRoot {
    store: Arc<dyn LocalStore>,
    function: DigestFunction,
    limits: CaptureLimits,
    means: Means,
    upper: Arc<Beneath>,
    mount: Arc<OwnedFd>,
    path: PathBuf,
    /// Holds the mount too, so that its last descriptor is closed where that may take a while: all that was looked at goes with it.
    room: Room,
    image: Arc<Image>,
}

impl OverlayRoot {
    /// Mounts an overlay, and makes what the action needs in it. Blocks.
    pub(super) fn make(new: NewRoot, options: &StageOptions) -> Result<Self, Error> {
        let NewRoot {
            store,
            function,
            limits,
            dir,
            data,
            means,
            image,
            owned,
        } = new;
        let mut room = dir.room()?;
        make_layers(room.path(), &image, options).map_err(|error| io_error("making the layers of a root", error))?;
        let (upper, work) = (room.path().join("upper"), room.path().join("work"));
        let layers = Layers {
            lower: owned.as_deref().map_or(image.mount(), OwnedFd::as_fd),
            upper: &upper,
            work: &work,
            data: data.as_deref(),
        };
        let mounted = means.mount_overlay(&layers);
        let mount = mounted.map_err(|error| io_error("mounting an overlay", error))?;
        let mount = Arc::new(mount);
        room.hold(mount.clone());
        let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        furnish(&Beneath::open_link(&path).map_err(|error| staging("", error))?, options)?;
        Ok(Self {
            store,
            function,
            limits,
            means,
            upper: Arc::new(Beneath::open(&upper).map_err(|error| staging("", error))?),
            mount,
            path,
            room,
            image,
        })
    }

    /// Makes the overlay read-only for good. Tells whether that worked: something may still write.
    async fn finish_writing(&self) -> Result<bool, Error> {
        for _ in 0..READ_ONLY_TRIES {
            let (means, mount) = (self.means.clone(), self.mount.clone());
            let tried = blocking(move || Ok(means.make_read_only(&mount))).await?;
            match tried {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                // It was mounted by a helper that is gone, in a user namespace that is not the new one's.
                Err(error) if self.means.is_by_helper() && error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::debug!("the process that mounted a root is gone: outputs are copied");
                    return Ok(false);
                }
                Err(error) => return Err(io_error("making an overlay read-only", error)),
            }
            collect_sockets();
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        tracing::debug!("something still writes to a root whose processes are gone: outputs are copied");
        Ok(false)
    }
}

/// Makes the kernel look for sockets that hold only each other: descriptors on their way through such are open until it does, and it
/// does when any socket is closed.
fn collect_sockets() {
    if let Err(error) = UnixStream::pair() {
        tracing::debug!(%error, "no sockets to nudge the kernel with");
    }
}

/// Makes the directories for an overlay. The upper one is what the action sees of its root itself.
fn make_layers(room: &Path, image: &Image, options: &StageOptions) -> rustix::io::Result<()> {
    let around = Beneath::open(room)?;
    around.make_dir("work")?;
    around.make_dir("upper")?;
    around.own("upper", options.owner)?;
    around.set_attributes(
        "upper",
        Attributes::of_directory(image.lower.tree().root().properties()),
    )
}

#[async_trait]
impl StagedRoot for OverlayRoot {
    fn path(&self) -> &Path {
        &self.path
    }

    fn mount(&self) -> Option<BorrowedFd<'_>> {
        Some(self.mount.as_fd())
    }

    fn access(&self) -> &Access {
        &self.image.access
    }

    async fn written_bytes(&self, enough: u64) -> Result<u64, Error> {
        let upper = self.upper.clone();
        blocking(move || usage::written_bytes(&upper, enough)).await
    }

    fn disk_room(&self) -> Result<(u64, u64), Error> {
        usage::disk_room(&self.upper)
    }

    async fn capture(&self, outputs: &Outputs) -> Result<Captured, Error> {
        let is_final = self.finish_writing().await?;
        let capture = Capture {
            upper: self.upper.clone(),
            lower: Some(self.image.lower.clone()),
            opaque: self.means.marks().opaque(),
            is_final,
            hidden: self.image.hidden.clone(),
            limits: self.limits.clone(),
        };
        capture.run(self.store.clone(), self.function, outputs).await
    }

    async fn remove(self: Box<Self>) -> Result<(), Error> {
        let Self { room, mount, .. } = *self;
        drop(mount);
        room.remove().await
    }
}
