//! A store that fails now and then, as networks and other people's servers do.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use rootcellar_digest::Digest;

use super::Seeded;
use crate::{Blob, BlobStore, ByteRange, Error, ErrorKind, Result, Verified};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// Nothing is done, and an error says so.
    Refused,
    /// It takes a while.
    Delayed,
    /// It is done, and an error says that it is not.
    AcknowledgementLost,
    /// A read ends early, without an error.
    Short,
    /// A byte of a whole blob is another one. Parts stay right: nobody could find it out.
    Wrong,
}

impl StoreFault {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Refused,
        Self::Delayed,
        Self::AcknowledgementLost,
        Self::Short,
        Self::Wrong,
    ];
}

/// A [`BlobStore`] that breaks its contract: of the operations that `inner` does well, some go wrong, chosen by a seed.
#[derive(Debug)]
pub struct Faulty<S: ?Sized> {
    seeded: Mutex<Seeded>,
    /// One operation in so many goes wrong.
    one_in: AtomicU64,
    is_down: AtomicBool,
    injected: AtomicU64,
    inner: Arc<S>,
}

impl<S: BlobStore + ?Sized> Faulty<S> {
    /// Has one operation in `one_in` go wrong; 0 is none.
    pub fn new(inner: Arc<S>, seed: u64, one_in: u64) -> Self {
        Self {
            seeded: Mutex::new(Seeded::new(seed)),
            one_in: AtomicU64::new(one_in),
            is_down: AtomicBool::new(false),
            injected: AtomicU64::new(0),
            inner,
        }
    }

    /// While it is down every operation is refused.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    /// Has one operation in `one_in` go wrong from now on; 0 is none.
    pub fn set_one_in(&self, one_in: u64) {
        self.one_in.store(one_in, Ordering::Relaxed);
    }

    /// How much went wrong so far.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    fn fault(&self) -> Option<StoreFault> {
        let one_in = self.one_in.load(Ordering::Relaxed);
        let mut seeded = self.seeded.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = if self.is_down.load(Ordering::Relaxed) {
            Some(StoreFault::Refused)
        } else if one_in > 0 && seeded.below(one_in) == 0 {
            let which = usize::try_from(seeded.below(StoreFault::ALL.len() as u64)).expect("a small number");
            Some(StoreFault::ALL[which])
        } else {
            None
        };
        self.injected.fetch_add(u64::from(fault.is_some()), Ordering::Relaxed);
        fault
    }

    /// The fault of an operation, when its time has come.
    async fn before(&self, operation: &'static str) -> Result<Option<StoreFault>> {
        let fault = self.fault();
        match fault {
            Some(StoreFault::Refused) => Err(unavailable(operation)),
            Some(StoreFault::Delayed) => {
                tokio::time::sleep(Duration::from_millis(3)).await;
                Ok(None)
            }
            other => Ok(other),
        }
    }
}

fn unavailable(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "a fault that was asked for")
}

fn after(operation: &'static str, fault: Option<StoreFault>) -> Result<()> {
    match fault {
        Some(StoreFault::AcknowledgementLost) => Err(unavailable(operation)),
        _ => Ok(()),
    }
}

/// Spoils what is read.
fn spoil(content: &Bytes, fault: Option<StoreFault>) -> Bytes {
    let mut spoiled = content.to_vec();
    match fault {
        Some(StoreFault::Short) => spoiled.truncate(content.len() / 2),
        Some(StoreFault::Wrong) => {
            if let Some(byte) = spoiled.last_mut() {
                *byte ^= 1;
            }
        }
        _ => {}
    }
    spoiled.into()
}

#[async_trait]
impl<S: BlobStore + ?Sized> BlobStore for Faulty<S> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let fault = self.before("find missing").await?;
        let missing = self.inner.find_missing(digests).await?;
        after("find missing", fault).map(|()| missing)
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        let fault = self.before("get").await?;
        let blob = self.inner.get(digest, range).await?;
        after("get", fault)?;
        let range = blob.range();
        let is_whole = range == (0..digest.size_bytes());
        if range.is_empty() || !(is_whole || fault == Some(StoreFault::Short)) || fault.is_none() {
            return Ok(blob);
        }
        let spoiled = spoil(&blob.into_bytes().await?, fault);
        let half = spoiled.len() / 2;
        let pieces = [spoiled.slice(..half), spoiled.slice(half..)].map(Ok);
        Ok(Blob::from_stream(digest, range, stream::iter(pieces).boxed()))
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        let fault = self.before("put").await?;
        self.inner.put(blob).await?;
        after("put", fault)
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let outcomes = self.inner.get_many(digests).await;
        let mut faulty = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            faulty.push(match (self.before("get").await, outcome) {
                (Err(error), _) | (_, Err(error)) => Err(error),
                (Ok(fault), Ok(content)) => after("get", fault).map(|()| spoil(&content, fault)),
            });
        }
        faulty
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let mut outcomes = Vec::with_capacity(blobs.len());
        for blob in blobs {
            outcomes.push(self.put(blob).await);
        }
        outcomes
    }
}

impl<S: BlobStore + ?Sized> fmt::Display for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty({})", self.inner)
    }
}
