//! Ingestion: hashing content as it arrives, in memory while it is small and in a file once it is not.
//!
//! ```text
//!   write ──> hash ──┬──> memory (up to `memory_max_bytes`)
//!                    └──> <spool dir>/<its own name>      ── finish ──> Verified ──> put
//! ```
//!
//! What is never finished is removed: by drop, or by the owner of the directory when it starts.

mod hashed_file;
mod hashing;
mod ingest;
mod pairs;
mod partial;
mod written;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rootcellar_digest::{Digest, DigestFunction};

pub use self::hashed_file::HashedFile;
use self::hashing::Hashing;
pub use self::ingest::Ingest;
use self::pairs::Pairs;
pub(crate) use self::partial::Name;
use self::partial::Partial;
use crate::budget::Budget;
use crate::io::{Disk, Open, OsDisk};
use crate::{ByteCounter, Error, Result, Verified};

/// A directory for content on its way into a store.
#[derive(Debug, Clone)]
pub struct Spool {
    disk: Arc<dyn Disk>,
    dir: Arc<Path>,
    memory_max_bytes: u64,
    budget: Arc<Budget>,
    pairs: Arc<Pairs>,
}

/// Blobs of up to this size never touch the spool directory: they fit the memory of a thousand uploads at once.
const MEMORY_MAX_BYTES: u64 = 128 * 1024;
const COPY_PIECE_BYTES: usize = 256 * 1024;
/// That of a stored blob: the file may become one.
const FILE_MODE: u32 = 0o444;
impl Spool {
    /// Uses `dir`, which exists and is this process's alone.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let unbounded = Budget::new(u64::MAX, ByteCounter::default());
        Self::within(Arc::new(OsDisk), dir.into(), Arc::new(unbounded))
    }

    /// Uses `dir` on `disk`, and takes room for its files from `budget`.
    pub(crate) fn within(disk: Arc<dyn Disk>, dir: PathBuf, budget: Arc<Budget>) -> Self {
        Self {
            disk,
            dir: dir.into(),
            memory_max_bytes: MEMORY_MAX_BYTES,
            budget,
            pairs: Arc::default(),
        }
    }

    /// Sets the size up to which content stays in memory.
    #[must_use]
    pub fn with_memory_max_bytes(self, memory_max_bytes: u64) -> Self {
        Self {
            memory_max_bytes,
            ..self
        }
    }

    /// Starts to ingest content that has to match `digest`.
    ///
    /// # Errors
    /// [`Exhausted`](crate::ErrorKind::Exhausted) or [`Internal`](crate::ErrorKind::Internal) if the spool file cannot be made.
    pub fn ingest(&self, digest: Digest) -> Result<Ingest> {
        match digest.size_bytes() <= self.memory_max_bytes {
            true => Ok(Ingest::in_memory(digest)),
            false => {
                let partial = self.create(digest.size_bytes())?;
                Ok(Ingest::into_file(digest, partial, self.pairs.clone()))
            }
        }
    }

    /// Writes content that is in memory to a file. Blocks: for threads that may.
    ///
    /// # Errors
    /// [`Exhausted`](crate::ErrorKind::Exhausted) if there is no room; I/O errors.
    pub(crate) fn to_file(&self, blob: &Verified, content: &[u8]) -> Result<Verified> {
        let mut file = self.create(content.len() as u64)?;
        file.write(&[content])?;
        Ok(Verified::from_spool(blob.digest(), blob.checksum(), file.keep()?))
    }

    /// Copies and hashes what `source` has from its beginning. Blocks: for threads that may.
    ///
    /// # Errors
    /// [`Exhausted`](crate::ErrorKind::Exhausted) if there is no room; I/O errors. Content that changes its length meanwhile is
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for functions that need the length beforehand, else it is what was read.
    pub fn copy_file(&self, function: DigestFunction, source: &mut File) -> Result<Verified> {
        let io_error = |error| Error::io("ingest", "copying a file into the spool", error);
        let declared = source.metadata().map_err(io_error)?.len();
        let mut hasher = Hashing::new(function, declared);
        let mut file = self.create(declared)?;
        let mut piece = vec![0; COPY_PIECE_BYTES];
        loop {
            let len = match source.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(io_error(error)),
            };
            hasher.update(&piece[..len]);
            file.write(&[&piece[..len]])?;
        }
        let (digest, checksum) = hasher.finish()?;
        Ok(Verified::from_spool(digest, checksum, file.keep()?))
    }

    /// Makes an empty file for content of `size`.
    fn create(&self, size: u64) -> Result<Partial> {
        /// Makes names that no other spool of this process makes.
        static NEXT: AtomicU64 = AtomicU64::new(0);

        let (file, path) = loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.dir.join(format!("ingest-{number}"));
            match self.disk.open(&path, Open::Create { mode: FILE_MODE }) {
                Ok(file) => break (file, path),
                // An earlier process left it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let reason = format!("making a file in {}", self.dir.display());
                    return Err(Error::io("ingest", reason, error));
                }
            }
        };
        let name = Name::new(self.disk.clone(), path);
        Ok(Partial::new(file, name, size, self.budget.clone()))
    }
}
