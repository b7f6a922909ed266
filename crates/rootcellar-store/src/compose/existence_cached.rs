//! Answers about what is present, remembered for a while.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use rootcellar_digest::Digest;

use super::presence::{Presence, PresenceOptions};
use crate::{Blob, BlobStore, ByteRange, Clock, ErrorKind, Result, Verified};

/// A [`BlobStore`] that does not ask `inner` again about blobs which it found there a while ago.
///
/// Only presence is remembered, never absence. While an answer is remembered, `inner` is not told that the blob is used: what is
/// remembered for longer than `inner` keeps what nobody uses may be gone. So the time should be a small part of that
/// ([`PresenceOptions::ttl`]). What turns out to be missing or damaged is forgotten at once.
#[derive(Debug, Clone)]
pub struct ExistenceCached<S: ?Sized> {
    known: Arc<Presence<()>>,
    clock: Arc<dyn Clock>,
    inner: Arc<S>,
}

impl<S: BlobStore + ?Sized> ExistenceCached<S> {
    /// Remembers what is present in `inner`.
    pub fn new(inner: Arc<S>, options: PresenceOptions, clock: Arc<dyn Clock>) -> Self {
        Self {
            known: Arc::new(Presence::new(options)),
            clock,
            inner,
        }
    }

    /// How many blobs are remembered now.
    pub fn remembered(&self) -> usize {
        self.known.len()
    }

    fn is_known(&self, digest: &Digest) -> bool {
        digest.is_empty_blob() || self.known.get(digest, self.clock.now()).is_some()
    }

    fn note(&self, digest: Digest) {
        self.known.note(digest, self.clock.now(), ());
    }

    fn learn<T>(&self, digest: Digest, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Ok(_) => self.note(digest),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DataLoss) => {
                self.known.forget(&digest);
            }
            Err(_) => {}
        }
        outcome
    }
}

#[async_trait]
impl<S: BlobStore + ?Sized> BlobStore for ExistenceCached<S> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let asked: Vec<Digest> = digests
            .iter()
            .copied()
            .filter(|digest| !self.is_known(digest))
            .collect();
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let missing = self.inner.find_missing(&asked).await?;
        let are_missing: HashSet<&Digest> = missing.iter().collect();
        for digest in asked.iter().filter(|digest| !are_missing.contains(digest)) {
            self.note(*digest);
        }
        Ok(missing)
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        let outcome = self.inner.get(digest, range).await;
        let blob = self.learn(digest, outcome)?;
        if blob.is_in_memory() {
            return Ok(blob);
        }
        let (range, known) = (blob.range(), self.known.clone());
        // Damage shows in the middle of a read.
        let pieces = blob.into_stream().inspect_err(move |error| {
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DataLoss) {
                known.forget(&digest);
            }
        });
        Ok(Blob::from_stream(digest, range, pieces.boxed()))
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        let digest = blob.digest();
        let outcome = self.inner.put(blob).await;
        self.learn(digest, outcome)
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let outcomes = self.inner.get_many(digests).await;
        let learned = digests.iter().zip(outcomes);
        learned.map(|(digest, outcome)| self.learn(*digest, outcome)).collect()
    }

    async fn get_many_into(&self, digests: &[Digest], buffers: &mut [&mut [u8]]) -> Vec<Result<()>> {
        let outcomes = self.inner.get_many_into(digests, buffers).await;
        let learned = digests.iter().zip(outcomes);
        learned.map(|(digest, outcome)| self.learn(*digest, outcome)).collect()
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let digests: Vec<Digest> = blobs.iter().map(Verified::digest).collect();
        let outcomes = self.inner.put_many(blobs).await;
        let learned = digests.into_iter().zip(outcomes);
        learned.map(|(digest, outcome)| self.learn(digest, outcome)).collect()
    }

    fn has_kept_since(&self, digests: &[Digest], when: SystemTime) -> bool {
        self.inner.has_kept_since(digests, when)
    }
}

impl<S: BlobStore + ?Sized> fmt::Display for ExistenceCached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "existence cached({})", self.inner)
    }
}
