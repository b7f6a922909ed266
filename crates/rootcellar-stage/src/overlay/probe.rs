//! Tries the whole way of an overlay once, with two files, before anything depends on it: a kernel's version does not say what works.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::mounts::{self, Layers};
use super::{Means, MountHelper};
use crate::Owner;
use crate::attributes::Attributes;
use crate::beneath::Beneath;
use crate::erofs::{self, Source, Tree};
use crate::remove::remove_tree;
use crate::write::blocking;

const IN_PACK: &[u8] = b"one behind the other";
const LOOSE: &[u8] = b"a file of its own";

/// Why overlays cannot be had.
#[derive(Debug)]
pub struct OverlayUnavailable {
    step: &'static str,
    error: io::Error,
}

impl fmt::Display for OverlayUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, error } = self;
        write!(f, "cannot {step}: {error}")?;
        match self.hint() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for OverlayUnavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl OverlayUnavailable {
    fn hint(&self) -> Option<&'static str> {
        let errno = Errno::from_io_error(&self.error)?;
        Some(match (self.step, errno) {
            (MOUNT_MEMORY, Errno::PERM | Errno::ACCESS) => "user namespaces are not allowed here",
            (MOUNT_IMAGE, Errno::PERM | Errno::ACCESS) => "that takes CAP_SYS_ADMIN on the host: run as root",
            (MARK_FILES, Errno::OPNOTSUPP) => "attributes of users on tmpfs want Linux 6.6 and CONFIG_TMPFS_XATTR",
            (MOUNT_IMAGE, Errno::NOTBLK) => {
                "images can be mounted from files on ext4, xfs or btrfs, from Linux 6.12 on; not from tmpfs or an overlay"
            }
            (MOUNT_IMAGE, Errno::NODEV) => "this kernel has no EROFS: CONFIG_EROFS_FS",
            (MOUNT_OVERLAY, Errno::NODEV) => "this kernel has no overlayfs: CONFIG_OVERLAY_FS",
            (MOUNT_OVERLAY, Errno::INVAL) => "data-only layers and layers that are mounted nowhere want Linux 6.16",
            (MAP_IDS, Errno::INVAL) => "this kernel does not map the ids of EROFS mounts: Linux 5.19",
            _ => return None,
        })
    }
}

const MAKE_FILES: &str = "make files in the staging directory";
const MOUNT_IMAGE: &str = "mount an EROFS image from a file";
const MOUNT_MEMORY: &str = "make a file system in memory, as the root of a user namespace";
const MARK_FILES: &str = "make files in it that lie elsewhere";
const MAP_IDS: &str = "show its files as another user's";
const MOUNT_OVERLAY: &str = "mount an overlay over it";
const READ: &str = "read through the overlay";
const WRITE: &str = "write to the overlay";
const FINISH: &str = "make the overlay read-only";

/// Tries overlays with everything that they are made of, in a new directory in `dir`.
///
/// # Errors
/// The first step that does not work here.
pub async fn probe_overlay(dir: &Path, means: &Means, owner: Owner) -> Result<(), OverlayUnavailable> {
    let namespace = match (means, owner) {
        (Means::Privileged(_), Owner::ROOT) | (Means::Unprivileged(_), _) => None,
        (Means::Privileged(namespaces), owner) => Some(namespaces.of(owner).await.map_err(at(MAP_IDS))?),
    };
    let (dir, means) = (dir.to_owned(), means.clone());
    let tried = blocking(move || {
        let probe = || {
            std::fs::create_dir_all(&dir).map_err(at(MAKE_FILES))?;
            let room = tempfile::Builder::new().prefix("probe-").tempdir_in(&dir);
            // Not left to its drop: overlayfs makes directories that their owner has to open first.
            let room = room.map_err(at(MAKE_FILES))?.keep();
            let tried = try_in(&room, &means, namespace.as_ref(), owner);
            remove_tree(&room).map_err(at(MAKE_FILES)).and(tried)
        };
        Ok(probe())
    });
    tried.await.expect("the closure above has no other error")
}

fn try_in(room: &Path, means: &Means, namespace: Option<&OwnedFd>, owner: Owner) -> Result<(), OverlayUnavailable> {
    make_dirs(room, owner).map_err(at(MAKE_FILES))?;
    let lower = match means {
        Means::Privileged(_) => image(room, namespace)?,
        Means::Unprivileged(helper) => files_in_memory(helper)?,
    };
    try_overlay(room, means, &lower, owner)
}

