//! Ingestion: hashing content as it arrives, in memory while it is small and in a file once it is not.
//!
//! ```text
//!   write ──> hash ──┬──> memory (up to `memory_max_bytes`)
//!                    └──> <spool dir>/<random name>      ── finish ──> Verified ──> put
//! ```
//!
//! What is never finished is removed: by drop, or by the owner of the directory when it starts.

use std::fs::File;
use std::io::{self, IoSlice, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use rootcellar_digest::{Digest, DigestFunction, Hasher};
use rustix::fs::{CWD, Mode, OFlags};
use tokio::task::JoinHandle;

use crate::budget::Budget;
use crate::byte_counter::Share;
use crate::checksum::Checksummer;
use crate::io::{Disk, DiskFile, Open, OsDisk};
use crate::verified::{SpoolFile, mismatch};
use crate::{ByteCounter, Error, ErrorKind, Result, Verified};

/// A directory for content on its way into a store.
#[derive(Debug, Clone)]
pub struct Spool {
    disk: Arc<dyn Disk>,
    dir: Arc<Path>,
    memory_max_bytes: u64,
    budget: Arc<Budget>,
}

/// Blobs of up to this size never touch the spool directory: they fit the memory of a thousand uploads at once.
const MEMORY_MAX_BYTES: u64 = 128 * 1024;
/// Pieces are written once they are so many bytes together: a client may send them a few kilobytes at a time, and each change of
/// threads costs as much as hashing some of them.
const WRITE_BYTES: usize = 256 * 1024;
const COPY_PIECE_BYTES: usize = 256 * 1024;
/// Files of at least this size have the disk's space reserved before they are written: a call, which saves the filesystem from finding
/// it block by block. As much again as there is, and never beyond the size that was declared: a client that declares much and sends
/// little does not take much.
const RESERVED_FROM_BYTES: u64 = 1 << 20;
/// That of a stored blob: the file may become one.
const FILE_MODE: u32 = 0o444;
/// As many bytes as the names of a file's extended attributes can have (`XATTR_LIST_MAX`).
const NAMES_BYTES_MAX: usize = 65_536;

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
    /// [`ErrorKind::Exhausted`] or [`ErrorKind::Internal`] if the spool file cannot be made.
    pub fn ingest(&self, digest: Digest) -> Result<Ingest> {
        let hashing = Hashing::new(digest.function(), digest.size_bytes());
        let body = match digest.size_bytes() <= self.memory_max_bytes {
            true => Body::Memory {
                hashing,
                bytes: BytesMut::new(),
            },
            false => Body::File(FileBody::new(hashing, self.create(digest.size_bytes())?)),
        };
        Ok(Ingest {
            digest,
            taken_bytes: 0,
            body: Some(body),
        })
    }

    /// Writes content that is in memory to a file. Blocks: for threads that may.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] if there is no room; I/O errors.
    pub(crate) fn to_file(&self, blob: &Verified, content: &[u8]) -> Result<Verified> {
        let mut file = self.create(content.len() as u64)?;
        file.write(&[content])?;
        Ok(Verified::from_spool(blob.digest(), blob.checksum(), file.keep()?))
    }

    /// Copies and hashes what `source` has from its beginning. Blocks: for threads that may.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] if there is no room; I/O errors. Content that changes its length meanwhile is
    /// [`ErrorKind::InvalidArgument`] for functions that need the length beforehand, else it is what was read.
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

    /// Takes a file that was hashed where it lies, in place of a copy: `move_to` renames it to the path that it is given, on the same
    /// filesystem. Blocks: for threads that may.
    ///
    /// The caller sees to it that nobody can write to the file since before it was hashed, through whatever descriptor or mapping. It
    /// becomes this process's, and read-only.
    ///
    /// # Errors
    /// What `move_to` says: then the file is where it was. [`ErrorKind::Exhausted`] if there is no room;
    /// [`ErrorKind::InvalidArgument`] if another file was moved; I/O errors.
    pub fn adopt(&self, hashed: &HashedFile, move_to: impl FnOnce(&Path) -> io::Result<()>) -> Result<Verified> {
        let io_error = |error| Error::io("ingest", "taking a file into the spool", error).on(hashed.digest);
        // It takes the place of an empty file of ours: so the name is free, and is removed again whatever happens.
        let partial = self.create(0)?;
        self.budget.take(&partial.share, hashed.digest.size_bytes())?;
        let path = partial.name.as_ref().expect("it was created just now").path();
        move_to(path).map_err(io_error)?;
        let is_same = hashed.take_over(path).map_err(io_error)?;
        if !is_same {
            let reason = "another file was moved than was hashed";
            return Err(Error::new(ErrorKind::InvalidArgument, "ingest", reason).on(hashed.digest));
        }
        Ok(Verified::from_spool(hashed.digest, hashed.checksum, partial.keep()?))
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
        Ok(Partial {
            file,
            size,
            written: 0,
            reserved: 0,
            name: Some(Name {
                disk: self.disk.clone(),
                path,
            }),
            share: self.budget.spooled.share(),
            budget: self.budget.clone(),
        })
    }
}

