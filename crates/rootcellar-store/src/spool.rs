//! Ingestion: hashing content as it arrives, in memory while it is small and in a file once it is not.
//!
//! ```text
//!   write ──> hash ──┬──> memory (up to `memory_max_bytes`)
//!                    └──> <spool dir>/<random name>      ── finish ──> Verified ──> put
//! ```
//!
//! What is never finished is removed: by drop, or by the owner of the directory when it starts.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rootcellar_digest::{Digest, DigestFunction, Hasher};

use crate::byte_counter::Share;
use crate::verified::{SpoolFile, mismatch};
use crate::{ByteCounter, Error, ErrorKind, Result, Verified};

/// A directory for content on its way into a store.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: Arc<Path>,
    memory_max_bytes: u64,
    counter: ByteCounter,
    files_max_bytes: u64,
}

/// Blobs of up to this size never touch the spool directory: they fit the memory of a thousand uploads at once.
const MEMORY_MAX_BYTES: u64 = 128 * 1024;
const COPY_PIECE_BYTES: usize = 256 * 1024;

impl Spool {
    /// Uses `dir`, which exists and is this process's alone.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into().into(),
            memory_max_bytes: MEMORY_MAX_BYTES,
            counter: ByteCounter::default(),
            files_max_bytes: u64::MAX,
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

    /// Counts the bytes in all spool files with `counter`, and refuses what would bring them above `files_max_bytes`.
    #[must_use]
    pub fn counted(self, counter: ByteCounter, files_max_bytes: u64) -> Self {
        Self {
            counter,
            files_max_bytes,
            ..self
        }
    }

    /// Starts to ingest content that has to match `digest`.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] or [`ErrorKind::Internal`] if the spool file cannot be made.
    pub fn ingest(&self, digest: Digest) -> Result<Ingest> {
        let body = if digest.size_bytes() <= self.memory_max_bytes {
            Body::Memory(BytesMut::new())
        } else {
            Body::File(self.create()?)
        };
        Ok(Ingest {
            digest,
            hasher: Some(Hasher::new(digest.function(), digest.size_bytes())),
            body: Some(body),
        })
    }

    /// Copies and hashes what `source` has from its beginning. Blocks: for threads that may.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] at the bound of the spool; else as for reading and writing files. Content that changes its length meanwhile is [`ErrorKind::InvalidArgument`] for
    /// functions that need the length beforehand, else it is what was read.
    pub fn copy_file(&self, function: DigestFunction, source: &mut File) -> Result<Verified> {
        let io_error = |error| Error::io("ingest", "copying a file into the spool", error);
        let declared = source.metadata().map_err(io_error)?.len();
        let mut hasher = Hasher::new(function, declared);
        let mut file = self.create()?;
        let mut piece = vec![0; COPY_PIECE_BYTES];
        loop {
            let len = match source.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(io_error(error)),
            };
            hasher.update(&piece[..len]);
            file.write(&piece[..len])?;
        }
        let digest = hasher
            .finish()
            .map_err(|error| Error::new(ErrorKind::InvalidArgument, "ingest", error.to_string()))?;
        Ok(Verified::from_spool(digest, file.keep()?))
    }

    fn create(&self) -> Result<Partial> {
        let named = tempfile::Builder::new()
            .prefix("ingest-")
            .tempfile_in(&self.dir)
            .map_err(|error| Error::io("ingest", format!("making a file in {}", self.dir.display()), error))?;
        let (file, path) = named.into_parts();
        Ok(Partial {
            file,
            path,
            share: self.counter.share(),
            files_max_bytes: self.files_max_bytes,
        })
    }
}

/// Content that is arriving.
///
/// Every operation that fails leaves nothing usable: drop it. So does a dropped future of [`write`](Self::write); the
/// operations that follow then say so.
#[derive(Debug)]
pub struct Ingest {
    digest: Digest,
    /// `None` while another thread has it, or when it was lost there.
    hasher: Option<Hasher>,
    body: Option<Body>,
}

#[derive(Debug)]
enum Body {
    Memory(BytesMut),
    File(Partial),
}

/// A spool file that is still being written. Dropping it removes it.
#[derive(Debug)]
struct Partial {
    file: File,
    path: tempfile::TempPath,
    /// The file's part in what the spool may hold.
    share: Share,
    files_max_bytes: u64,
}

impl Partial {
    fn write(&mut self, piece: &[u8]) -> Result<()> {
        if self.share.add(piece.len() as u64) > self.files_max_bytes {
            let reason = format!("the spool holds the {} bytes it may", self.files_max_bytes);
            return Err(Error::new(ErrorKind::Exhausted, "ingest", reason));
        }
        self.file
            .write_all(piece)
            .map_err(|error| Error::io("ingest", "writing a spool file", error))
    }

    /// Ends the writing. The file is opened anew for reading only: the kernel runs no program from a file that anybody has
    /// open for writing, and a store publishes this very file.
    fn keep(self) -> Result<SpoolFile> {
        let file = File::open(&self.path).map_err(|error| Error::io("ingest", "reopening a spool file", error))?;
        let path = self
            .path
            .keep()
            .expect("keeping a temporary path only forgets to remove it on Linux");
        Ok(SpoolFile::new(file, path, self.share))
    }
}

impl Ingest {
    /// The digest that the content has to match.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes taken so far.
    pub fn written_bytes(&self) -> u64 {
        self.hasher.as_ref().map_or(0, Hasher::hashed_bytes)
    }

    /// Takes the next piece of content.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] as soon as there is more than the digest's size; I/O errors of the spool file.
    pub async fn write(&mut self, piece: Bytes) -> Result<()> {
        let excess = self.written_bytes().saturating_add(piece.len() as u64);
        if excess > self.digest.size_bytes() {
            let reason = format!("at least {excess} bytes arrived");
            return Err(Error::new(ErrorKind::InvalidArgument, "ingest", reason).on(self.digest));
        }
        let (mut hasher, body) = self.take()?;
        let body = match body {
            Body::Memory(mut bytes) => {
                hasher.update(&piece);
                bytes.extend_from_slice(&piece);
                Body::Memory(bytes)
            }
            Body::File(mut partial) => {
                let write = move || {
                    hasher.update(&piece);
                    partial.write(&piece).map(|()| (hasher, partial))
                };
                let written = tokio::task::spawn_blocking(write)
                    .await
                    .expect("hashing and writing do not panic, and the runtime outlives its tasks")
                    .map_err(|error| error.on(self.digest))?;
                hasher = written.0;
                Body::File(written.1)
            }
        };
        (self.hasher, self.body) = (Some(hasher), Some(body));
        Ok(())
    }

    /// Ends the content.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the content is not what the digest says.
    pub fn finish(mut self) -> Result<Verified> {
        let (hasher, body) = self.take()?;
        let found = hasher
            .finish()
            .map_err(|error| Error::new(ErrorKind::InvalidArgument, "ingest", error.to_string()).on(self.digest))?;
        if found != self.digest {
            return Err(mismatch(self.digest, found));
        }
        match body {
            // Hashed just now, piece by piece: the same bytes.
            Body::Memory(bytes) => Ok(Verified::from_memory(found, bytes.freeze())),
            Body::File(partial) => Ok(Verified::from_spool(
                found,
                partial.keep().map_err(|error| error.on(found))?,
            )),
        }
    }

    fn take(&mut self) -> Result<(Hasher, Body)> {
        match (self.hasher.take(), self.body.take()) {
            (Some(hasher), Some(body)) => Ok((hasher, body)),
            _ => Err(Error::new(ErrorKind::Internal, "ingest", "an earlier write did not end").on(self.digest)),
        }
    }
}
