//! The file: opened, read, and opened again after the disk was full.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use redb::{ReadableDatabase as _, ReadableTable as _};

use super::backend::Backend;
use super::format::{
    self, ABOUT, LOG_AT_FIELD, LOG_CHAIN_FIELD, ORDER, RECORDS, USES, VERSION, VERSION_FIELD, VERSION_MIN,
};
use super::log::Mark;
use crate::io::{Disk, Open};
use crate::{Error, ErrorKind, Record, Result};

pub(super) struct Database {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    _lock: Box<dyn fmt::Debug + Send + Sync>,
    cache_bytes: usize,
    /// Guards the handle.
    handle: Mutex<Handle>,
}

#[derive(Default)]
struct Handle {
    /// `None` after an error that a new handle may not have.
    open: Option<Arc<redb::Database>>,
    /// The handle before: the file is opened anew once its last reader has let go of it.
    retired: Weak<redb::Database>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Blocks.
    pub(super) fn open(disk: Arc<dyn Disk>, path: PathBuf, cache_bytes: usize) -> Result<Self> {
        let database = Self {
            _lock: lock(&*disk, &path)?,
            disk,
            path,
            cache_bytes,
            handle: Mutex::default(),
        };
        let handle = database.handle("open records")?;
        database.check_version(&handle)?;
        Ok(database)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The handle, which is opened if there is none.
    pub(super) fn handle(&self, operation: &'static str) -> Result<Arc<redb::Database>> {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &handle.open {
            return Ok(open.clone());
        }
        if handle.retired.strong_count() > 0 {
            let reason = format!("{}: is being opened anew", self.path.display());
            return Err(Error::new(ErrorKind::Unavailable, operation, reason));
        }
        let backend =
            Backend::open(&*self.disk, &self.path).map_err(|error| self.error_in(&mut handle, operation, error))?;
        let opened = redb::Database::builder()
            .set_cache_size(self.cache_bytes)
            .create_with_backend(backend)
            .map_err(|error| self.error_in(&mut handle, operation, error))?;
        Ok(handle.open.insert(Arc::new(opened)).clone())
    }

    /// Turns an error of the database into one of this crate. If the disk was full, the next operation opens the file anew:
    /// the database goes on after no I/O error.
    pub(super) fn error(&self, operation: &'static str, error: impl Into<redb::Error>) -> Error {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        self.error_in(&mut handle, operation, error)
    }

    fn error_in(&self, handle: &mut Handle, operation: &'static str, error: impl Into<redb::Error>) -> Error {
        let error = error.into();
        let kind = kind(&error);
        if kind == ErrorKind::Exhausted
            && let Some(full) = handle.open.take()
        {
            handle.retired = Arc::downgrade(&full);
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

    /// Where in the log that begins which is not here, if there ever was a log. Blocks.
    pub(super) fn log_mark(&self, operation: &'static str) -> Result<Option<Mark>> {
        let handle = self.handle(operation)?;
        log_mark(&handle).map_err(|error| self.error(operation, error))
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

    /// The size of the file. Blocks.
    pub(super) fn file_bytes(&self) -> io::Result<u64> {
        self.disk.open(&self.path, Open::Read)?.size()
    }
}

/// Locks the records for this process, by a file beside them.
fn lock(disk: &dyn Disk, path: &Path) -> Result<Box<dyn fmt::Debug + Send + Sync>> {
    let name = path.with_extension("lock");
    disk.lock(&name).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let reason = format!("{}: is in use by process {error}", path.display());
            Error::new(ErrorKind::Unavailable, "open records", reason)
        }
        _ => Error::io("open records", format!("locking {}", name.display()), error),
    })
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
        match version {
            Some(later) if !(VERSION_MIN..=VERSION).contains(&later) => later,
            _ => {
                about.insert(VERSION_FIELD, VERSION)?;
                VERSION
            }
        }
    };
    if version == VERSION {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(version)
}

fn log_mark(handle: &redb::Database) -> Result<Option<Mark>, redb::Error> {
    let about = handle.begin_read()?.open_table(ABOUT)?;
    let number = |field| about.get(field).map(|number| number.map(|number| number.value()));
    let mark = number(LOG_AT_FIELD)?.zip(number(LOG_CHAIN_FIELD)?);
    Ok(mark.map(|(at, chain)| Mark { at, chain }))
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
        redb::Error::UpgradeRequired(_) => ErrorKind::InvalidArgument,
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => ErrorKind::InvalidArgument,
        redb::Error::Io(error) => ErrorKind::of_io(error),
        redb::Error::Corrupted(_) => ErrorKind::DataLoss,
        _ => ErrorKind::Internal,
    }
}