/// A file that was hashed where it lies.
#[derive(Debug)]
pub struct HashedFile {
    digest: Digest,
    checksum: u32,
    /// The device, and the file's number on it.
    identity: (u64, u64),
}

impl HashedFile {
    /// Hashes a file, from its beginning. Blocks: for threads that may.
    ///
    /// # Errors
    /// I/O errors, among them an early end.
    pub fn of(function: DigestFunction, file: &File) -> Result<Self> {
        let io_error = |error| Error::io("ingest", "hashing a file", error);
        let metadata = file.metadata().map_err(io_error)?;
        let size = metadata.len();
        let mut hasher = Hashing::new(function, size);
        let mut piece = vec![0; COPY_PIECE_BYTES];
        let mut at = 0;
        while at < size {
            let len = usize::try_from(size - at).map_or(piece.len(), |left| left.min(piece.len()));
            file.read_exact_at(&mut piece[..len], at).map_err(io_error)?;
            hasher.update(&piece[..len]);
            at += len as u64;
        }
        let (digest, checksum) = hasher.finish()?;
        Ok(Self {
            digest,
            checksum,
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    /// What it holds.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Makes what is at `path` look like a file that was made here, if it is the one that was hashed.
    fn take_over(&self, path: &Path) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if (metadata.dev(), metadata.ino()) != self.identity {
            return Ok(false);
        }
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(FILE_MODE))?;
        let mut names = vec![0; NAMES_BYTES_MAX];
        let len = rustix::fs::flistxattr(&file, &mut names)?;
        let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        // Labels of security modules are theirs, and not the former owner's to set.
        for name in names.filter(|name| !name.starts_with(b"security.")) {
            rustix::fs::fremovexattr(&file, name)?;
        }
        Ok(true)
    }
}

/// The name of a spool file. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct Name {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Name {
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

/// Content that is arriving.
///
/// An operation that fails leaves nothing usable: drop it. A dropped future of [`write`](Self::write) leaves all that was taken.
#[derive(Debug)]
pub struct Ingest {
    digest: Digest,
    taken_bytes: u64,
    /// `None` after an error.
    body: Option<Body>,
}

/// Both ways by which content is known again, in one pass.
#[derive(Debug)]
struct Hashing {
    hasher: Hasher,
    checksummer: Checksummer,
}

impl Hashing {
    fn new(function: DigestFunction, declared: u64) -> Self {
        Self {
            hasher: Hasher::new(function, declared),
            checksummer: Checksummer::default(),
        }
    }

    fn update(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.checksummer.update(piece);
    }

