//! Content that is known to be what its digest says.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};

use crate::byte_counter::Share;
use crate::{Blob, ByteRange, Error, ErrorKind, Result};

/// A blob whose bytes were hashed in this process and match its digest: the only thing that a store takes.
///
/// Its content can be read any number of times, so that a put can be retried or sent to several stores; cloning is cheap.
#[derive(Debug, Clone)]
pub struct Verified {
    digest: Digest,
    content: Content,
}

/// Where the bytes of a [`Verified`] blob are.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// In a file of a [`Spool`](crate::Spool).
    Spooled(SpoolFile),
}

impl Verified {
    /// Hashes `content`, which gives the blob its name.
    pub fn of(function: DigestFunction, content: Bytes) -> Self {
        Self {
            digest: Digest::of(function, &content),
            content: Content::Bytes(content),
        }
    }

    /// Hashes `content` and compares.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the content is not what `digest` says.
    pub fn check(digest: Digest, content: Bytes) -> Result<Self> {
        let found = Digest::of(digest.function(), &content);
        if found != digest {
            return Err(mismatch(digest, found));
        }
        Ok(Self {
            digest,
            content: Content::Bytes(content),
        })
    }

    /// Binds a spool file to the digest that its writer computed while writing it.
    pub(crate) fn from_spool(digest: Digest, file: SpoolFile) -> Self {
        Self {
            digest,
            content: Content::Spooled(file),
        }
    }

    /// Binds bytes to the digest that was computed of them as they arrived.
    pub(crate) fn from_memory(digest: Digest, content: Bytes) -> Self {
        Self {
            digest,
            content: Content::Bytes(content),
        }
    }

    /// The blob's name.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Where the bytes are.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The bytes, to read.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] if the range begins behind the end.
    pub fn open(&self, range: ByteRange) -> Result<Blob> {
        let range = range.resolve(self.digest)?;
        Ok(match &self.content {
            Content::Bytes(bytes) => {
                let index = |at: u64| usize::try_from(at).expect("a range within bytes in memory");
                Blob::from_bytes(
                    self.digest,
                    range.clone(),
                    bytes.slice(index(range.start)..index(range.end)),
                )
            }
            Content::Spooled(file) => Blob::from_file(self.digest, range, file.file(), 0),
        })
    }
}

pub(crate) fn mismatch(expected: Digest, found: Digest) -> Error {
    let reason = format!("the content has the digest {found}");
    Error::new(ErrorKind::InvalidArgument, "verify", reason).on(expected)
}

/// A file that was written once, by ingestion, and is removed when the last holder lets go.
///
/// A store on the same filesystem publishes it by a second link, so that the content stays readable here for others.
#[derive(Clone)]
pub struct SpoolFile(Arc<Inner>);

struct Inner {
    file: Arc<File>,
    path: PathBuf,
    share: Share,
}

impl SpoolFile {
    pub(crate) fn new(file: File, path: PathBuf, share: Share) -> Self {
        Self(Arc::new(Inner {
            file: Arc::new(file),
            path,
            share,
        }))
    }

    /// Stops counting the file's bytes as the spool's: a store has linked it and counts them.
    pub(crate) fn hand_over(&self) {
        self.0.share.hand_over();
    }

    /// The file, open for reading, positioned anywhere.
    pub fn file(&self) -> Arc<File> {
        self.0.file.clone()
    }

    /// Its name, for a second link.
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

impl fmt::Debug for SpoolFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SpoolFile").field(&self.0.path).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a spool file stays until the next start");
        }
    }
}
