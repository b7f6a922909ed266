//! Mounts by descriptor: made or copied detached, restricted, then attached at a place that was opened without
//! following a single symbolic link of the untrusted tree.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, open_tree,
};

use super::error::{Failure, failed, unfit};
use super::sys;

/// What a mount inside a sandbox never has: set-user-id programs.
pub(super) const NO_SETUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// Neither set-user-id programs nor devices.
pub(super) const DATA_ONLY: u64 = NO_SETUID | libc::MOUNT_ATTR_NODEV;
/// Neither set-user-id programs nor devices nor programs at all.
pub(super) const INERT: u64 = DATA_ONLY | libc::MOUNT_ATTR_NOEXEC;

/// A mount that is not attached anywhere yet.
#[derive(Debug)]
pub(super) struct Detached(OwnedFd);

impl Detached {
    /// Takes over a mount made elsewhere.
    pub(super) fn adopt(mount: OwnedFd) -> Self {
        Self(mount)
    }

    /// Makes a new file system of `kind`.
    pub(super) fn filesystem(kind: &str, options: &[(&str, &str)], flags: u64) -> Result<Self, Failure> {
        let make = || {
            let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
            for (key, value) in options {
                fsconfig_set_string(&context, *key, *value)?;
            }
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attribute_flags(flags))
        };
        make().map(Self).map_err(failed(format!("make a {kind} file system")))
    }

    /// Copies the mounts at and below `path` of the host.
    pub(super) fn copy_of_host(path: &Path) -> Result<Self, Failure> {
        let flags = copy_flags() | OpenTreeFlags::AT_RECURSIVE;
        open_tree(CWD, path, flags)
            .map(Self)
            .map_err(failed(format!("copy the mount of {}", path.display())))
    }

    /// Copies the mounts at and below a place of the sandbox.
    pub(super) fn copy_of(place: &Place) -> Result<Self, Failure> {
        let flags = copy_flags() | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_EMPTY_PATH;
        open_tree(&place.fd, "", flags)
            .map(Self)
            .map_err(failed(format!("copy the mount of {}", place.name)))
    }

    /// Sets and clears flags on this mount and all below it, and cuts their ties with other mounts.
    pub(super) fn change_flags(&self, set: u64, clear: u64) -> Result<(), Failure> {
        sys::set_mount_flags(&self.0, true, set, clear).map_err(failed("set the flags of a mount"))
    }

    /// Attaches the mount over `place`.
    pub(super) fn attach(self, place: &Place) -> Result<(), Failure> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.0, "", &place.fd, "", flags).map_err(failed(format!("mount {}", place.name)))
    }

    /// Attaches the mount over the root directory, where nobody sees it until the root is changed.
    pub(super) fn attach_over_root(&self) -> Result<(), Failure> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&self.0, "", CWD, "/", flags).map_err(failed("mount the staged root"))
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn copy_flags() -> OpenTreeFlags {
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC
}

fn attribute_flags(flags: u64) -> MountAttrFlags {
    MountAttrFlags::from_bits_retain(u32::try_from(flags).expect("mount attribute flags have 32 bits"))
}

/// A file or directory inside the staged root, on which something is mounted.
#[derive(Debug)]
pub(super) struct Place {
    fd: OwnedFd,
    /// The path as the command sees it, for messages.
    name: String,
}

impl Place {
    /// Opens `path` inside `root`, which must exist and hold no symbolic link.
    pub(super) fn open(root: impl AsFd, path: &Path) -> Result<Self, Failure> {
        Self::open_as(root, path, OFlags::empty())
    }

    /// Opens a directory inside `root`, which must exist and hold no symbolic link.
    pub(super) fn open_directory(root: impl AsFd, path: &Path) -> Result<Self, Failure> {
        Self::open_as(root, path, OFlags::DIRECTORY)
    }

    /// Opens a file of the kernel, or nothing where this kernel does not have it.
    pub(super) fn open_if_present(root: impl AsFd, path: &Path) -> Result<Option<Self>, Failure> {
        match Self::open(root, path) {
            Err(failure) if failure.errno == Errno::NOENT.raw_os_error() => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn open_as(root: impl AsFd, path: &Path, kind: OFlags) -> Result<Self, Failure> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let inside = if inside.as_os_str().is_empty() {
            Path::new(".")
        } else {
            inside
        };
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::IN_ROOT;
        // No `NOFOLLOW`: with it, a link at the very end would be opened instead of refused.
        let flags = OFlags::PATH | OFlags::CLOEXEC | kind;
        let name = Path::new("/").join(inside).display().to_string();
        match openat2(root, inside, flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Self { fd, name }),
            Err(errno) => Err(unfit(refusal(&name, errno))(errno)),
        }
    }

    /// Tells whether the place is a directory.
    pub(super) fn is_directory(&self) -> Result<bool, Failure> {
        let stat = rustix::fs::fstat(&self.fd).map_err(failed(format!("stat {}", self.name)))?;
        Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
    }
}

fn refusal(name: &str, errno: Errno) -> String {
    match errno {
        Errno::NOENT => format!("the staged root has no {name} to mount on"),
        Errno::LOOP => format!("the staged root has a symbolic link on the way to {name}, which is mounted on"),
        Errno::NOTDIR => format!("{name} of the staged root, which is mounted on, is not a directory"),
        _ => format!("open {name} of the staged root"),
    }
}
