//! Records in two files: a `redb` database, and a log in front of it.
//!
//! ```text
//!   get ──> logged? read lately? else a read transaction on the newest commit ──> value      (its use is noted in memory)
//!   put ──> queue ──> the writer: all that waits, one write to the log ──> acknowledged
//!                                                        │ when it is half full: all of it in one transaction, by another thread
//!                                                        ▼
//!                                                     database
//! ```
//!
//! One thread writes (`writer.rs`), by the rules of `journal.rs`; readers never wait for it. A commit changes a path of pages in each of three
//! trees, whatever is put, and costs more than all else about a put; so a transaction takes thousands. What is in the files is drawn in
//! `format.rs` and `log.rs`.

mod backend;
mod database;
mod fold;
mod format;
mod journal;
mod log;
mod logged;
#[cfg(test)]
mod power_cut;
mod recent;
mod transaction;
mod uses;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use self::database::Database;
use self::fold::FolderThread;
use self::format::Key;
use self::journal::{Journal, Parts};
use self::logged::Logged;
use self::recent::{Begun, Recent};
use self::uses::Uses;
use self::writer::{Change, Job, Writer};
use crate::io::{Disk, OsDisk};
use crate::records::charge;
use crate::{ByteCounter, Clock, Durability, Error, ErrorKind, Record, RecordKind, Records, Result};

/// Settings of [`DiskRecords`].
#[derive(Debug, Clone)]
pub struct RecordsOptions {
    /// The bound on keys and values, with 192 bytes of bookkeeping for each record. 1 GiB: some hundred thousand action results. The
    /// files can be larger by what is free in them.
    pub bytes_max: u64,
    /// What an acknowledged put has survived, see [`DiskRecords`].
    pub durability: Durability,
    /// Bytes of the file kept in memory. 32 MiB: the inner nodes of the largest file, and the records in use now.
    pub cache_bytes: usize,
    /// Bytes of records kept in memory that were read lately, 32 MiB: those of the builds that run now.
    pub recent_bytes_max: u64,
    /// The disk. Anything but the operating system's is for tests.
    pub disk: Arc<dyn Disk>,
    /// Told the files' size, so that whoever bounds the directory can count it.
    pub file_bytes: ByteCounter,
}

impl Default for RecordsOptions {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 30,
            durability: Durability::default(),
            cache_bytes: 32 << 20,
            recent_bytes_max: 32 << 20,
            disk: Arc::new(OsDisk),
            file_bytes: ByteCounter::default(),
        }
    }
}

/// Bounded [`Records`] in a file, with a log and a lock beside it: `records.redb` has `records.log` and `records.lock`.
///
/// A put that was acknowledged survives the process in every mode. It survives the machine with [`Durability::Always`], and with
/// [`Durability::Interval`] after the next sync; with [`Durability::None`] once the kernel has written it by itself, or the log was half
/// full. A crash of the machine takes the records back to one moment, whole. Dropping or [closing](Self::close) it syncs.
///
/// A record whose bytes in the file have changed is absent; in the log, so are those behind it. When there is no room on the disk, puts are
/// [`Exhausted`](ErrorKind::Exhausted). After any other I/O error that the log alone does not explain, all operations on the file are
/// [`Internal`](ErrorKind::Internal) until it is opened anew.
pub struct DiskRecords {
    database: Arc<Database>,
    logged: Arc<Logged>,
    uses: Arc<Uses>,
    recent: Arc<Recent>,
    clock: Arc<dyn Clock>,
    /// The bound on one record.
    bytes_max: u64,
    writer: Writer,
}

impl DiskRecords {
    /// Opens the records in the file `path`, or makes the file. Runs on a tokio runtime.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the file is something else's or a later version's, or ends in `.log` or `.lock`,
    /// [`DataLoss`](ErrorKind::DataLoss) if it is damaged, [`Unavailable`](ErrorKind::Unavailable) if it is in use; I/O errors.
    pub async fn open(path: impl Into<PathBuf>, options: RecordsOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let path = path.into();
        let damaged = damaged(&path);
        let open = move || Self::open_now(path, options, clock);
        // The database panics on some files that were changed behind its back.
        tokio::task::spawn_blocking(open).await.map_err(|_| damaged)?
    }

