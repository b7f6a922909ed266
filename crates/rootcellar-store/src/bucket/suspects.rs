//! Objects of which something else was read than the blob that they should be.
//!
//! That may have happened on the way, and then the object must not be removed; or the object is damaged, and then nobody should be told that
//! the blob is there. So an object that is suspected is read again before anything is said of its blob, until it reads right or reads
//! wrong twice in the same way.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use rootcellar_digest::{Digest, DigestFunction, Hasher};

use super::frames::Inflate;
use super::{Inner, PresenceOptions};
use crate::bucket::single_flight::SingleFlight;
use crate::compose::Presence;
use crate::{Error, ErrorKind, Result};

/// Suspects that are remembered. One that is forgotten is found again by the next read of it.
const SUSPECTS_MAX: NonZero<usize> = NonZero::new(10_000).expect("not zero");
const READS_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Suspects {
    known: Presence<()>,
    /// Work that ends with whether the blob is gone.
    trials: SingleFlight<bool>,
}

impl Default for Suspects {
    fn default() -> Self {
        let forever = PresenceOptions::default()
            .with_ttl(Duration::MAX)
            .with_entries_max(SUSPECTS_MAX);
        Self {
            known: Presence::new(forever),
            trials: SingleFlight::default(),
        }
    }
}

/// What an object turned out to hold.
enum Found {
    Nothing,
    TheBlob,
    /// Something else, which has this digest.
    Else(Digest),
}

impl Inner {
    /// Has an object looked at before anything more is said of it.
    pub(super) fn suspect(&self, digest: Digest) {
        self.note_missed(digest);
        self.suspects.known.note(digest, self.clock.now(), ());
    }

    /// Whether nothing may be said of a blob before its object was looked at.
    pub(super) fn is_suspected(&self, digest: &Digest) -> bool {
        self.suspects.known.get(digest, self.clock.now()).is_some()
    }

    /// Whether a blob's object was suspected, and was removed for it just now.
    pub(super) async fn is_condemned(self: &Arc<Self>, digest: Digest) -> Result<bool> {
        if !self.is_suspected(&digest) {
            return Ok(false);
        }
        let bucket = self.clone();
        let tried = self
            .suspects
            .trials
            .run(digest, || async move { bucket.try_object(digest).await });
        tried.await.map_err(|error| error.on(digest))
    }

    async fn try_object(&self, digest: Digest) -> Result<bool> {
        let turn = self.turns.of(digest);
        let _turn = turn.lock().await;
        let mut before = None;
        for _ in 0..READS_MAX {
            match self.look_at(digest).await? {
                Found::Nothing => {
                    self.note_missed(digest);
                    self.suspects.known.forget(&digest);
                    return Ok(true);
                }
                Found::TheBlob => {
                    tracing::warn!(%digest, bucket = %self.requests, "an object was read wrong once, and is right");
                    self.suspects.known.forget(&digest);
                    return Ok(false);
                }
                Found::Else(other) if before == Some(other) => {
                    tracing::error!(%digest, bucket = %self.requests, "an object is damaged, and is removed");
                    self.requests.delete(&self.names.blob(&digest)).await?;
                    // Whoever opened it before it was suspected may have noted it since.
                    self.note_missed(digest);
                    self.suspects.known.forget(&digest);
                    return Ok(true);
                }
                Found::Else(other) => before = Some(other),
            }
        }
        let reason = format!("{}: an object reads differently each time", self.requests);
        Err(Error::new(ErrorKind::Unavailable, "get", reason))
    }

    async fn look_at(&self, digest: Digest) -> Result<Found> {
        let opened = match self.requests.get(&self.names.blob(&digest), None).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            other => other?,
        };
        let (object_bytes, size) = (opened.meta.size, digest.size_bytes());
        let mut object = Hasher::new(DigestFunction::Sha256, object_bytes);
        let mut blob = BlobHasher::new(digest, object_bytes != size)?;
        let mut pieces = self.requests.bytes(opened);
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            let hash = move || {
                object.update(&piece);
                blob.update(piece);
                (object, blob)
            };
            let hashed = tokio::task::spawn_blocking(hash).await;
            (object, blob) = hashed.expect("hashing does not panic, and the runtime outlives its tasks");
        }
        if blob.finds_the_blob() {
            return Ok(Found::TheBlob);
        }
        match object.finish() {
            Ok(other) if other.size_bytes() == object_bytes => Ok(Found::Else(other)),
            _ => {
                let reason = format!("{}: the object did not come as a whole", self.requests);
                Err(Error::new(ErrorKind::Unavailable, "get", reason))
            }
        }
    }
}

/// Hashes the blob that an object holds, compressed or not.
struct BlobHasher {
    digest: Digest,
    hasher: Hasher,
    inflate: Option<Inflate>,
    is_wrong: bool,
}

impl BlobHasher {
    fn new(digest: Digest, is_compressed: bool) -> Result<Self> {
        let inflate = is_compressed.then(Inflate::new).transpose();
        Ok(Self {
            hasher: Hasher::new(digest.function(), digest.size_bytes()),
            inflate: inflate.map_err(|error| Error::io("get", "making a decompressor", error))?,
            is_wrong: false,
            digest,
        })
    }

    fn update(&mut self, piece: bytes::Bytes) {
        if self.is_wrong {
            return;
        }
        let Some(inflate) = &mut self.inflate else {
            self.hasher.update(&piece);
            return;
        };
        inflate.feed(piece);
        loop {
            match inflate.piece() {
                Ok(content) if content.is_empty() => return,
                Ok(content) => self.hasher.update(&content),
                Err(_) => self.is_wrong = true,
            }
            if self.is_wrong || self.hasher.hashed_bytes() > self.digest.size_bytes() {
                self.is_wrong = true;
                return;
            }
        }
    }

    fn finds_the_blob(self) -> bool {
        !self.is_wrong && self.hasher.finish() == Ok(self.digest)
    }
}