    fn finish(self) -> Result<(Digest, u32)> {
        let checksum = self.checksummer.finish();
        match self.hasher.finish() {
            Ok(digest) => Ok((digest, checksum)),
            Err(error) => Err(Error::new(ErrorKind::InvalidArgument, "ingest", error.to_string())),
        }
    }

    /// The checksum, if the content is what `digest` says.
    fn check(self, digest: Digest) -> Result<u32> {
        match self.finish()? {
            (found, checksum) if found == digest => Ok(checksum),
            (found, _) => Err(mismatch(digest, found)),
        }
    }
}

#[derive(Debug)]
enum Body {
    Memory { hashing: Hashing, bytes: BytesMut },
    File(FileBody),
}

/// Content on its way into a file, up to twice [`WRITE_BYTES`] and two pieces of it in memory: what is being hashed and written, and what
/// comes meanwhile.
#[derive(Debug)]
struct FileBody {
    /// Pieces that wait for others, to be hashed and written with them.
    pending: Vec<Bytes>,
    pending_bytes: usize,
    writing: Writing,
    file: Arc<dyn DiskFile>,
    /// How much of the file can be read.
    written_bytes: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Writing {
    Idle(Box<Written>),
    /// Another thread is at it.
    Running(JoinHandle<Result<Box<Written>>>),
    /// It went wrong.
    Ended,
}

/// What is in a spool file so far.
#[derive(Debug)]
struct Written {
    hashing: Hashing,
    partial: Partial,
}

/// A spool file that is still being written. Dropping it removes it.
#[derive(Debug)]
struct Partial {
    file: Arc<dyn DiskFile>,
    /// What the content is expected to have.
    size: u64,
    written: u64,
    /// Bytes for which there is room: in the budget, and for a large file on the disk.
    reserved: u64,
    name: Option<Name>,
    /// The file's part in what the spool may hold.
    share: Share,
    budget: Arc<Budget>,
}

impl Partial {
    fn write(&mut self, pieces: &[&[u8]]) -> Result<()> {
        let len: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.reserve(self.written + len)?;
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        self.file
            .write_at(&slices, self.written)
            .map_err(|error| Error::io("ingest", "writing a spool file", error))?;
        self.written += len;
        Ok(())
    }

    /// Makes room for content up to `end`.
    fn reserve(&mut self, end: u64) -> Result<()> {
        if end <= self.reserved {
            return Ok(());
        }
        let reserved = match self.size < RESERVED_FROM_BYTES {
            true => end,
            false => end.saturating_mul(2).min(self.size).max(end),
        };
        self.budget.take(&self.share, reserved - self.reserved)?;
        self.reserved = reserved;
        if self.size >= RESERVED_FROM_BYTES {
            let reserve = self.file.reserve(reserved);
            reserve.map_err(|error| Error::io("ingest", "reserving room for a spool file", error))?;
        }
        Ok(())
    }

