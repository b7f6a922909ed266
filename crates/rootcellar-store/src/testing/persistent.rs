//! A client that tries again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use rootcellar_digest::Digest;

use crate::{Blob, BlobStore, ByteRange, Error, ErrorKind, Result, Verified};

/// Asks a store again when it says that it cannot answer now, or read something wrong, as a client of a server would. So the same suite
/// can be run over something that fails now and then: what it may do then is to say so.
#[derive(Debug)]
pub struct Persistent<S: ?Sized> {
    inner: Arc<S>,
}

const ATTEMPTS_MAX: usize = 100;
const PAUSE: Duration = Duration::from_millis(1);

impl<S: BlobStore + ?Sized> Persistent<S> {
    /// Asks `inner` until it answers.
    pub fn new(inner: Arc<S>) -> Self {
        Self { inner }
    }

    /// Reads now, since a stream cannot be asked again.
    async fn read(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        let blob = self.inner.get(digest, range).await?;
        let (range, len) = (blob.range(), blob.len());
        let mut content = Vec::new();
        let mut pieces = blob.into_stream();
        while let Some(piece) = pieces.next().await {
            content.extend_from_slice(&piece?);
        }
        if content.len() as u64 != len {
            return Err(Error::new(ErrorKind::Unavailable, "get", "the read ended early").on(digest));
        }
        Ok(Blob::from_bytes(digest, range, content.into()))
    }

    async fn read_one(&self, digest: Digest) -> Result<Bytes> {
        self.inner.get_many(&[digest]).await.remove(0)
    }
}

async fn until_answered<'a, T>(mut attempt: impl FnMut() -> BoxFuture<'a, Result<T>>) -> Result<T> {
    for _ in 1..ATTEMPTS_MAX {
        match attempt().await {
            Err(error) if may_pass(&error) => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
    attempt().await
}

fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::DataLoss)
}

#[async_trait]
impl<S: BlobStore + ?Sized> BlobStore for Persistent<S> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        until_answered(|| self.inner.find_missing(digests)).await
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        until_answered(|| self.read(digest, range).boxed()).await
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        until_answered(|| self.inner.put(blob.clone())).await
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let mut outcomes = self.inner.get_many(digests).await;
        for (digest, outcome) in digests.iter().zip(&mut outcomes) {
            if outcome.as_ref().is_err_and(may_pass) {
                *outcome = until_answered(|| self.read_one(*digest).boxed()).await;
            }
        }
        outcomes
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let mut outcomes = self.inner.put_many(blobs.clone()).await;
        for (blob, outcome) in blobs.into_iter().zip(&mut outcomes) {
            if outcome.as_ref().is_err_and(may_pass) {
                *outcome = self.put(blob).await;
            }
        }
        outcomes
    }
}

impl<S: BlobStore + ?Sized> fmt::Display for Persistent<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "persistent({})", self.inner)
    }
}
