//! What is asked of a store, how it ends, and how long it takes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use rootcellar_digest::Digest;
use tokio::time::Instant;

use crate::{Blob, BlobStore, ByteRange, Error, ErrorKind, Kept, Mark, Result, Verified};

/// What can be asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `find_missing`
    FindMissing,
    /// `get`: its time ends when the first piece can be read.
    Get,
    /// `put`
    Put,
    /// `get_many` and `get_many_into`
    GetMany,
    /// `put_many`
    PutMany,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::FindMissing, Self::Get, Self::Put, Self::GetMany, Self::PutMany];

    /// Its name in the contract.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FindMissing => "find_missing",
            Self::Get => "get",
            Self::Put => "put",
            Self::GetMany => "get_many",
            Self::PutMany => "put_many",
        }
    }
}

/// A [`BlobStore`] of which everything is counted. What it costs is a few counters for each call.
#[derive(Debug, Clone)]
pub struct Observed<S: ?Sized> {
    counters: Arc<[Counters; Operation::ALL.len()]>,
    inner: Arc<S>,
}

/// Powers of two of a microsecond: up to half an hour, and what is above.
const BUCKETS: usize = 32;

#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    blobs: AtomicU64,
    bytes: AtomicU64,
    absent: AtomicU64,
    failures: AtomicU64,
    /// Calls by the binary logarithm of their microseconds.
    times: [AtomicU64; BUCKETS],
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

impl Counters {
    fn note_call(&self, blobs: usize, begin: Instant) {
        add(&self.calls, 1);
        add(&self.blobs, blobs as u64);
        let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        add(&self.times[bucket.min(BUCKETS - 1)], 1);
    }

    fn note_failure(&self, error: &Error) {
        match error.kind() {
            ErrorKind::NotFound => add(&self.absent, 1),
            _ => add(&self.failures, 1),
        }
    }

    fn read(&self) -> Observation {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Observation {
            calls: load(&self.calls),
            blobs: load(&self.blobs),
            bytes: load(&self.bytes),
            absent: load(&self.absent),
            failures: load(&self.failures),
            times: self.times.iter().map(load).collect(),
        }
    }
}

/// What was seen of one operation since the store was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Calls.
    pub calls: u64,
    /// Blobs that they named.
    pub blobs: u64,
    /// Bytes of blobs that went through.
    pub bytes: u64,
    /// Blobs that were not there.
    pub absent: u64,
    /// Blobs, or whole calls, for which there was another error.
    pub failures: u64,
    times: Vec<u64>,
}

impl Observation {
    /// The time within which `part` of the calls ended, 0.5 being the median: to a factor of two, from above.
    pub fn time_within(&self, part: f64) -> Duration {
        let mut left = part * lossy(self.times.iter().sum());
        for (bucket, calls) in self.times.iter().enumerate() {
            left -= lossy(*calls);
            if left <= 0.0 {
                return Duration::from_micros(1 << bucket);
            }
        }
        Duration::ZERO
    }
}

#[expect(clippy::cast_precision_loss, reason = "a part of a count of calls")]
fn lossy(count: u64) -> f64 {
    count as f64
}

/// What was seen of all operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics(Vec<(Operation, Observation)>);

impl Statistics {
    /// What was seen of one.
    pub fn of(&self, operation: Operation) -> &Observation {
        let (_, observation) = self
            .0
            .iter()
            .find(|(of, _)| *of == operation)
            .expect("all operations are observed");
        observation
    }
}

/// Writes a line's worth of words for a log: operations that were called, the number of calls, of blobs and of what went wrong.
impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (operation, seen) in self.0.iter().filter(|(_, seen)| seen.calls > 0) {
            write!(
                f,
                "{separator}{} {} calls of {} blobs",
                operation.name(),
                seen.calls,
                seen.blobs
            )?;
            for (number, what) in [
                (seen.bytes, "bytes"),
                (seen.absent, "absent"),
                (seen.failures, "failed"),
            ] {
                if number > 0 {
                    write!(f, ", {number} {what}")?;
                }
            }
            write!(f, ", 99% within {:?}", seen.time_within(0.99))?;
            separator = "; ";
        }
        match separator {
            "" => f.write_str("nothing was asked"),
            _ => Ok(()),
        }
    }
}

impl<S: BlobStore + ?Sized> Observed<S> {
    /// Observes `inner`.
    pub fn new(inner: Arc<S>) -> Self {
        Self {
            counters: Arc::default(),
            inner,
        }
    }

    /// What was seen so far.
    pub fn statistics(&self) -> Statistics {
        Statistics(
            Operation::ALL
                .map(|operation| (operation, self.counters(operation).read()))
                .into(),
        )
    }

    fn counters(&self, operation: Operation) -> &Counters {
        &self.counters[operation as usize]
    }

    /// Counts the bytes of a read as they go, and how it ends.
    fn counted(&self, blob: Blob) -> Blob {
        if blob.is_in_memory() {
            add(&self.counters(Operation::Get).bytes, blob.len());
            return blob;
        }
        let (digest, range, all) = (blob.digest(), blob.range(), self.counters.clone());
        let pieces = blob.into_stream().inspect(move |piece| {
            let counters = &all[Operation::Get as usize];
            match piece {
                Ok(piece) => add(&counters.bytes, piece.len() as u64),
                Err(error) => counters.note_failure(error),
            }
        });
        Blob::from_stream(digest, range, pieces.boxed())
    }
}

