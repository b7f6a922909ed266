//! Reading objects.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Buf as _, Bytes};
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::{GetRange, GetResult};
use rootcellar_digest::Digest;

use super::frames::{Inflate, SeekTable};
use super::{Inner, Known};
use crate::compose::check_blob;
use crate::{Blob, ByteRange, Error, ErrorKind, Result};

/// Blobs up to this size are read into memory, once for all who ask at the same time.
const SHARED_BYTES_MAX: u64 = 1 << 20;

impl Inner {
    pub(super) async fn get(self: &Arc<Self>, digest: Digest, range: ByteRange) -> Result<Blob> {
        let range = range.resolve(digest)?;
        if digest.is_empty_blob() {
            return Ok(Blob::from_bytes(digest, range, Bytes::new()));
        }
        if self.is_condemned(digest).await? {
            return Err(Error::not_found("get", digest));
        }
        if range.is_empty() {
            // Nothing is to be read, but the blob has to be there.
            return match self.is_present(digest).await? {
                true => Ok(Blob::from_bytes(digest, range, Bytes::new())),
                false => Err(Error::not_found("get", digest)),
            };
        }
        let is_whole = range == (0..digest.size_bytes());
        if !is_whole {
            return self.get_part(digest, range).await;
        }
        if digest.size_bytes() > SHARED_BYTES_MAX {
            return self.get_whole(digest).await;
        }
        let bucket = self.clone();
        let read = || async move { bucket.get_whole(digest).await?.into_bytes().await };
        let content = self.reads.run(digest, read).await?;
        Ok(Blob::from_bytes(digest, range, content))
    }

    async fn get_whole(self: &Arc<Self>, digest: Digest) -> Result<Blob> {
        let opened = self.open(digest, None).await?;
        let pieces = match opened.meta.size == digest.size_bytes() {
            true => self.requests.bytes(opened),
            false => inflate(digest, self.requests.bytes(opened))?,
        };
        let range = 0..digest.size_bytes();
        Ok(self.checked(Blob::from_stream(digest, range, pieces)))
    }

    /// Has what is read checked, and the object looked at if it is wrong.
    fn checked(self: &Arc<Self>, blob: Blob) -> Blob {
        let (digest, range, bucket) = (blob.digest(), blob.range(), self.clone());
        let requests = self.requests.clone();
        let checked = check_blob(blob, move || {
            let reason = format!("{requests}: the object is not the blob that it should be");
            Error::new(ErrorKind::DataLoss, "get", reason).on(digest)
        });
        let pieces = checked.into_stream().inspect_err(move |error| {
            if error.kind() == ErrorKind::DataLoss {
                bucket.suspect(digest);
            }
        });
        Blob::from_stream(digest, range, pieces.boxed())
    }

