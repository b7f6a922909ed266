//! Writing a log.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::slot::{ENTRY_BYTES_MAX, Entry, HEADER_BYTES, Header, LogKind, seed};
use crate::io::{Disk, DiskFile, Open};
use crate::layout::StoreId;

/// Appends entries to a log. After an error the next entries take the place of those that failed.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    /// Open while there is something to write or to sync.
    file: Option<Arc<dyn DiskFile>>,
    seed: u64,
    position: u64,
    /// Up to where the disk's space is reserved.
    reserved: u64,
}

impl LogWriter {
    /// Makes a new log. Neither it nor its name is durable.
    pub(crate) fn create(disk: &dyn Disk, path: &Path, header: &Header) -> io::Result<Self> {
        let file = disk.open(path, Open::Create { mode: 0o644 })?;
        file.write_at(&[IoSlice::new(&header.encode())], 0)?;
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            seed: seed(header.kind, header.number, header.store),
            position: HEADER_BYTES as u64,
            reserved: 0,
        })
    }

    /// Goes on where an earlier log ends. Opens it only when there is something to write.
    pub(crate) fn at_end(path: &Path, kind: LogKind, number: u32, store: StoreId, end: u64) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
            seed: seed(kind, number, store),
            position: end,
            reserved: 0,
        }
    }

    /// Behind the last entry.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the disk that the log takes.
    pub(crate) fn taken(&self) -> u64 {
        self.position.max(self.reserved)
    }

    /// Reserves the disk's space up to `end`.
    pub(crate) fn reserve(&mut self, disk: &dyn Disk, end: u64) -> io::Result<()> {
        self.file(disk)?.reserve(end)?;
        self.reserved = end;
        Ok(())
    }

    /// Gives back what is reserved and not used.
    pub(crate) fn trim(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let file = self.file(disk)?;
        file.set_size(file.size()?)?;
        self.reserved = 0;
        Ok(())
    }

    /// Writes entries with one call.
    pub(crate) fn append(&mut self, disk: &dyn Disk, entries: &[Entry]) -> io::Result<()> {
        let mut slots = Vec::with_capacity(entries.len() * ENTRY_BYTES_MAX);
        for entry in entries {
            entry.encode(self.seed, self.position + slots.len() as u64, &mut slots);
        }
        self.file(disk)?.write_at(&[IoSlice::new(&slots)], self.position)?;
        self.position += slots.len() as u64;
        Ok(())
    }

    /// The log's file, opened if it was not, to write or to sync it.
    pub(crate) fn file(&mut self, disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        Ok(self.file.insert(disk.open(&self.path, Open::Update)?).clone())
    }

    /// Gives up the open file until there is something to write again.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }
}
