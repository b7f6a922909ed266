//! The mounts of a staged root, made without a place in the file system: each is a descriptor, and is gone with its last one.

#![allow(unsafe_code, reason = "rustix has no mount_setattr(2)")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_reconfigure,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, open_tree,
};

/// How the writable layer behaves.
///
/// With `metacopy`, what an action has changed would be in its layer without its data. Hard links and NFS want an `index`; nobody
/// exports this. `xino` gives the whole root one device number. It is thrown away after use, so nothing has to reach the disk
/// (`volatile`).
const OVERLAY: [(&str, &str); 3] = [("metacopy", "off"), ("index", "off"), ("xino", "on")];

/// What an overlay is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layers<'a> {
    pub(super) lower: BorrowedFd<'a>,
    /// The others by absolute path: the kernel takes only what is mounted in the mount namespace of whoever makes the overlay.
    pub(super) upper: &'a Path,
    pub(super) work: &'a Path,
    /// Where the bytes of files are that the lower layer only names.
    pub(super) data: Option<&'a Path>,
}

/// The attributes by which layers say what files cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// `trusted.overlay`: only the host's root can read and write them.
    Trusted,
    /// `user.overlay`: what a user namespace may have. Overlayfs keeps an action from setting them.
    User,
}

impl Marks {
    /// What says that a directory hides what is below it.
    pub(super) const fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }
}

/// Mounts an image, with its devices in the order of their numbers. Descriptors are named by path: strings that the kernel takes here
/// have 255 bytes at the most.
pub(super) fn mount_image(image: &File, devices: &[OwnedFd]) -> io::Result<OwnedFd> {
    let filesystem = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(&filesystem, "ro")?;
    fsconfig_set_string(&filesystem, "source", path_of(image.as_fd()))?;
    for device in devices {
        fsconfig_set_string(&filesystem, "device", path_of(device.as_fd()))?;
    }
    fsconfig_create(&filesystem)?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY | data_only();
    Ok(fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

/// A second mount of the same, in which what belongs to root belongs to the root of a user namespace.
pub(super) fn clone_for(mount: &OwnedFd, namespace: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(mount, "", flags)?;
    map_ids(clone.as_fd(), namespace.as_fd())?;
    Ok(clone)
}

/// Mounts a writable layer over a lower one.
pub(super) fn mount_overlay(layers: &Layers<'_>, marks: Marks) -> io::Result<OwnedFd> {
    let filesystem = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in OVERLAY {
        fsconfig_set_string(&filesystem, name, value)?;
    }
    fsconfig_set_flag(&filesystem, "volatile")?;
    // No directory is to be found under another name than the image has.
    match marks {
        Marks::Trusted => fsconfig_set_string(&filesystem, "redirect_dir", "off")?,
        Marks::User => {
            fsconfig_set_string(&filesystem, "redirect_dir", "nofollow")?;
            fsconfig_set_flag(&filesystem, "userxattr")?;
        }
    }
    set_dir(&filesystem, "lowerdir+", layers.lower)?;
    if let Some(data) = layers.data {
        set_dir(&filesystem, "datadir+", open_dir(data)?.as_fd())?;
    }
    set_dir(&filesystem, "upperdir", open_dir(layers.upper)?.as_fd())?;
    set_dir(&filesystem, "workdir", open_dir(layers.work)?.as_fd())?;
    fsconfig_create(&filesystem)?;
    Ok(fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, data_only())?)
}

/// Names a layer. By the path of a descriptor, because the action reads in `/proc/self/mountinfo` what is said here: of a descriptor, the
/// kernel would show where the layer is on the host.
fn set_dir(filesystem: &OwnedFd, name: &str, dir: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fsconfig_set_string(filesystem, name, path_of(dir))?)
}

/// Makes a file system in memory.
pub(super) fn mount_memory(bytes: u64, files: u64) -> io::Result<OwnedFd> {
    let filesystem = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in [("size", bytes.to_string()), ("nr_inodes", files.to_string())] {
        fsconfig_set_string(&filesystem, name, value)?;
    }
    fsconfig_set_string(&filesystem, "mode", "755")?;
    fsconfig_create(&filesystem)?;
    Ok(fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, data_only())?)
}

/// Makes the file system under a mount read-only for good, for everyone and through every descriptor: one that is open for reading
/// cannot be opened anew for writing either.
///
/// # Errors
/// `EBUSY` while anything can write to a file of it: a descriptor, or a mapping.
pub(super) fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    let filesystem = fspick(mount, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)?;
    fsconfig_set_flag(&filesystem, "ro")?;
    Ok(fsconfig_reconfigure(&filesystem)?)
}

/// What comes out of a store makes neither set-user-id programs nor devices.
fn data_only() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

fn path_of(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn map_ids(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_raw_fd()).expect("descriptors are not negative"),
    };
    // SAFETY: the path is a terminated string, and the structure is of the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
