//! Content that is known to be what its digest says.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};

use crate::byte_counter::Share;
use crate::checksum::checksum;
use crate::io::DiskFile;
use crate::spool::Name;
use crate::{Blob, ByteRange, Error, ErrorKind, Result};

/// A blob whose bytes were hashed in this process and match its digest: the only thing that a store takes.
///
/// Its content can be read any number of times, so that a put can be retried or sent to several stores; cloning is cheap.
#[derive(Debug, Clone)]
pub struct Verified {
    digest: Digest,
    checksum: u32,
    content: Content,
}

/// Where the bytes of a [`Verified`] blob are.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// In a file of a [`Spool`](crate::Spool).
    Spooled(SpoolFile),
    /// In a file that holds other things too, from this position on.
    Part(Arc<dyn DiskFile>, u64),
}

impl Verified {
    /// Hashes `content`, which gives the blob its name.
    pub fn of(function: DigestFunction, content: Bytes) -> Self {
        Self::from_memory(Digest::of(function, &content), checksum(&content), content)
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
        Ok(Self::from_memory(digest, checksum(&content), content))
    }

    /// Hashes each of these contents and compares, for less than one after the other.
    ///
    /// # Errors
    /// For each that is not what its digest says: [`ErrorKind::InvalidArgument`].
    pub fn check_each(blobs: Vec<(Digest, Bytes)>) -> Vec<Result<Self>> {
        let contents: Vec<_> = blobs
            .iter()
            .map(|(digest, content)| (digest.function(), &**content))
            .collect();
        let found = Digest::of_each(&contents);
        let check = |((digest, content), found): ((Digest, Bytes), Digest)| match found == digest {
            true => Ok(Self::from_memory(digest, checksum(&content), content)),
            false => Err(mismatch(digest, found)),
        };
        blobs.into_iter().zip(found).map(check).collect()
    }

    /// Binds a spool file to the digest that its writer computed while writing it.
    pub(crate) fn from_spool(digest: Digest, checksum: u32, file: SpoolFile) -> Self {
        Self {
            digest,
            checksum,
            content: Content::Spooled(file),
        }
    }

    /// Binds stored bytes, which were just compared with their checksum, to the digest that they are stored under.
    pub(crate) fn from_part(digest: Digest, checksum: u32, file: Arc<dyn DiskFile>, at: u64) -> Self {
        Self {
            digest,
            checksum,
            content: Content::Part(file, at),
        }
    }

    /// Binds bytes to the digest that was computed of them as they arrived.
    pub(crate) fn from_memory(digest: Digest, checksum: u32, content: Bytes) -> Self {
        Self {
            digest,
            checksum,
            content: Content::Bytes(content),
        }
    }

    /// The blob's name.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The checksum by which a layout knows the bytes again.
    pub(crate) fn checksum(&self) -> u32 {
        self.checksum
    }

    /// The same, if it is in memory, without the message that it may be a part of: for who keeps it for long.
    pub(crate) fn in_memory_of_its_own(mut self) -> Self {
        if let Content::Bytes(bytes) = &self.content {
            self.content = Content::Bytes(Bytes::copy_from_slice(bytes));
        }
        self
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
            Content::Part(file, at) => Blob::from_file(self.digest, range, file.clone(), *at),
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
#[derive(Debug, Clone)]
pub struct SpoolFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Arc<dyn DiskFile>,
    name: Name,
    share: Share,
}

impl SpoolFile {
    pub(crate) fn new(file: Arc<dyn DiskFile>, name: Name, share: Share) -> Self {
        Self(Arc::new(Inner { file, name, share }))
    }

    /// Stops counting the file's bytes as the spool's: a store has linked it and counts them.
    pub(crate) fn hand_over(&self) {
        self.0.share.set(0);
    }

    /// The file, open for reading.
    pub fn file(&self) -> Arc<dyn DiskFile> {
        self.0.file.clone()
    }

    /// Its name, for a second link.
    pub fn path(&self) -> &Path {
        self.0.name.path()
    }
}
