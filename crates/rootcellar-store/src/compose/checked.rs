//! Reads that are hashed on their way: for stores whose bytes come over a wire, or from somebody who is not to be trusted.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use rootcellar_digest::{Digest, Hasher};

use crate::{Blob, BlobStore, ByteRange, Error, ErrorKind, Kept, Mark, Result, Verified};

/// Pieces with fewer bytes are hashed where they are: that takes less time than the way to another thread.
const HASHED_INLINE_BYTES_MAX: usize = 64 * 1024;

/// A [`BlobStore`] whose whole reads are hashed before their last piece is handed out.
///
/// With it a store need not check what it reads to keep clause 4 of the contract. Of a part of a blob only the length can be made
/// sure: nobody can hash what he does not have. Damage is reported and not put right.
#[derive(Debug, Clone)]
pub struct Checked<S: ?Sized> {
    inner: Arc<S>,
}

impl<S: BlobStore + ?Sized> Checked<S> {
    /// Checks what is read from `inner`.
    pub fn new(inner: Arc<S>) -> Self {
        Self { inner }
    }

    async fn check_bytes(&self, digest: Digest, content: Bytes) -> Result<Bytes> {
        match hash(Hasher::new(digest.function(), digest.size_bytes()), content.clone())
            .await
            .finish()
        {
            Ok(found) if found == digest => Ok(content),
            _ => Err(wrong(&self.inner, digest)),
        }
    }
}

#[async_trait]
impl<S: BlobStore + ?Sized> BlobStore for Checked<S> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.inner.find_missing(digests).await
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        let blob = self.inner.get(digest, range).await?;
        let inner = self.inner.clone();
        Ok(check_blob(blob, move || wrong(&inner, digest)))
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        self.inner.put(blob).await
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let outcomes = self.inner.get_many(digests).await;
        let mut checked = Vec::with_capacity(outcomes.len());
        for (digest, outcome) in digests.iter().zip(outcomes) {
            checked.push(match outcome {
                Ok(content) => self.check_bytes(*digest, content).await,
                Err(error) => Err(error),
            });
        }
        checked
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        self.inner.put_many(blobs).await
    }

    fn mark(&self) -> Option<Mark> {
        self.inner.mark()
    }

    fn has_kept(&self, mark: Mark) -> Kept {
        self.inner.has_kept(mark)
    }

    fn has_kept_since(&self, digests: &[Digest], when: SystemTime) -> bool {
        self.inner.has_kept_since(digests, when)
    }
}

impl<S: BlobStore + ?Sized> fmt::Display for Checked<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checked({})", self.inner)
    }
}

fn wrong<S: fmt::Display + ?Sized>(store: &Arc<S>, digest: Digest) -> Error {
    let reason = format!("{store}: the bytes that were read do not belong to the digest");
    Error::new(ErrorKind::DataLoss, "get", reason).on(digest)
}

/// Has a blob end with the error of `wrong` before its last piece, unless what came is right: by its hash if it is the whole blob,
/// else by its length.
pub(crate) fn check_blob(blob: Blob, wrong: impl Fn() -> Error + Send + 'static) -> Blob {
    let (digest, range) = (blob.digest(), blob.range());
    if range.is_empty() {
        return blob;
    }
    let is_whole = range == (0..digest.size_bytes());
    let check = Check {
        left: range.end - range.start,
        hasher: is_whole.then(|| Hasher::new(digest.function(), digest.size_bytes())),
        pieces: blob.into_stream(),
        digest,
        wrong,
    };
    let checked = stream::try_unfold(check, |mut check| async move {
        let next = check.next().await?;
        Ok(next.map(|piece| (piece, check)))
    });
    Blob::from_stream(digest, range, checked.boxed())
}

struct Check<F> {
    /// Bytes that are still to come.
    left: u64,
    /// `None` if only a part is read.
    hasher: Option<Hasher>,
    pieces: BoxStream<'static, Result<Bytes>>,
    digest: Digest,
    wrong: F,
}

impl<F: Fn() -> Error> Check<F> {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let piece = match self.pieces.next().await {
            Some(piece) => piece?,
            None => return Err((self.wrong)()),
        };
        let Some(left) = self.left.checked_sub(piece.len() as u64) else {
            return Err((self.wrong)());
        };
        self.left = left;
        if let Some(hasher) = self.hasher.take() {
            self.hasher = Some(hash(hasher, piece.clone()).await);
        }
        if left == 0 {
            self.end().await?;
        }
        Ok(Some(piece))
    }

    async fn end(&mut self) -> Result<()> {
        let found = self.hasher.take().map(Hasher::finish);
        if found.is_some_and(|found| found != Ok(self.digest)) {
            return Err((self.wrong)());
        }
        while let Some(more) = self.pieces.next().await {
            if !more?.is_empty() {
                return Err((self.wrong)());
            }
        }
        Ok(())
    }
}

async fn hash(mut hasher: Hasher, piece: Bytes) -> Hasher {
    if piece.len() <= HASHED_INLINE_BYTES_MAX {
        hasher.update(&piece);
        return hasher;
    }
    let hash = move || {
        hasher.update(&piece);
        hasher
    };
    tokio::task::spawn_blocking(hash)
        .await
        .expect("hashing does not panic, and the runtime outlives its tasks")
}