    async fn get_part(self: &Arc<Self>, digest: Digest, range: Range<u64>) -> Result<Blob> {
        let size = digest.size_bytes();
        if let Some(known) = self.known(&digest).filter(|known| known.size != size) {
            self.touch(digest, known);
            return self.get_compressed_part(digest, range, known.size).await;
        }
        let opened = match self.open(digest, Some(range.clone())).await {
            // A compressed object may end before the part begins, and the service refuses then.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                let known = self
                    .requests
                    .head(&self.names.blob(&digest))
                    .await
                    .map_err(|error| error.on(digest))?;
                if known.size == size {
                    return Err(error);
                }
                self.note(digest, known);
                return self.get_compressed_part(digest, range, known.size).await;
            }
            other => other?,
        };
        if opened.meta.size != size {
            let object_bytes = opened.meta.size;
            drop(opened);
            return self.get_compressed_part(digest, range, object_bytes).await;
        }
        let pieces = self.requests.bytes(opened);
        Ok(self.checked(Blob::from_stream(digest, range, pieces)))
    }

    async fn get_compressed_part(
        self: &Arc<Self>,
        digest: Digest,
        range: Range<u64>,
        object_bytes: u64,
    ) -> Result<Blob> {
        let damaged = || {
            self.suspect(digest);
            let reason = format!(
                "{}: the object is neither the blob nor the blob compressed",
                self.requests
            );
            Error::new(ErrorKind::DataLoss, "get", reason).on(digest)
        };
        let blob_bytes = digest.size_bytes();
        let table_at = object_bytes
            .checked_sub(SeekTable::encoded_bytes(blob_bytes))
            .ok_or_else(damaged)?;
        let opened = self.open(digest, Some(table_at..object_bytes)).await?;
        self.check_size(digest, &opened, object_bytes)?;
        let encoded = self.requests.collect(opened).await.map_err(|error| error.on(digest))?;
        let table = SeekTable::decode(&encoded, blob_bytes, object_bytes).ok_or_else(damaged)?;
        let (frames, before) = table.locate(&range);
        let opened = self.open(digest, Some(frames)).await?;
        self.check_size(digest, &opened, object_bytes)?;
        let pieces = inflate(digest, self.requests.bytes(opened))?;
        let part = clip(pieces, before, range.end - range.start);
        Ok(self.checked(Blob::from_stream(digest, range, part)))
    }

    /// Makes sure that an object is the one that was looked at before, and not one that was put in its place, compressed in another way.
    fn check_size(&self, digest: Digest, opened: &GetResult, object_bytes: u64) -> Result<()> {
        if opened.meta.size == object_bytes {
            return Ok(());
        }
        let reason = format!("{}: the object was put again while it was read", self.requests);
        Err(Error::new(ErrorKind::Unavailable, "get", reason).on(digest))
    }

    /// Opens a blob's object, and learns from it.
    async fn open(self: &Arc<Self>, digest: Digest, range: Option<Range<u64>>) -> Result<GetResult> {
        let range = range.map(GetRange::Bounded);
        match self.requests.get(&self.names.blob(&digest), range).await {
            Ok(opened) => {
                let known = Known {
                    size: opened.meta.size,
                    modified: SystemTime::from(opened.meta.last_modified),
                };
                self.note(digest, known);
                self.touch(digest, known);
                Ok(opened)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.note_missed(digest);
                Err(Error::not_found("get", digest).caused_by(error))
            }
            Err(error) => Err(error.on(digest)),
        }
    }
}

/// Decompresses what is read, off the runtime.
fn inflate(digest: Digest, pieces: BoxStream<'static, Result<Bytes>>) -> Result<BoxStream<'static, Result<Bytes>>> {
    let damaged = move |error: io::Error| {
        Error::new(ErrorKind::DataLoss, "get", "decompressing the object")
            .on(digest)
            .caused_by(error)
    };
    let inflate = Inflate::new().map_err(|error| Error::io("get", "making a decompressor", error))?;
    let inflated = stream::try_unfold((inflate, pieces), move |(mut inflate, mut pieces)| async move {
        loop {
            if inflate.is_hungry() {
                match pieces.next().await {
                    Some(piece) => inflate.feed(piece?),
                    None => return Ok(None),
                }
            }
            let work = move || {
                let piece = inflate.piece();
                (inflate, piece)
            };
            let (back, piece) = tokio::task::spawn_blocking(work)
                .await
                .expect("decompressing does not panic, and the runtime outlives its tasks");
            inflate = back;
            let piece = piece.map_err(damaged)?;
            if !piece.is_empty() {
                return Ok(Some((piece, (inflate, pieces))));
            }
        }
    });
    Ok(inflated.boxed())
}

/// Skips `before` bytes and passes on so many.
fn clip(pieces: BoxStream<'static, Result<Bytes>>, before: u64, len: u64) -> BoxStream<'static, Result<Bytes>> {
    let clipped = pieces.scan((before, len), |(before, left), piece| {
        let clipped = match piece {
            Ok(_) if *left == 0 => None,
            Ok(mut piece) => {
                let skipped = usize::try_from(*before).map_or(piece.len(), |before| before.min(piece.len()));
                piece.advance(skipped);
                *before -= skipped as u64;
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= piece.len() as u64;
                Some(Ok(piece))
            }
            Err(error) => Some(Err(error)),
        };
        async { clipped }
    });
    clipped.boxed()
}
