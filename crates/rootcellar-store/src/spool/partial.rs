//! Spool files, while they are written.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::budget::Budget;
use crate::byte_counter::Share;
use crate::io::{Disk, DiskFile, Open};
use crate::verified::SpoolFile;
use crate::{Error, Result};

/// Files of at least this size have the disk's space reserved before they are written: a call, which saves the filesystem from finding
/// it block by block. As much again as there is, up to [`AHEAD_BYTES_MAX`], and never beyond the size that was declared: a client that
/// declares much and sends little does not take much.
const RESERVED_FROM_BYTES: u64 = 1 << 20;
const AHEAD_BYTES_MAX: u64 = 4 << 20;

/// Bytes of disk for the first `end` bytes of content that has `size`.
pub(super) fn reserved_for(end: u64, size: u64) -> u64 {
    match size < RESERVED_FROM_BYTES {
        true => end,
        false => (end + end.min(AHEAD_BYTES_MAX)).min(size).max(end),
    }
}

/// A spool file that is still being written. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) file: Arc<dyn DiskFile>,
    /// What the content is expected to have.
    size: u64,
    pub(super) written: u64,
    /// Bytes for which there is room: in the budget, and for a large file on the disk.
    reserved: u64,
    pub(super) name: Option<Name>,
    /// The file's part in what the spool may hold.
    pub(super) share: Share,
    budget: Arc<Budget>,
}

impl Partial {
    /// Begins to write `file`, which is empty, for content of `size`.
    pub(super) fn new(file: Arc<dyn DiskFile>, name: Name, size: u64, budget: Arc<Budget>) -> Self {
        Self {
            file,
            size,
            written: 0,
            reserved: 0,
            name: Some(name),
            share: budget.spooled.share(),
            budget,
        }
    }

    pub(super) fn write(&mut self, pieces: &[&[u8]]) -> Result<()> {
        let len: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.reserve(self.written + len)?;
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        self.file
            .write_at(&slices, self.written)
            .map_err(|error| Error::io("ingest", "writing a spool file", error))?;
        self.written += len;
        Ok(())
    }

    /// Makes room for so many bytes more, unless that takes waiting; tells whether there is room.
    pub(super) fn reserve_at_once(&mut self, len: u64) -> Result<bool> {
        let end = self.written + len;
        if end <= self.reserved {
            return Ok(true);
        }
        let reserved = reserved_for(end, self.size);
        let has_room = self.budget.take_at_once(&self.share, reserved - self.reserved);
        if has_room {
            self.reserve_on_disk(reserved)?;
        }
        Ok(has_room)
    }

    /// Makes room for content up to `end`.
    fn reserve(&mut self, end: u64) -> Result<()> {
        if end <= self.reserved {
            return Ok(());
        }
        let reserved = reserved_for(end, self.size);
        self.budget.take(&self.share, reserved - self.reserved)?;
        self.reserve_on_disk(reserved)
    }

    /// Has the disk make room that was taken from the budget.
    fn reserve_on_disk(&mut self, reserved: u64) -> Result<()> {
        self.reserved = reserved;
        if self.size >= RESERVED_FROM_BYTES {
            let reserve = self.file.reserve(reserved);
            reserve.map_err(|error| Error::io("ingest", "reserving room for a spool file", error))?;
        }
        Ok(())
    }

    /// Ends the writing, and gives back what was reserved for more than came. The file is opened anew for reading only: the kernel
    /// runs no program from a file that anybody has open for writing, and a store publishes this very file.
    pub(super) fn keep(mut self) -> Result<SpoolFile> {
        if self.reserved > self.written {
            let cut = self.file.set_size(self.written);
            cut.map_err(|error| Error::io("ingest", "cutting a spool file", error))?;
            self.share.set(self.written);
        }
        let name = self.name.take().expect("kept once, by value");
        let file = name
            .disk
            .open(&name.path, Open::Read)
            .map_err(|error| Error::io("ingest", "reopening a spool file", error))?;
        Ok(SpoolFile::new(file, name, self.share))
    }
}

/// The name of a spool file. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct Name {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Name {
    pub(super) fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self { disk, path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Err(error) = self.disk.remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a spool file stays until the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use crate::Spool;

    #[test]
    fn what_was_reserved_for_more_than_came_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::new(dir.path());
        let mut partial = spool.create(16 << 20).unwrap();
        partial.write(&[&[1; 600_000]]).unwrap();
        assert_eq!((partial.written, partial.share.bytes()), (600_000, 1_200_000));
        let file = partial.keep().unwrap();
        assert_eq!(spool.budget.spooled.bytes(), 600_000);
        let metadata = dir
            .path()
            .read_dir()
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .metadata()
            .unwrap();
        assert_eq!(metadata.len(), 600_000);
        assert!(metadata.blocks() * 512 < 1_000_000, "{}", metadata.blocks());
        drop(file);
        assert_eq!(spool.budget.spooled.bytes(), 0);
    }
}
