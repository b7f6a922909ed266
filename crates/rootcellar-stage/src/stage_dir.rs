//! The directory that staged roots live in: a room for each, emptied when the root goes, and at the start of the next process.
//!
//! ```text
//!   <stage dir>/shelf-<random>/root-<random>     rooms stand on a shelf, until a large one of it was removed; then on another
//! ```
//!
//! Shelves are for ext4, which puts what is made in a directory into the directory's part of the disk. There it looks past every file
//! that was removed in the last minutes whenever a new one is made: after a large root is gone, for milliseconds each time.

use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rootcellar_reapi::Error;
use rustix::fs::IFlags;

use crate::remove::{Removal, Remover};
use crate::write::io_error;

/// More removed files than these are felt.
const TIRING_FILES: u64 = 200;

/// A directory for rooms.
#[derive(Debug, Clone)]
pub(crate) struct StageDir {
    path: Arc<Path>,
    remover: Arc<Remover>,
    /// Where the next room stands. After the remover: it goes when all rooms have gone.
    shelf: Arc<Mutex<Arc<Shelf>>>,
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
        let shelf = Shelf::make(&path).map_err(|error| io_error(path.display().to_string(), error))?;
        Ok(Self {
            path: path.into(),
            remover: Arc::new(remover),
            shelf: Arc::new(Mutex::new(shelf)),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a room.
    pub(crate) fn room(&self) -> Result<Room, Error> {
        let failed = |error| io_error(format!("making a directory in {}", self.path.display()), error);
        let shelf = self.shelf().map_err(failed)?;
        let room = tempfile::Builder::new().prefix("root-").tempdir_in(&shelf.path);
        Ok(Room {
            path: room.map_err(failed)?.keep(),
            held: Vec::new(),
            remover: self.remover.clone(),
            shelf,
            is_gone: false,
        })
    }

    fn shelf(&self) -> std::io::Result<Arc<Shelf>> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.is_tired.load(Ordering::Relaxed) {
            *shelf = Shelf::make(&self.path)?;
        }
        Ok(shelf.clone())
    }

    /// Closes descriptors in the background: the last one of a mount takes with it all that was looked at through it.
    pub(crate) fn close(&self, held: Vec<Arc<OwnedFd>>) {
        drop(self.remover.remove(Removal {
            held,
            tree: None,
            shelf: None,
        }));
    }
}

fn prepare(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir)?;
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    spread_shelves(dir);
    std::fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

/// Has ext4 put each shelf into a part of the disk that has few files (`chattr +T`).
fn spread_shelves(dir: &Path) {
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

/// A directory that rooms stand on.
#[derive(Debug)]
pub(crate) struct Shelf {
    path: PathBuf,
    /// Whether a large room of it was removed: then new ones stand elsewhere.
    is_tired: AtomicBool,
}

impl Shelf {
    fn make(dir: &Path) -> std::io::Result<Arc<Self>> {
        let shelf = tempfile::Builder::new().prefix("shelf-").tempdir_in(dir)?;
        Ok(Arc::new(Self {
            path: shelf.keep(),
            is_tired: AtomicBool::new(false),
        }))
    }

    /// Hears that so many files of a room were removed.
    pub(crate) fn note_removed(&self, files: u64) {
        if files > TIRING_FILES {
            self.is_tired.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.path) {
            tracing::debug!(shelf = %self.path.display(), %error, "it stays until the next start");
        }
    }
}

/// A directory that keeps other users of the host out. Dropping it removes it in the background.
#[derive(Debug)]
pub(crate) struct Room {
    path: PathBuf,
    /// What has to be closed before.
    held: Vec<Arc<OwnedFd>>,
    remover: Arc<Remover>,
    shelf: Arc<Shelf>,
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
            shelf: Some(self.shelf.clone()),
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
