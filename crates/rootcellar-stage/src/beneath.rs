//! Files beneath a directory whose content is not trusted.
//!
//! An action can leave anything in its root: links to `/etc`, directories a thousand levels deep, FIFOs that block their
//! reader. So every path is resolved by the kernel with the root as `/` (`openat2(2)`), a last component that is a link is
//! never followed, and no operation opens something before it knows that it is a regular file or a directory.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
};
use rustix::io::{Errno, Result};

use crate::attributes::Attributes;

/// A directory, and the operations that stay beneath it.
///
/// Paths are relative to it, with `/` between the segments; the empty path is the directory itself.
#[derive(Debug)]
pub(crate) struct Beneath {
    root: OwnedFd,
}

/// Who owns what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// User id on the host.
    pub uid: u32,
    /// Group id on the host.
    pub gid: u32,
}

impl Owner {
    /// The root of the host.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };

    /// The user that this process runs as.
    pub fn current() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }
}

impl Beneath {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::openat(CWD, path, flags, Mode::empty())?,
        })
    }

    /// Opens the directory that a link of `/proc` leads to.
    pub(crate) fn open_link(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::openat(CWD, path, flags, Mode::empty())?,
        })
    }

    /// Opens the directory at `path`. Links on the way, and at its end, lead where they lead for a process inside the root.
    pub(crate) fn open_dir(&self, path: &str) -> Result<OwnedFd> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK)
    }

    /// Opens the directory at a path of any bytes, with no link on the way.
    pub(crate) fn open_own_dir(&self, path: &OsStr) -> Result<OwnedFd> {
        let path = if path.is_empty() { OsStr::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        loop {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
    }

    /// Opens the regular file at `path`, which [`stat`](Self::stat) has just said to be one, for reading.
    pub(crate) fn open_file(&self, path: &str) -> Result<File> {
        // NONBLOCK: had it become a FIFO since, opening must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(self.open_at(path, flags)?.into())
    }

    fn open_at(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            // The kernel gives up with EAGAIN when a rename ran beside it; there is no limit to how often that may happen,
            // but nothing renames once the action has ended.
            match rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
    }

    /// What is at `path`; a link at its end is not followed.
    pub(crate) fn stat(&self, path: &str) -> Result<Stat> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(crate) fn read_link(&self, path: &str) -> Result<Vec<u8>> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::readlinkat(&parent, name, Vec::new())?.into_bytes())
    }

    pub(crate) fn make_dir(&self, path: &str) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))
    }

    pub(crate) fn make_file(&self, path: &str) -> Result<File> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))?.into())
    }

    pub(crate) fn make_link(&self, path: &str, target: &str) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::symlinkat(target, &parent, name)
    }

    /// Gives what is at `path` to `owner`; a link itself, not what it leads to.
    pub(crate) fn own(&self, path: &str, owner: Owner) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Gives the file or directory at `path` a mode and a modification time.
    pub(crate) fn set_attributes(&self, path: &str, attributes: Attributes) -> Result<()> {
        self.set_mode(path, attributes.mode)?;
        self.set_mtime(path, attributes.mtime)
    }

    /// Sets the mode of the file or directory at `path`.
    fn set_mode(&self, path: &str, mode: u32) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::chmodat(&parent, name, Mode::from_raw_mode(mode), AtFlags::empty())
    }

    /// Sets the modification time of what is at `path`; of a link itself.
    pub(crate) fn set_mtime(&self, path: &str, mtime: Timespec) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::utimensat(&parent, name, &modified(mtime), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The names in the directory at `path`, in the order of the filesystem.
    pub(crate) fn names(&self, path: &str) -> Result<Vec<Vec<u8>>> {
        Dir::new(self.open_dir(path)?)?
            .map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()))
            .filter(|name| !matches!(name.as_deref(), Ok(b"." | b"..")))
            .collect()
    }

    /// Moves what is at `path` out of here, to a path of the host on the same filesystem.
    pub(crate) fn move_out(&self, path: &str, to: &Path) -> std::io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::renameat(&parent, name, CWD, to)?)
    }

    /// Whether overlayfs has marked the directory at `path` with an attribute.
    pub(crate) fn is_marked(&self, path: &str, attribute: &str) -> Result<bool> {
        let mut value = [0; 2];
        let directory = self.open_dir(path)?;
        match rustix::fs::fgetxattr(&directory, attribute, &mut value) {
            Ok(len) => Ok(&value[..len] == b"y"),
            Err(Errno::NODATA) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The directory that holds the last segment of `path`, and that segment; "." in the root for the root itself.
    fn parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.open_at(parent, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok((parent, if name.is_empty() { "." } else { name }))
    }
}

impl AsFd for Beneath {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Sets the modification time of what is open.
pub(crate) fn set_mtime(file: &OwnedFd, mtime: Timespec) -> Result<()> {
    rustix::fs::futimens(file, &modified(mtime))
}

fn modified(mtime: Timespec) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: mtime,
    }
}

/// What kind of thing a `stat` found.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// `parent` and `name` as one path.
pub(crate) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}/{name}")
    }
}
