//! A blob, or a part of one, on its way out of a store.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use rootcellar_digest::Digest;
use rustix::io::Errno;

use crate::io::DiskFile;
use crate::{Error, ErrorKind, PooledBuffer, Result};

/// A part of a blob: from an offset, for a number of bytes or to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub offset: u64,
    /// Bytes at the most; `None` reads to the end.
    pub len: Option<u64>,
}

impl ByteRange {
    /// The whole blob.
    pub const ALL: Self = Self { offset: 0, len: None };

    /// All from `offset` on.
    pub const fn from(offset: u64) -> Self {
        Self { offset, len: None }
    }

    /// The bytes of `digest`'s blob that this range means, clipped to the blob.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] if the range begins behind the end.
    pub fn resolve(self, digest: Digest) -> Result<Range<u64>> {
        let size = digest.size_bytes();
        if self.offset > size {
            let reason = format!("the range begins at {}, behind the blob's end", self.offset);
            return Err(Error::new(ErrorKind::OutOfRange, "get", reason).on(digest));
        }
        let end = self.len.map_or(size, |len| self.offset.saturating_add(len).min(size));
        Ok(self.offset..end)
    }
}

/// Bytes of a blob that a store hands out: in memory, in an open file, or still arriving.
///
/// An open file is read piece by piece as the consumer asks; it needs no memory for what was not asked for yet.
pub struct Blob {
    digest: Digest,
    range: Range<u64>,
    body: Body,
}

enum Body {
    Bytes(Bytes),
    File { source: Source, start: u64 },
    Stream(BoxStream<'static, Result<Bytes>>),
}

/// An open file, and who wants to know if it cannot be read.
#[derive(Clone)]
struct Source {
    file: Arc<dyn DiskFile>,
    on_damage: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// Bytes read from a file at once: large enough to make a call of the kernel cheap, small enough for a thousand readers.
const FILE_PIECE_BYTES: u64 = 64 * 1024;

impl Blob {
    /// Wraps the bytes of `range`.
    ///
    /// # Panics
    /// If `bytes` has another length than `range`.
    pub fn from_bytes(digest: Digest, range: Range<u64>, bytes: Bytes) -> Self {
        assert_eq!(
            bytes.len() as u64,
            range.end - range.start,
            "the bytes are the range asked for"
        );
        Self {
            digest,
            range,
            body: Body::Bytes(bytes),
        }
    }

    /// Wraps an open file in which the blob's first byte lies at `blob_start`.
    pub fn from_file(digest: Digest, range: Range<u64>, file: Arc<dyn DiskFile>, blob_start: u64) -> Self {
        let start = blob_start + range.start;
        let source = Source { file, on_damage: None };
        Self {
            digest,
            range,
            body: Body::File { source, start },
        }
    }

    /// Has `on_damage` called if the file turns out to be cut off or unreadable, on a thread that may block.
    #[must_use]
    pub fn on_damage(mut self, on_damage: impl Fn() + Send + Sync + 'static) -> Self {
        if let Body::File { source, .. } = &mut self.body {
            source.on_damage = Some(Arc::new(on_damage));
        }
        self
    }

    /// Wraps a stream, whose source verifies what it sends.
    pub fn from_stream(digest: Digest, range: Range<u64>, stream: BoxStream<'static, Result<Bytes>>) -> Self {
        Self {
            digest,
            range,
            body: Body::Stream(stream),
        }
    }

    /// The blob that this is, or is a part of.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes of the blob that this holds.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// How many bytes this holds.
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether this holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Whether the bytes are in memory already.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.body, Body::Bytes(_))
    }

    /// Collects the bytes. The caller has bounded the size.
    ///
    /// # Errors
    /// Whatever the source of the bytes met; [`ErrorKind::DataLoss`] if it ended early.
    pub async fn into_bytes(self) -> Result<Bytes> {
        if let Body::Bytes(bytes) = self.body {
            return Ok(bytes);
        }
        let (digest, len) = (self.digest, self.len());
        let capacity = usize::try_from(len)
            .map_err(|_| Error::new(ErrorKind::Exhausted, "get", "the blob does not fit into memory").on(digest))?;
        let append = |mut whole: BytesMut, piece: Bytes| async move {
            whole.extend_from_slice(&piece);
            Ok(whole)
        };
        let whole = self
            .into_stream()
            .try_fold(BytesMut::with_capacity(capacity), append)
            .await?;
        Ok(whole.freeze())
    }

    /// The bytes, piece by piece. The stream ends with an error if its source ends early.
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        let (digest, len) = (self.digest, self.len());
        match self.body {
            Body::Bytes(bytes) if bytes.is_empty() => stream::empty().boxed(),
            Body::Bytes(bytes) => stream::once(async { Ok(bytes) }).boxed(),
            Body::File { source, start } => read_pieces(digest, source, start..start + len),
            Body::Stream(stream) => stream,
        }
    }
}

fn read_pieces(digest: Digest, source: Source, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    let pieces = FilePieces {
        digest,
        source,
        left: range,
    };
    let next = |mut pieces: FilePieces| async move { Ok(pieces.next().await?.map(|piece| (piece, pieces))) };
    stream::try_unfold(pieces, next).boxed()
}

/// A file that is read piece by piece.
struct FilePieces {
    digest: Digest,
    source: Source,
    left: Range<u64>,
}

impl FilePieces {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let (at, len) = (self.left.start, (self.left.end - self.left.start).min(FILE_PIECE_BYTES));
        if len == 0 {
            return Ok(None);
        }
        self.left.start += len;
        if let Some(piece) = self.read_cached(at, len) {
            return Ok(Some(piece));
        }
        let (digest, source) = (self.digest, self.source.clone());
        let piece = tokio::task::spawn_blocking(move || source.read_piece(digest, at, len))
            .await
            .expect("reading a file does not panic, and the runtime outlives its streams")?;
        Ok(Some(piece))
    }

    /// Reads a piece that is in memory: that takes less time than the way to another thread. An error is met again there.
    fn read_cached(&self, at: u64, len: u64) -> Option<Bytes> {
        let mut piece = piece(len);
        matches!(self.source.file.read_cached(&mut piece, at), Ok(true)).then(|| piece.freeze())
    }
}

fn piece(len: u64) -> PooledBuffer {
    PooledBuffer::new(usize::try_from(len).expect("a piece is small"))
}

impl Source {
    fn read_piece(&self, digest: Digest, at: u64, len: u64) -> Result<Bytes> {
        let mut piece = piece(len);
        self.file.read_at(&mut piece, at).map_err(|error| {
            if !is_damage(&error) {
                return Error::io("get", "reading the stored file", error).on(digest);
            }
            if let Some(on_damage) = &self.on_damage {
                on_damage();
            }
            Error::new(ErrorKind::DataLoss, "get", "the stored file is cut off or unreadable")
                .on(digest)
                .caused_by(error)
        })?;
        Ok(piece.freeze())
    }
}

/// Whether an error of reading a blob's file means that bytes are lost, not that the machine is busy.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob")
            .field("digest", &self.digest)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}