    /// Ends the writing, and gives back what was reserved for more than came. The file is opened anew for reading only: the kernel runs no program from a file that anybody has
    /// open for writing, and a store publishes this very file.
    fn keep(mut self) -> Result<SpoolFile> {
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

impl Ingest {
    /// The digest that the content has to match.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes taken so far.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// The file that the content is written to, and how much of it can be read there; `None` while it is in memory.
    pub(crate) fn file(&self) -> Option<(Arc<dyn DiskFile>, u64)> {
        match &self.body {
            Some(Body::File(body)) => Some((body.file.clone(), body.written_bytes.load(Ordering::Acquire))),
            _ => None,
        }
    }

    /// Takes the next piece of content. What it meets when it is written may be an error of a later piece; the last piece is written when
    /// this returns.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] as soon as there is more than the digest's size; I/O errors of the spool file.
    pub async fn write(&mut self, piece: Bytes) -> Result<()> {
        let taken_bytes = self.taken_bytes.saturating_add(piece.len() as u64);
        if taken_bytes > self.digest.size_bytes() {
            let reason = format!("at least {taken_bytes} bytes arrived");
            return Err(Error::new(ErrorKind::InvalidArgument, "ingest", reason).on(self.digest));
        }
        let is_last = taken_bytes == self.digest.size_bytes();
        self.taken_bytes = taken_bytes;
        let outcome = match &mut self.body {
            Some(Body::Memory { hashing, bytes }) => {
                hashing.update(&piece);
                bytes.extend_from_slice(&piece);
                Ok(())
            }
            Some(Body::File(body)) => body.take(piece, is_last).await,
            None => Err(did_not_end()),
        };
        outcome.map_err(|error| {
            self.body = None;
            error.on(self.digest)
        })
    }

    /// Ends the content.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the content is not what the digest says.
    pub fn finish(self) -> Result<Verified> {
        if self.taken_bytes < self.digest.size_bytes() {
            let reason = format!("only {} bytes arrived", self.taken_bytes);
            return Err(Error::new(ErrorKind::InvalidArgument, "ingest", reason).on(self.digest));
        }
        let verified = match self.body {
            // Hashed just now, piece by piece: the same bytes.
            Some(Body::Memory { hashing, bytes }) => hashing
                .check(self.digest)
                .map(|checksum| Verified::from_memory(self.digest, checksum, bytes.freeze())),
            Some(Body::File(body)) => body.finish(self.digest),
            None => Err(did_not_end()),
        };
        verified.map_err(|error| error.on(self.digest))
    }
}

fn did_not_end() -> Error {
    Error::new(ErrorKind::Internal, "ingest", "an earlier write did not end")
}

impl FileBody {
    fn new(hashing: Hashing, partial: Partial) -> Self {
        Self {
            pending: Vec::new(),
            pending_bytes: 0,
            file: partial.file.clone(),
            written_bytes: Arc::default(),
            writing: Writing::Idle(Box::new(Written { hashing, partial })),
        }
    }

    /// Takes a piece, and has what waits written once that is enough. Waits for what was begun before.
    async fn take(&mut self, piece: Bytes, is_last: bool) -> Result<()> {
        self.pending_bytes += piece.len();
        self.pending.push(piece);
        if self.pending_bytes < WRITE_BYTES && !is_last {
            return Ok(());
        }
        let written = self.written().await?;
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let written_bytes = self.written_bytes.clone();
        let write = move || written.write(&pending, &written_bytes);
        self.writing = Writing::Running(tokio::task::spawn_blocking(write));
        if is_last {
            let written = self.written().await?;
            self.writing = Writing::Idle(written);
        }
        Ok(())
    }

    /// Waits until nothing is being written, and takes what was. Nothing is lost if the caller goes away meanwhile.
    async fn written(&mut self) -> Result<Box<Written>> {
        if let Writing::Running(running) = &mut self.writing {
            let written = running.await;
            self.writing = Writing::Ended;
            return written.expect("hashing and writing do not panic, and the runtime outlives its tasks");
        }
        match std::mem::replace(&mut self.writing, Writing::Ended) {
            Writing::Idle(written) => Ok(written),
            Writing::Running(_) | Writing::Ended => Err(did_not_end()),
        }
    }

    fn finish(self, digest: Digest) -> Result<Verified> {
        // The last piece was written, if its future was not dropped.
        let Writing::Idle(written) = self.writing else {
            return Err(did_not_end());
        };
        let checksum = written.hashing.check(digest)?;
        Ok(Verified::from_spool(digest, checksum, written.partial.keep()?))
    }
}

impl Written {
    /// Hashes and writes pieces. Blocks.
    fn write(mut self: Box<Self>, pending: &[Bytes], written_bytes: &AtomicU64) -> Result<Box<Self>> {
        let pieces: Vec<&[u8]> = pending.iter().map(|piece| &**piece).collect();
        for piece in &pieces {
            self.hashing.update(piece);
        }
        self.partial.write(&pieces)?;
        written_bytes.store(self.partial.written, Ordering::Release);
        Ok(self)
    }
}