#[async_trait]
impl<S: BlobStore + ?Sized> BlobStore for Observed<S> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let (begin, counters) = (Instant::now(), self.counters(Operation::FindMissing));
        let outcome = self.inner.find_missing(digests).await;
        counters.note_call(digests.len(), begin);
        match &outcome {
            Ok(missing) => add(&counters.absent, missing.len() as u64),
            Err(error) => counters.note_failure(error),
        }
        outcome
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        let (begin, counters) = (Instant::now(), self.counters(Operation::Get));
        let outcome = self.inner.get(digest, range).await;
        counters.note_call(1, begin);
        match outcome {
            Ok(blob) => Ok(self.counted(blob)),
            Err(error) => {
                counters.note_failure(&error);
                Err(error)
            }
        }
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        let (begin, counters) = (Instant::now(), self.counters(Operation::Put));
        let size = blob.digest().size_bytes();
        let outcome = self.inner.put(blob).await;
        counters.note_call(1, begin);
        match &outcome {
            Ok(()) => add(&counters.bytes, size),
            Err(error) => counters.note_failure(error),
        }
        outcome
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let (begin, counters) = (Instant::now(), self.counters(Operation::GetMany));
        let outcomes = self.inner.get_many(digests).await;
        counters.note_call(digests.len(), begin);
        for outcome in &outcomes {
            match outcome {
                Ok(content) => add(&counters.bytes, content.len() as u64),
                Err(error) => counters.note_failure(error),
            }
        }
        outcomes
    }

    async fn get_many_into(&self, digests: &[Digest], buffers: &mut [&mut [u8]]) -> Vec<Result<()>> {
        let (begin, counters) = (Instant::now(), self.counters(Operation::GetMany));
        let outcomes = self.inner.get_many_into(digests, buffers).await;
        counters.note_call(digests.len(), begin);
        for (outcome, digest) in outcomes.iter().zip(digests) {
            match outcome {
                Ok(()) => add(&counters.bytes, digest.size_bytes()),
                Err(error) => counters.note_failure(error),
            }
        }
        outcomes
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let (begin, counters) = (Instant::now(), self.counters(Operation::PutMany));
        let sizes: Vec<u64> = blobs.iter().map(|blob| blob.digest().size_bytes()).collect();
        let outcomes = self.inner.put_many(blobs).await;
        counters.note_call(sizes.len(), begin);
        for (size, outcome) in sizes.into_iter().zip(&outcomes) {
            match outcome {
                Ok(()) => add(&counters.bytes, size),
                Err(error) => counters.note_failure(error),
            }
        }
        outcomes
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

impl<S: BlobStore + ?Sized> fmt::Display for Observed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use rootcellar_digest::DigestFunction;

    use super::*;
    use crate::{BlobStoreExt as _, MemoryStore};

    #[tokio::test]
    async fn what_is_asked_is_counted_with_how_it_ended() {
        let store = Observed::new(Arc::new(MemoryStore::new(1 << 20)));
        let digest = store
            .put_bytes(DigestFunction::Sha256, Bytes::from_static(b"abc"))
            .await
            .unwrap();
        let absent = Digest::of(DigestFunction::Sha256, b"other");
        store.read(digest, 10).await.unwrap();
        store.read(absent, 10).await.unwrap_err();
        store.get_many(&[digest, absent, digest]).await;
        let (mut one, mut two) = ([0; 3], vec![0; usize::try_from(absent.size_bytes()).unwrap()]);
        store.get_many_into(&[digest, absent], &mut [&mut one, &mut two]).await;
        store.find_missing(&[digest, absent]).await.unwrap();
        let seen = store.statistics();
        let of = |operation| {
            let seen = seen.of(operation);
            (seen.calls, seen.blobs, seen.bytes, seen.absent, seen.failures)
        };
        assert_eq!(of(Operation::Put), (1, 1, 3, 0, 0));
        assert_eq!(of(Operation::Get), (2, 2, 3, 1, 0));
        assert_eq!(of(Operation::GetMany), (2, 5, 9, 2, 0));
        assert_eq!(of(Operation::FindMissing), (1, 2, 0, 1, 0));
        assert_eq!(of(Operation::PutMany), (0, 0, 0, 0, 0));
        let text = seen.to_string();
        assert!(text.contains("get 2 calls of 2 blobs, 3 bytes, 1 absent"), "{text}");
    }

    #[test]
    fn times_are_told_to_a_factor_of_two() {
        let mut times = vec![0; BUCKETS];
        (times[3], times[10]) = (90, 10);
        let seen = Observation {
            calls: 100,
            blobs: 100,
            bytes: 0,
            absent: 0,
            failures: 0,
            times,
        };
        assert_eq!(seen.time_within(0.5), Duration::from_micros(8));
        assert_eq!(seen.time_within(0.9), Duration::from_micros(8));
        assert_eq!(seen.time_within(0.99), Duration::from_micros(1024));
    }
}
