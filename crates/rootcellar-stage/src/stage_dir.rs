//! The directory that staged roots live in: a room for each, emptied when the root goes, and at the start of the next process.

use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rootcellar_reapi::Error;
use rustix::fs::IFlags;

use crate::remove::{Removal, Remover};
use crate::write::io_error;

/// A directory for rooms.
#[derive(Debug, Clone)]
pub(crate) struct StageDir {
    path: Arc<Path>,
    remover: Arc<Remover>,
}

impl StageDir {
    /// Uses `path`, which is made if it is missing, and is this process's alone. What an earlier process left there is removed
    /// in the background.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let leftovers = prepare(path)
            .map_err(|error| io_error(format!("preparing the staging directory {}", path.display()), error))?;
        let path = std::fs::canonicalize(path).map_err(|error| io_error(path.display().to_string(), error))?;
        let remover = Remover::start().map_err(|error| io_error("starting the thread that removes roots", error))?;
        if !leftovers.is_empty() {
            tracing::info!(
                count = leftovers.len(),
                "removing roots that an earlier run left staged"
            );
        }
        for leftover in leftovers {
            drop(remover.remove(Removal::of_tree(leftover)));
        }
        Ok(Self {
            path: path.into(),
            remover: Arc::new(remover),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a room.
    pub(crate) fn room(&self) -> Result<Room, Error> {
        let room = tempfile::Builder::new().prefix("root-").tempdir_in(&self.path);
        let room = room.map_err(|error| io_error(format!("making a directory in {}", self.path.display()), error))?;
        Ok(Room {
            path: room.keep(),
            held: Vec::new(),
            remover: self.remover.clone(),
            is_gone: false,
        })
    }

    /// Closes descriptors in the background: the last one of a mount takes with it all that was looked at through it.
    pub(crate) fn close(&self, held: Vec<Arc<OwnedFd>>) {
        drop(self.remover.remove(Removal { held, tree: None }));
    }
}

fn prepare(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir)?;
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    spread_rooms(dir);
    std::fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

/// Has ext4 put each room into a part of the disk that has few files (`chattr +T`). Else all would be in one, and there ext4 looks past
/// every file that was removed in the last minutes, whenever a new one is made: after a large root is gone, for milliseconds.
fn spread_rooms(dir: &Path) {
    let spread = || {
        let dir = std::fs::File::open(dir)?;
        let flags = rustix::fs::ioctl_getflags(&dir)?;
        rustix::fs::ioctl_setflags(&dir, flags | IFlags::TOPDIR)?;
        Ok::<(), std::io::Error>(())
    };
    if let Err(error) = spread() {
        tracing::debug!(dir = %dir.display(), %error, "another filesystem, which has its own way to place directories");
    }
}

/// A directory that keeps other users of the host out. Dropping it removes it in the background.
#[derive(Debug)]
pub(crate) struct Room {
    path: PathBuf,
    /// What has to be closed before.
    held: Vec<Arc<OwnedFd>>,
    remover: Arc<Remover>,
    is_gone: bool,
}

impl Room {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps a descriptor until the room is removed.
    pub(crate) fn hold(&mut self, descriptor: Arc<OwnedFd>) {
        self.held.push(descriptor);
    }

    /// Removes it with all that is in it, and returns when it is gone.
    pub(crate) async fn remove(mut self) -> Result<(), Error> {
        let subject = format!("removing {}", self.path.display());
        let removal = self.take();
        let removed = self.remover.remove(removal).await;
        removed
            .expect("the thread answers for every tree it takes")
            .map_err(|error| io_error(subject, error))
    }

    fn take(&mut self) -> Removal {
        self.is_gone = true;
        Removal {
            held: std::mem::take(&mut self.held),
            tree: Some(std::mem::take(&mut self.path)),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.is_gone {
            let removal = self.take();
            drop(self.remover.remove(removal));
        }
    }
}
