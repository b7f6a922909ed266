//! The reference store: blobs in memory, bounded, and gone with the process.
//!
//! It is what the contract means in the fewest lines, and what tests use where the disk is not the point.

mod records;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use lru::LruCache;
use rootcellar_digest::Digest;

pub use self::records::MemoryRecords;
use crate::store::absent_once;
use crate::{Blob, BlobStore, ByteRange, Content, Error, ErrorKind, Inventory, Result, Verified};

/// A bounded [`BlobStore`] in memory. The blobs used longest ago make room for new ones.
pub struct MemoryStore {
    bytes_max: u64,
    /// Guards blobs and their sum together. Held for look-ups only, never while bytes are copied.
    contents: Mutex<Contents>,
}

struct Contents {
    blobs: LruCache<Digest, Bytes>,
    bytes: u64,
}

/// What an entry costs besides its content: the digest twice, pointers, the allocations' own bookkeeping.
const ENTRY_BYTES: u64 = 256;

impl MemoryStore {
    /// Makes an empty store that keeps up to `bytes_max` bytes, 256 bytes of bookkeeping for each blob included.
    pub fn new(bytes_max: u64) -> Self {
        let contents = Contents {
            blobs: LruCache::unbounded(),
            bytes: 0,
        };
        Self {
            bytes_max,
            contents: Mutex::new(contents),
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // No code that holds the lock can stop halfway through a change.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, operation: &'static str, digest: Digest) -> Result<Bytes> {
        if digest.is_empty_blob() {
            return Ok(Bytes::new());
        }
        let found = self.contents().blobs.get(&digest).cloned();
        found.ok_or_else(|| Error::not_found(operation, digest))
    }
}

impl Contents {
    fn insert(&mut self, digest: Digest, content: Bytes, bytes_max: u64) {
        if self.blobs.get(&digest).is_some() {
            return;
        }
        let charge = charge(digest);
        while self.bytes + charge > bytes_max {
            let (evicted, _) = self.blobs.pop_lru().expect("what is counted is there to be evicted");
            self.bytes -= self::charge(evicted);
        }
        self.bytes += charge;
        self.blobs.put(digest, content);
    }
}

fn charge(digest: Digest) -> u64 {
    digest.size_bytes().saturating_add(ENTRY_BYTES)
}

/// The bytes in an allocation of their own: a slice of a received message would keep the whole message.
async fn own_bytes(blob: &Verified) -> Result<Bytes> {
    match blob.content() {
        Content::Bytes(bytes) => Ok(Bytes::copy_from_slice(bytes)),
        Content::Spooled(_) | Content::Part(..) => blob.open(ByteRange::ALL)?.into_bytes().await,
    }
}

#[async_trait]
impl BlobStore for MemoryStore {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let mut contents = self.contents();
        Ok(absent_once(digests, |digest| contents.blobs.get(&digest).is_some()))
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        let (content, range) = (self.find("get", digest)?, range.resolve(digest)?);
        let index = |at: u64| usize::try_from(at).expect("a range within bytes in memory");
        let part = content.slice(index(range.start)..index(range.end));
        Ok(Blob::from_bytes(digest, range, part))
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        let digest = blob.digest();
        if digest.is_empty_blob() || self.contents().blobs.get(&digest).is_some() {
            return Ok(());
        }
        if charge(digest) > self.bytes_max {
            let reason = format!("the blob exceeds the store's whole size of {} bytes", self.bytes_max);
            return Err(Error::new(ErrorKind::Exhausted, "put", reason).on(digest));
        }
        let content = own_bytes(&blob).await?;
        self.contents().insert(digest, content, self.bytes_max);
        Ok(())
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        digests.iter().map(|digest| self.find("get", *digest)).collect()
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let mut outcomes = Vec::with_capacity(blobs.len());
        for blob in blobs {
            outcomes.push(self.put(blob).await);
        }
        outcomes
    }
}

impl Inventory for MemoryStore {
    fn list(&self) -> BoxStream<'static, Result<Vec<Digest>>> {
        let digests: Vec<Digest> = self.contents().blobs.iter().map(|(digest, _)| *digest).collect();
        stream::iter([Ok(digests)]).boxed()
    }
}

impl fmt::Display for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory({} bytes)", self.bytes_max)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contents = self.contents();
        f.debug_struct("MemoryStore")
            .field("blobs", &contents.blobs.len())
            .field("bytes", &contents.bytes)
            .field("bytes_max", &self.bytes_max)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use rootcellar_digest::DigestFunction;

    use super::*;
    use crate::BlobStoreExt as _;

    fn blob(fill: u8) -> Verified {
        Verified::of(DigestFunction::Sha256, Bytes::from(vec![fill; 1000]))
    }

    #[tokio::test]
    async fn the_blob_used_longest_ago_makes_room() {
        let store = MemoryStore::new(2 * (1000 + ENTRY_BYTES));
        store.put(blob(1)).await.unwrap();
        store.put(blob(2)).await.unwrap();
        assert!(store.contains(blob(1).digest()).await.unwrap());
        store.put(blob(3)).await.unwrap();
        let digests = [1, 2, 3].map(|fill| blob(fill).digest());
        assert_eq!(store.find_missing(&digests).await.unwrap(), [digests[1]]);
    }

    #[tokio::test]
    async fn a_blob_beyond_the_whole_bound_is_refused_and_evicts_nothing() {
        let store = MemoryStore::new(1000 + ENTRY_BYTES);
        store.put(blob(1)).await.unwrap();
        let large = Verified::of(DigestFunction::Sha256, Bytes::from(vec![0; 1001]));
        assert_eq!(store.put(large).await.unwrap_err().kind(), ErrorKind::Exhausted);
        assert!(store.contains(blob(1).digest()).await.unwrap());
    }
}
