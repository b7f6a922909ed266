//! The file: opened, read, and opened again after the disk was full.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{ReadableDatabase as _, ReadableTable as _};

use super::format::{self, ABOUT, ORDER, RECORDS, USES, VERSION, VERSION_FIELD};
use crate::{ByteCounter, Error, ErrorKind, Record, Result};

pub(super) struct Database {
    path: PathBuf,
    cache_bytes: usize,
    file_bytes: ByteCounter,
    /// Guards the handle: `None` after an error that a new handle may not have.
    handle: Mutex<Option<Arc<redb::Database>>>,
}

impl Database {
    /// Blocks.
    pub(super) fn open(path: PathBuf, cache_bytes: usize, file_bytes: ByteCounter) -> Result<Self> {
        let database = Self {
            path,
            cache_bytes,
            file_bytes,
            handle: Mutex::new(None),
        };
        let handle = database.handle("open records")?;
        database.check_version(&handle)?;
        database.measure();
        Ok(database)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The handle, which is opened if there is none.
    pub(super) fn handle(&self, operation: &'static str) -> Result<Arc<redb::Database>> {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*handle {
            return Ok(handle.clone());
        }
        let opened = redb::Database::builder()
            .set_cache_size(self.cache_bytes)
            .create(&self.path)
            .map_err(|error| self.error(operation, error))?;
        Ok(handle.insert(Arc::new(opened)).clone())
    }

    /// Turns an error of the database into one of this crate. If the disk was full, the next operation opens the file anew:
    /// the database goes on after no I/O error.
    pub(super) fn error(&self, operation: &'static str, error: impl Into<redb::Error>) -> Error {
        let error = error.into();
        let kind = kind(&error);
        if kind == ErrorKind::Exhausted {
            self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        Error::new(kind, operation, self.path.display().to_string()).caused_by(error)
    }

    fn check_version(&self, handle: &redb::Database) -> Result<()> {
        let version = ensure_tables(handle).map_err(|error| self.error("open records", error))?;
        if version != VERSION {
            let path = self.path.display();
            let reason = format!("{path}: has the version {version}, and this program knows version {VERSION}");
            return Err(Error::new(ErrorKind::InvalidArgument, "open records", reason));
        }
        Ok(())
    }

    /// The first stamp that no use has. Blocks.
    pub(super) fn next_stamp(&self, operation: &'static str) -> Result<u64> {
        let handle = self.handle(operation)?;
        last_stamp(&handle)
            .map(|last| last.map_or(0, |last| last + 1))
            .map_err(|error| self.error(operation, error))
    }

    /// Reads a record. Blocks. A damaged one is absent.
    pub(super) fn read(&self, key: &[u8]) -> Result<Option<Record>> {
        let handle = self.handle("get record")?;
        let found = read(&handle, key, |bytes| format::decode(key, bytes));
        let found = found.map_err(|error| self.error("get record", error))?;
        if let Some(None) = found {
            tracing::error!(path = %self.path.display(), key = %key.escape_ascii(), "a record is damaged");
        }
        Ok(found.flatten())
    }

    /// Tells the size of the file to whoever counts it.
    pub(super) fn measure(&self) {
        match fs::metadata(&self.path) {
            Ok(metadata) => self.file_bytes.set(metadata.len()),
            Err(error) => tracing::warn!(%error, "the size of the records' file is not known"),
        }
    }
}

/// Makes the tables if they are not there, and tells the version.
fn ensure_tables(handle: &redb::Database) -> Result<u64, redb::Error> {
    let transaction = handle.begin_write()?;
    let version = {
        transaction.open_table(RECORDS)?;
        transaction.open_table(USES)?;
        transaction.open_table(ORDER)?;
        let mut about = transaction.open_table(ABOUT)?;
        let version = about.get(VERSION_FIELD)?.map(|version| version.value());
        if version.is_none() {
            about.insert(VERSION_FIELD, VERSION)?;
        }
        version.unwrap_or(VERSION)
    };
    if version == VERSION {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(version)
}

fn last_stamp(handle: &redb::Database) -> Result<Option<u64>, redb::Error> {
    let order = handle.begin_read()?.open_table(ORDER)?;
    Ok(order.last()?.map(|(stamp, _)| stamp.value()))
}

fn read<T>(handle: &redb::Database, key: &[u8], with: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, redb::Error> {
    let records = handle.begin_read()?.open_table(RECORDS)?;
    Ok(records.get(key)?.map(|bytes| with(bytes.value())))
}

fn kind(error: &redb::Error) -> ErrorKind {
    match error {
        redb::Error::DatabaseAlreadyOpen => ErrorKind::Unavailable,
        redb::Error::UpgradeRequired(_) => ErrorKind::InvalidArgument,
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => ErrorKind::InvalidArgument,
        redb::Error::Io(error) => ErrorKind::of_io(error),
        redb::Error::Corrupted(_) => ErrorKind::DataLoss,
        _ => ErrorKind::Internal,
    }
}
