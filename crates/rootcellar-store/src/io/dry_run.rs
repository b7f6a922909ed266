//! A disk that only pretends to change.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{BootId, Disk, DiskFile, Name, Open};

/// Another [`Disk`] as it is, with every change taken and none made, but for the lock. It remembers the names that would be gone.
#[derive(Debug)]
pub struct DryRunDisk {
    disk: Arc<dyn Disk>,
    /// Guards what was to be removed.
    removed: Mutex<Vec<PathBuf>>,
}

impl DryRunDisk {
    /// Pretends to change `disk`.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            removed: Mutex::default(),
        }
    }

    /// The files that were to be removed.
    pub fn removed(&self) -> Vec<PathBuf> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Disk for DryRunDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        match how {
            Open::Read | Open::Update => Ok(Arc::new(DryRunFile(Some(self.disk.open(path, Open::Read)?)))),
            Open::Create { .. } => Ok(Arc::new(DryRunFile(None))),
        }
    }

    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        // That there is none is an error here too.
        self.disk.open(path, Open::Read)?;
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        removed.push(path.to_owned());
        Ok(())
    }

    fn make_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Name>> {
        match self.disk.list(path) {
            // It would have been made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed,
        }
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn fmt::Debug + Send + Sync>> {
        self.disk.lock(path)
    }

    fn boot_id(&self) -> io::Result<BootId> {
        self.disk.boot_id()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.disk.random()
    }
}

/// A file, or none where one would have been made.
#[derive(Debug)]
struct DryRunFile(Option<Arc<dyn DiskFile>>);

impl DiskFile for DryRunFile {
    fn size(&self) -> io::Result<u64> {
        self.0.as_ref().map_or(Ok(0), |file| file.size())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match &self.0 {
            Some(file) => file.read_at(buffer, at),
            None if buffer.is_empty() => Ok(()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn read_cached(&self, buffer: &mut [u8], at: u64) -> io::Result<bool> {
        self.read_at(buffer, at).map(|()| true)
    }

    fn write_at(&self, _pieces: &[IoSlice<'_>], _at: u64) -> io::Result<()> {
        Ok(())
    }

    fn reserve(&self, _size: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_size(&self, _size: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn as_file(&self) -> Option<&File> {
        None
    }
}
