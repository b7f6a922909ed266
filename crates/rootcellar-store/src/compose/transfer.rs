//! Blobs on their way from one store to another.

use bytes::Bytes;
use futures_util::StreamExt as _;
use rootcellar_digest::Digest;

use crate::{Blob, BlobStore, ByteRange, Error, ErrorKind, Result, Spool, Verified};

/// Larger blobs go alone, and through a spool.
const BATCHED_BYTES_MAX: u64 = 256 * 1024;
/// Bytes of a batch. A batch is in memory.
const BATCH_BYTES_MAX: u64 = 3 << 20;
const BATCH_BLOBS_MAX: usize = 1000;

/// Reads a whole blob, and makes it one that can be put.
pub(super) async fn fetch<F: BlobStore + ?Sized>(from: &F, digest: Digest, spool: &Spool) -> Result<Verified> {
    ingest(from.get(digest, ByteRange::ALL).await?, spool).await
}

pub(super) async fn ingest(blob: Blob, spool: &Spool) -> Result<Verified> {
    let digest = blob.digest();
    let mut ingest = spool.ingest(digest)?;
    let mut pieces = blob.into_stream();
    while let Some(piece) = pieces.next().await {
        ingest.write(piece?).await.map_err(damaged)?;
    }
    ingest.finish().map_err(damaged)
}

/// Content that is not what its digest says was not sent by whoever asks now: a store had it.
pub(super) fn damaged(error: Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidArgument => {
            let damage = Error::new(ErrorKind::DataLoss, "get", "what was read is not the blob");
            match error.digest() {
                Some(digest) => damage.on(digest).caused_by(error),
                None => damage.caused_by(error),
            }
        }
        _ => error,
    }
}

/// Splits digests into batches of small blobs, and larger ones alone.
pub(super) fn batches(digests: &[Digest]) -> Vec<Vec<Digest>> {
    let (mut full, mut open, mut bytes) = (Vec::new(), Vec::new(), 0);
    for digest in digests {
        let size = digest.size_bytes();
        if size > BATCHED_BYTES_MAX {
            full.push(vec![*digest]);
            continue;
        }
        if open.len() == BATCH_BLOBS_MAX || bytes + size > BATCH_BYTES_MAX {
            full.push(std::mem::take(&mut open));
            bytes = 0;
        }
        bytes += size;
        open.push(*digest);
    }
    full.extend((!open.is_empty()).then_some(open));
    full
}

/// Copies a batch from [`batches`]; an outcome for each blob.
pub(super) async fn copy<F, T>(from: &F, to: &T, batch: &[Digest], spool: &Spool) -> Vec<Result<()>>
where
    F: BlobStore + ?Sized,
    T: BlobStore + ?Sized,
{
    if let [large] = batch
        && large.size_bytes() > BATCHED_BYTES_MAX
    {
        let copied = match fetch(from, *large, spool).await {
            Ok(blob) => to.put(blob).await,
            Err(error) => Err(error),
        };
        return vec![copied];
    }
    let read = from.get_many(batch).await;
    let (mut outcomes, mut blobs, mut places) = (Vec::with_capacity(batch.len()), Vec::new(), Vec::new());
    for (place, (digest, content)) in batch.iter().zip(read).enumerate() {
        outcomes.push(match verify(*digest, content) {
            Ok(blob) => {
                blobs.push(blob);
                places.push(place);
                Ok(())
            }
            Err(error) => Err(error),
        });
    }
    for (place, outcome) in places.into_iter().zip(to.put_many(blobs).await) {
        outcomes[place] = outcome;
    }
    outcomes
}

pub(super) fn verify(digest: Digest, content: Result<Bytes>) -> Result<Verified> {
    Verified::check(digest, content?).map_err(damaged)
}
