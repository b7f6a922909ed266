//! A store for tests, which forgets blobs when told to and remembers what it was asked for.

use std::collections::HashSet;
use std::fmt;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::{
    Blob, BlobStore, BlobStoreExt as _, ByteRange, Error, Kept, Mark, MemoryStore, Result, Verified,
};

/// A [`MemoryStore`] from which single blobs can be taken away.
#[derive(Debug)]
pub(crate) struct ForgetfulStore {
    inner: MemoryStore,
    forgotten: Mutex<HashSet<Digest>>,
    /// The digests of each `find_missing`.
    asked: Mutex<Vec<Vec<Digest>>>,
    /// What it says of moments: nothing, if not told otherwise.
    kept: Mutex<Option<Kept>>,
}

impl ForgetfulStore {
    pub(crate) fn new() -> Self {
        Self {
            inner: MemoryStore::new(256 << 20),
            forgotten: Mutex::default(),
            asked: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// Takes a blob away until it is put again.
    pub(crate) fn forget(&self, digest: Digest) {
        self.forgotten.lock().unwrap().insert(digest);
    }

    /// Has the store say this of every moment from now on, as long as nothing is forgotten.
    pub(crate) fn say_kept(&self, kept: Kept) {
        *self.kept.lock().unwrap() = Some(kept);
    }

    /// Stores bytes under their digest.
    pub(crate) async fn keep(&self, function: DigestFunction, content: impl Into<Bytes>) -> Digest {
        self.put_bytes(function, content.into()).await.unwrap()
    }

    /// Stores an encoded message under its digest.
    pub(crate) async fn keep_message(&self, function: DigestFunction, message: &impl Message) -> Digest {
        self.keep(function, message.encode_to_vec()).await
    }

    /// The digests of each `find_missing` since the last call.
    pub(crate) fn take_asked(&self) -> Vec<Vec<Digest>> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn is_forgotten(&self, digest: Digest) -> bool {
        self.forgotten.lock().unwrap().contains(&digest)
    }
}

#[async_trait]
impl BlobStore for ForgetfulStore {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.asked.lock().unwrap().push(digests.to_vec());
        let mut missing = self.inner.find_missing(digests).await?;
        missing.extend(digests.iter().copied().filter(|digest| self.is_forgotten(*digest)));
        Ok(missing)
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        if self.is_forgotten(digest) {
            return Err(Error::not_found("get", digest));
        }
        self.inner.get(digest, range).await
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        self.forgotten.lock().unwrap().remove(&blob.digest());
        self.inner.put(blob).await
    }

    fn mark(&self) -> Option<Mark> {
        let losses = self.forgotten.lock().unwrap().len() as u64;
        self.kept.lock().unwrap().map(|_| Mark { uses_from: 0, losses })
    }

    fn has_kept(&self, mark: Mark) -> Kept {
        let is_whole = self.forgotten.lock().unwrap().len() as u64 == mark.losses;
        let kept = self.kept.lock().unwrap().filter(|_| is_whole);
        kept.unwrap_or(Kept::Unknown)
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let mut contents = Vec::with_capacity(digests.len());
        for digest in digests {
            contents.push(self.read(*digest, u64::MAX).await);
        }
        contents
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let mut outcomes = Vec::with_capacity(blobs.len());
        for blob in blobs {
            outcomes.push(self.put(blob).await);
        }
        outcomes
    }
}

impl fmt::Display for ForgetfulStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "forgetful({})", self.inner)
    }
}
