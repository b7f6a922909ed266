//! A store that takes its time.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rootcellar_digest::Digest;
use rootcellar_store::{Blob, BlobStore, ByteRange, MemoryStore, Result, Verified};

/// Answers questions after a while, and takes blobs at once.
#[derive(Debug)]
pub(crate) struct Slow {
    inner: MemoryStore,
    delay: Duration,
}

impl Slow {
    pub(crate) fn new(delay: Duration) -> Self {
        Self {
            inner: MemoryStore::new(64 << 20),
            delay,
        }
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slow({})", self.inner)
    }
}

#[async_trait]
impl BlobStore for Slow {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        tokio::time::sleep(self.delay).await;
        self.inner.find_missing(digests).await
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        tokio::time::sleep(self.delay).await;
        self.inner.get(digest, range).await
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        self.inner.put(blob).await
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        tokio::time::sleep(self.delay).await;
        self.inner.get_many(digests).await
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        self.inner.put_many(blobs).await
    }
}
