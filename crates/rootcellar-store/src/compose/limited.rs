//! A bound on what is asked of a store at a time.

use std::fmt;
use std::num::{NonZero, NonZeroU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use rootcellar_digest::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::{Blob, BlobStore, ByteRange, Kept, Mark, Result, Verified};

/// What may be asked of a store at a time. Nothing is bounded by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Operations under way, of a read the fetching of each piece. More wait.
    pub operations: Option<NonZero<usize>>,
    /// Bytes that are read in a second.
    pub read_bytes_per_second: Option<NonZeroU64>,
    /// Bytes that are written in a second.
    pub write_bytes_per_second: Option<NonZeroU64>,
}

/// A [`BlobStore`] of which only so much is asked at a time: those who ask for more wait.
#[derive(Debug, Clone)]
pub struct Limited<S: ?Sized> {
    limits: Limits,
    operations: Option<Arc<Semaphore>>,
    reads: Option<Arc<Rate>>,
    writes: Option<Arc<Rate>>,
    inner: Arc<S>,
}

impl<S: BlobStore + ?Sized> Limited<S> {
    /// Bounds what is asked of `inner`.
    pub fn new(inner: Arc<S>, limits: Limits) -> Self {
        let rate = |bytes: Option<NonZeroU64>| bytes.map(|bytes| Arc::new(Rate::new(bytes)));
        Self {
            operations: limits
                .operations
                .map(|max| Arc::new(Semaphore::new(max.get().min(Semaphore::MAX_PERMITS)))),
            reads: rate(limits.read_bytes_per_second),
            writes: rate(limits.write_bytes_per_second),
            limits,
            inner,
        }
    }

    async fn begin(&self) -> Option<OwnedSemaphorePermit> {
        begin(self.operations.clone()).await
    }

    /// Passes a read's pieces on as the rate allows. Fetching a piece is an operation; having one and not taking the next is none, so that
    /// who reads slowly stops nobody.
    fn paced(&self, blob: Blob) -> Blob {
        if blob.is_in_memory() && self.reads.is_none() {
            return blob;
        }
        let (digest, range) = (blob.digest(), blob.range());
        let state = (blob.into_stream(), self.reads.clone(), self.operations.clone());
        let pieces = stream::unfold(state, |(mut pieces, rate, operations)| async move {
            let operation = begin(operations.clone()).await;
            let piece = pieces.next().await?;
            drop(operation);
            if let (Some(rate), Ok(piece)) = (&rate, &piece) {
                rate.take(piece.len() as u64).await;
            }
            Some((piece, (pieces, rate, operations)))
        });
        Blob::from_stream(digest, range, pieces.boxed())
    }
}

async fn begin(operations: Option<Arc<Semaphore>>) -> Option<OwnedSemaphorePermit> {
    Some(operations?.acquire_owned().await.expect("nobody closes it"))
}

async fn take(rate: Option<&Rate>, bytes: u64) {
    if let Some(rate) = rate {
        rate.take(bytes).await;
    }
}

fn sum(sizes: impl Iterator<Item = Digest>) -> u64 {
    sizes.fold(0, |sum, digest| sum.saturating_add(digest.size_bytes()))
}

#[async_trait]
impl<S: BlobStore + ?Sized> BlobStore for Limited<S> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let _operation = self.begin().await;
        self.inner.find_missing(digests).await
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        let operation = self.begin().await;
        let blob = self.inner.get(digest, range).await?;
        drop(operation);
        Ok(self.paced(blob))
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        let _operation = self.begin().await;
        take(self.writes.as_deref(), blob.digest().size_bytes()).await;
        self.inner.put(blob).await
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let _operation = self.begin().await;
        let outcomes = self.inner.get_many(digests).await;
        let bytes = outcomes.iter().flatten().map(|content| content.len() as u64).sum();
        take(self.reads.as_deref(), bytes).await;
        outcomes
    }

    async fn get_many_into(&self, digests: &[Digest], buffers: &mut [&mut [u8]]) -> Vec<Result<()>> {
        let _operation = self.begin().await;
        let outcomes = self.inner.get_many_into(digests, buffers).await;
        let read = outcomes.iter().zip(digests).filter(|(outcome, _)| outcome.is_ok());
        take(self.reads.as_deref(), sum(read.map(|(_, digest)| *digest))).await;
        outcomes
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let _operation = self.begin().await;
        take(self.writes.as_deref(), sum(blobs.iter().map(Verified::digest))).await;
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

impl<S: BlobStore + ?Sized> fmt::Display for Limited<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("limited(")?;
        if let Some(operations) = self.limits.operations {
            write!(f, "{operations} operations, ")?;
        }
        if let Some(bytes) = self.limits.read_bytes_per_second {
            write!(f, "{bytes} B/s read, ")?;
        }
        if let Some(bytes) = self.limits.write_bytes_per_second {
            write!(f, "{bytes} B/s written, ")?;
        }
        write!(f, "{})", self.inner)
    }
}