fn try_overlay(room: &Path, means: &Means, lower: &OwnedFd, owner: Owner) -> Result<(), OverlayUnavailable> {
    let room = std::fs::canonicalize(room).map_err(at(MAKE_FILES))?;
    let layers = Layers {
        lower: lower.as_fd(),
        upper: &room.join("upper"),
        work: &room.join("work"),
        data: Some(&room.join("data")),
    };
    let overlay = means.mount_overlay(&layers).map_err(at(MOUNT_OVERLAY))?;
    read(&overlay, "packed", IN_PACK, owner).map_err(at(READ))?;
    read(&overlay, "loose", LOOSE, owner).map_err(at(READ))?;
    write(&overlay, "packed").map_err(at(WRITE))?;
    means.make_read_only(&overlay).map_err(at(FINISH))?;
    match write(&overlay, "packed") {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        Err(error) => Err(at(FINISH)(error)),
        Ok(()) => Err(at(FINISH)(io::Error::other("it can be written to all the same"))),
    }
}

/// The layers of an overlay, and what the lower one is to name.
fn make_dirs(room: &Path, owner: Owner) -> io::Result<()> {
    let around = Beneath::open(room)?;
    for name in ["data", "upper", "work"] {
        around.make_dir(name)?;
    }
    around.own("upper", owner)?;
    std::fs::write(room.join("data/blob"), LOOSE)
}

/// An image over a pack with one blob, and a file with another.
fn image(room: &Path, namespace: Option<&OwnedFd>) -> Result<OwnedFd, OverlayUnavailable> {
    let make_files = || {
        let mut pack = tempfile::tempfile_in(room)?;
        pack.write_all(IN_PACK)?;
        // As a store lays blobs down: zeros up to the next sector.
        pack.set_len(512)?;
        let attributes = super::in_erofs::attributes(Attributes::of_made_directory());
        let mut tree = Tree::new(attributes);
        let device = Source::Device { number: 1, sector: 0 };
        tree.add_file(Tree::ROOT, "packed", attributes, IN_PACK.len() as u64, device);
        tree.add_file(
            Tree::ROOT,
            "loose",
            attributes,
            LOOSE.len() as u64,
            Source::Redirect("/blob"),
        );
        let mut image = tempfile::tempfile_in(room)?;
        image.write_all(&erofs::encode(tree))?;
        Ok::<_, io::Error>((pack, image))
    };
    let (pack, image) = make_files().map_err(at(MAKE_FILES))?;
    let plain = mounts::mount_image(&image, &[pack.into()]).map_err(at(MOUNT_IMAGE))?;
    match namespace {
        Some(namespace) => mounts::clone_for(&plain, namespace).map_err(at(MAP_IDS)),
        None => Ok(plain),
    }
}

/// The same as files in memory.
fn files_in_memory(helper: &MountHelper) -> Result<OwnedFd, OverlayUnavailable> {
    let memory = helper.memory(1 << 20, 64).map_err(at(MOUNT_MEMORY))?;
    let make_files = || {
        let create = |name: &str| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            openat(&memory, name, flags, Mode::from_raw_mode(0o644)).map(File::from)
        };
        create("packed")?.write_all(IN_PACK)?;
        crate::write::redirect(&create("loose")?, LOOSE.len() as u64, "/blob")?;
        Ok::<_, io::Error>(())
    };
    make_files().map_err(at(MARK_FILES))?;
    Ok(memory)
}

fn read(overlay: &OwnedFd, name: &str, wanted: &[u8], owner: Owner) -> io::Result<()> {
    let file = openat(overlay, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let mut content = Vec::new();
    File::from(file).read_to_end(&mut content)?;
    if content != wanted {
        return Err(io::Error::other("other bytes than were written"));
    }
    if (stat.st_uid, stat.st_gid) != (owner.uid, owner.gid) {
        return Err(io::Error::other(format!(
            "it belongs to user {}, not {}",
            stat.st_uid, owner.uid
        )));
    }
    Ok(())
}

fn write(overlay: &OwnedFd, name: &str) -> io::Result<()> {
    let file = openat(overlay, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    File::from(file).write_all(b"changed")
}

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> OverlayUnavailable {
    move |error| OverlayUnavailable {
        step,
        error: error.into(),
    }
}
