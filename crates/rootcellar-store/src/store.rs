//! The contract of a store of blobs.

use std::borrow::Borrow;
use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};

use crate::{Blob, ByteRange, Error, ErrorKind, Result, Verified};
use rootcellar_digest::DigestSet;

/// Keeps blobs under their digests: what the protocol needs, and nothing more. There is no delete and no list.
///
/// Implementations promise the following; `rootcellar_store::testing` has a test for each clause.
///
/// 1. **Whole or absent.** A blob is reported present, and can be read, only once all its bytes are stored. That is so from
///    the moment its `put` returns, for every reader.
/// 2. **Named by all of its digest.** Function, hash and size are the name. A right hash with a wrong size is absent.
/// 3. **The empty blob is always present**, in every function, and need not be put.
/// 4. **Right bytes or an error.** `get` never yields a byte that does not belong to the digest and range asked for. Damage is
///    [`ErrorKind::DataLoss`], and the damaged blob is absent from then on.
/// 5. **Absent is `NotFound`**, said before the first byte.
/// 6. **Ranges clip.** A range that ends behind the blob's end is clipped to it; one that begins there is empty; one that
///    begins behind it is [`ErrorKind::OutOfRange`].
/// 7. **Puts are idempotent** and never replace stored bytes. Any number of puts of one blob may run at once; all succeed.
/// 8. **`find_missing` answers once a digest**, in the order of first mention, however often it was mentioned, and counts as
///    a use of every blob it finds.
/// 9. **A batch is a list of independent operations**: outcomes come in the order of the request, and one item's trouble is
///    not another's.
/// 10. **Dropping a future leaves nothing half-visible.** The operation happened or it did not.
/// 11. **A blob being read stays readable** to the end of that read, though it may be evicted meanwhile.
/// 12. **What is said to be kept is there.** If `has_kept(mark)` says so, then every blob that `find_missing` found after `mark` was
///     taken is present. So one question answers for any number of blobs; a store that keeps no order of uses never says so.
/// 13. **What others found is there.** If `has_kept_since(digests, when)` says so, and they were all present at that time, found or put by
///     whoever shares what the store stands on, then they are present. A store says so that has a promise of its service to lean on, and
///     only of blobs of which it does not know better.
#[async_trait]
pub trait BlobStore: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// The digests, of those given, that are not present.
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>>;

    /// Opens a range of a blob for reading.
    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob>;

    /// Stores a blob. It is as durable as the store says it makes blobs when this returns.
    async fn put(&self, blob: Verified) -> Result<()>;

    /// Reads whole blobs that fit into memory, one outcome for each digest. The caller bounds the sum of the sizes.
    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>>;

    /// As [`get_many`](Self::get_many), into memory that the caller has laid out: a buffer for each digest, with as many bytes as that
    /// says. `Ok` says that all of the buffer was written: what is not may hold somebody else's bytes, and would be sent. What the buffer
    /// of a blob holds that could not be read means nothing, before and after.
    async fn get_many_into(&self, digests: &[Digest], buffers: &mut [&mut [u8]]) -> Vec<Result<()>> {
        let contents = self.get_many(digests).await;
        let copy =
            |(content, buffer): (Result<Bytes>, &mut &mut [u8])| content.map(|bytes| buffer.copy_from_slice(&bytes));
        contents.into_iter().zip(buffers).map(copy).collect()
    }

    /// A moment in the order of uses, if this store keeps one.
    fn mark(&self) -> Option<Mark> {
        None
    }

    /// Whether every blob that was used since `mark`, and was present then, is present still.
    fn has_kept(&self, _mark: Mark) -> Kept {
        Kept::Unknown
    }

    /// Whether those of these blobs that were present at `when` are present still, whoever found them.
    fn has_kept_since(&self, _digests: &[Digest], _when: SystemTime) -> bool {
        false
    }

    /// Stores several blobs, one outcome for each. On disk a batch is one commit, to a remote store one call.
    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>>;
}

/// A moment in a store's order of uses. It means something to the store that gave it, until that is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Uses from now on have this number or a later one.
    pub uses_from: u64,
    /// How many blobs the store had lost by then otherwise than by eviction.
    pub losses: u64,
}

/// What a store says of the blobs that were used since a [`Mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// All are present.
    All,
    /// All are present, and so long after their use that who goes on relying on them should use them again.
    AllUsedLongAgo,
    /// Nothing.
    Unknown,
}

/// What users of a store want on top of the contract.
#[async_trait]
pub trait BlobStoreExt: BlobStore {
    /// Whether a blob is present. Counts as a use of it.
    async fn contains(&self, digest: Digest) -> Result<bool> {
        Ok(self.find_missing(&[digest]).await?.is_empty())
    }

    /// Reads a whole blob of at most `size_max` bytes into memory.
    async fn read(&self, digest: Digest, size_max: u64) -> Result<Bytes> {
        if digest.size_bytes() > size_max {
            let reason = format!("the blob has more than the {size_max} bytes that are read at once here");
            return Err(Error::new(ErrorKind::Exhausted, "read", reason).on(digest));
        }
        self.get(digest, ByteRange::ALL).await?.into_bytes().await
    }

    /// Hashes and stores bytes, and tells their name.
    async fn put_bytes(&self, function: DigestFunction, content: Bytes) -> Result<Digest> {
        let blob = Verified::of(function, content);
        let digest = blob.digest();
        self.put(blob).await?;
        Ok(digest)
    }
}

impl<S: BlobStore + ?Sized> BlobStoreExt for S {}

/// The digests of which `is_present` is false, each once, in the order of first mention. The empty blob is always present.
pub(crate) fn absent_once<D: Borrow<Digest>>(digests: &[D], mut is_present: impl FnMut(Digest) -> bool) -> Vec<Digest> {
    let mut absent = Vec::new();
    let mut named = DigestSet::default();
    for digest in digests.iter().map(|digest| *digest.borrow()) {
        if !is_present(digest) && !digest.is_empty_blob() && named.insert(digest) {
            absent.push(digest);
        }
    }
    absent
}