/// Lets bytes through at a rate. Whoever takes more than there is waits until it has been made up for, in the order of coming; so a
/// piece may be larger than a second's worth.
#[derive(Debug)]
struct Rate {
    bytes_per_second: NonZeroU64,
    /// When all that was taken so far is made up for.
    free_at: Mutex<Instant>,
}

/// What may be taken at once after a quiet time.
const BURST: Duration = Duration::from_millis(100);

impl Rate {
    fn new(bytes_per_second: NonZeroU64) -> Self {
        Self {
            bytes_per_second,
            free_at: Mutex::new(Instant::now()),
        }
    }

    async fn take(&self, bytes: u64) {
        tokio::time::sleep_until(self.turn(bytes, Instant::now())).await;
    }

    /// When these bytes may go.
    fn turn(&self, bytes: u64, now: Instant) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*free_at).max(now.checked_sub(BURST).unwrap_or(now));
        *free_at = begin + self.time_of(bytes);
        begin
    }

    fn time_of(&self, bytes: u64) -> Duration {
        let rate = u128::from(self.bytes_per_second.get());
        let nanos = u128::from(bytes) * 1_000_000_000 / rate;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use rootcellar_digest::DigestFunction;

    use super::*;
    use crate::{BlobStoreExt as _, MemoryStore};

    fn limited(limits: Limits) -> Limited<MemoryStore> {
        Limited::new(Arc::new(MemoryStore::new(1 << 20)), limits)
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_at_the_rate() {
        let store = limited(Limits {
            read_bytes_per_second: NonZeroU64::new(1000),
            write_bytes_per_second: NonZeroU64::new(500),
            ..Limits::default()
        });
        let begin = Instant::now();
        let mut digests = Vec::new();
        for fill in 0..4 {
            let content = Bytes::from(vec![fill; 500]);
            digests.push(store.put_bytes(DigestFunction::Sha256, content).await.unwrap());
        }
        // The last one's second is over when it is made up for, not when it was let through.
        assert!(
            (2900..=3000).contains(&begin.elapsed().as_millis()),
            "{:?}",
            begin.elapsed()
        );
        let begin = Instant::now();
        for digest in digests {
            store.read(digest, 1 << 20).await.unwrap();
        }
        assert!(
            (1400..=1500).contains(&begin.elapsed().as_millis()),
            "{:?}",
            begin.elapsed()
        );
    }

    #[tokio::test]
    async fn who_does_not_read_on_stops_nobody() {
        let store = limited(Limits {
            operations: NonZero::new(1),
            read_bytes_per_second: NonZeroU64::new(1 << 30),
            ..Limits::default()
        });
        let content = Bytes::from_static(b"content");
        let digest = store.put_bytes(DigestFunction::Sha256, content).await.unwrap();
        let stalled = store.get(digest, ByteRange::ALL).await.unwrap();
        let mut begun = store.get(digest, ByteRange::ALL).await.unwrap().into_stream();
        begun.next().await.unwrap().unwrap();
        assert!(store.contains(digest).await.unwrap());
        drop((stalled, begun));
    }

    #[tokio::test]
    async fn operations_wait_for_each_other() {
        let store = limited(Limits {
            operations: NonZero::new(1),
            ..Limits::default()
        });
        let operation = store.begin().await;
        let mut next = pin!(store.find_missing(&[]));
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(operation);
        next.await.unwrap();
    }
}
