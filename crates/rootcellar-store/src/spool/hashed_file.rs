//! Files that are taken as they are, in place of a copy.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use rootcellar_digest::{Digest, DigestFunction};
use rustix::fs::{CWD, Mode, OFlags};

use super::hashing::Hashing;
use super::{COPY_PIECE_BYTES, FILE_MODE, Spool};
use crate::{Error, ErrorKind, Result, Verified};

/// As many bytes as the names of a file's extended attributes can have (`XATTR_LIST_MAX`).
const NAMES_BYTES_MAX: usize = 65_536;

impl Spool {
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