    fn open_now(path: PathBuf, options: RecordsOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let log_path = path.with_extension("log");
        if path == log_path || path == path.with_extension("lock") {
            let reason = format!(
                "{}: the log or the lock of the records would have this name",
                path.display()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, "open records", reason));
        }
        let log_bytes_max = log::bytes_max(options.bytes_max);
        let bytes_max = options.bytes_max - log_bytes_max;
        let database = Arc::new(Database::open(options.disk.clone(), path, options.cache_bytes)?);
        let logged = Arc::new(Logged::default());
        let uses = Arc::new(Uses::new(database.next_stamp("open")?));
        let recent = Arc::new(Recent::new(options.recent_bytes_max));
        let parts = Parts {
            disk: options.disk,
            database: database.clone(),
            logged: logged.clone(),
            recent: recent.clone(),
            uses: uses.clone(),
            bytes_max,
            log_bytes_max,
            file_bytes: options.file_bytes,
        };
        let writer = Writer::start(Job {
            journal: Journal::open(&log_path, parts, Box::new(FolderThread::default()))?,
            durability: options.durability,
            is_fold_asked: Arc::default(),
            unsynced_since: None,
        })?;
        Ok(Self {
            database,
            logged,
            uses,
            recent,
            clock,
            bytes_max,
            writer,
        })
    }

    /// Reads a record from the file, for whoever has begun with that before looking anywhere else.
    async fn read(&self, key: Key, begun: Begun) -> Result<Option<Record>> {
        let (database, recent) = (self.database.clone(), self.recent.clone());
        let read = move || {
            let record = database.read(&key)?;
            if let Some(record) = &record {
                recent.keep(key, record, begun);
            }
            Ok(record)
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| damaged(self.database.path()))?
    }

    /// Ends in good order: everything acknowledged is durable, and in the database. Later writes are refused.
    ///
    /// # Errors
    /// That of the last transaction. The log still has what was acknowledged then, and the next start takes it over.
    pub async fn close(&self) -> Result<()> {
        self.writer.close().await
    }
}

fn damaged(path: &Path) -> Error {
    let advice = "move it away to begin without records; blobs are not affected";
    let reason = format!("{}: the file is damaged; {advice}", path.display());
    Error::new(ErrorKind::DataLoss, "open records", reason)
}

#[async_trait]
impl Records for DiskRecords {
    async fn get(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Record>> {
        let key = format::key(kind, key);
        let begun = self.recent.begin(&key);
        let record = if let Some(logged) = self.logged.get(&key) {
            logged
        } else if let Some(record) = self.recent.get(&key) {
            Some(record)
        } else {
            self.read(key.clone(), begun).await?
        };
        let now = self.clock.now();
        let record = record.filter(|record| !record.is_expired(now));
        if record.is_some() && self.uses.note(key) {
            self.writer.ask_for_fold();
        }
        Ok(record)
    }

    async fn put(&self, kind: RecordKind, key: &[u8], record: Record) -> Result<()> {
        let key = format::key(kind, key);
        let charge = charge(&key, &record);
        if charge > self.bytes_max {
            let reason = format!(
                "a record of {charge} bytes exceeds the bound of {} bytes",
                self.bytes_max
            );
            return Err(Error::new(ErrorKind::Exhausted, "put record", reason));
        }
        self.writer.write(Change::Put(key, record)).await
    }

    async fn remove(&self, kind: RecordKind, key: &[u8]) -> Result<()> {
        self.writer.write(Change::Remove(format::key(kind, key))).await
    }
}

impl fmt::Display for DiskRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "records({})", self.database.path().display())
    }
}

impl fmt::Debug for DiskRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskRecords")
            .field("path", &self.database.path())
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}
