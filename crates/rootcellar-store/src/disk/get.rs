//! Reading blobs, each in one hop to the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::Digest;

use super::shared::Shared;
use crate::blob::is_damage;
use crate::{Blob, ByteRange, Error, ErrorKind, Result};

/// Ranges of up to this size are read on the way, which spares the consumer a second change of threads.
const READ_AT_ONCE_BYTES: u64 = 64 * 1024;

impl Shared {
    pub(super) async fn get(self: &Arc<Self>, digest: Digest, range: ByteRange) -> Result<Blob> {
        if digest.is_empty_blob() {
            return Ok(Blob::from_bytes(digest, range.resolve(digest)?, Bytes::new()));
        }
        if !self.index().touch(digest, self.clock.now()) {
            return Err(Error::not_found("get", digest));
        }
        let range = range.resolve(digest)?;
        self.ensure_checked(&[digest]).await.remove(0)?;
        let store = Arc::downgrade(self);
        let recheck = move || {
            if let Some(shared) = store.upgrade() {
                shared.recheck(digest);
            }
        };
        let open = move |shared: &Self| {
            let file = shared.open_blob(digest)?;
            let len = range.end - range.start;
            if len > READ_AT_ONCE_BYTES {
                return Ok(Blob::from_file(digest, range, Arc::new(file), 0).on_damage(recheck));
            }
            let bytes = shared.read_blob(digest, &file, range.start, len)?;
            Ok(Blob::from_bytes(digest, range, bytes))
        };
        self.hop(open).await
    }

    pub(super) async fn get_many(self: &Arc<Self>, digests: &[Digest]) -> Vec<Result<Bytes>> {
        self.touch_all(digests);
        let checked = self.ensure_checked(digests).await;
        let digests = digests.to_vec();
        let read_all = move |shared: &Self| {
            let read = |(digest, checked): (Digest, Result<()>)| checked.and_then(|()| shared.read_whole(digest));
            digests.into_iter().zip(checked).map(read).collect()
        };
        self.hop(read_all).await
    }

    pub(super) fn touch_all(&self, digests: &[Digest]) {
        let now = self.clock.now();
        let mut index = self.index();
        for digest in digests {
            index.touch(*digest, now);
        }
    }

    fn read_whole(&self, digest: Digest) -> Result<Bytes> {
        if digest.is_empty_blob() {
            return Ok(Bytes::new());
        }
        if !self.index().contains(digest) {
            return Err(Error::not_found("get", digest));
        }
        let file = self.open_blob(digest)?;
        self.read_blob(digest, &file, 0, digest.size_bytes())
    }

    fn open_blob(&self, digest: Digest) -> Result<File> {
        let file = self
            .loose
            .open(digest)
            .map_err(|error| self.unreadable(digest, error))?;
        let found = file.metadata().map_err(|error| self.unreadable(digest, error))?.len();
        if found != digest.size_bytes() {
            return Err(self.unreadable(digest, io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(file)
    }

    fn read_blob(&self, digest: Digest, file: &File, at: u64, len: u64) -> Result<Bytes> {
        let len = usize::try_from(len)
            .map_err(|_| Error::new(ErrorKind::Exhausted, "get", "the blob does not fit into memory").on(digest))?;
        let mut bytes = vec![0; len];
        match file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(bytes.into()),
            Err(error) => Err(self.unreadable(digest, error)),
        }
    }

    /// The error of a blob whose file could not be opened or read to its end.
    fn unreadable(&self, digest: Digest, error: io::Error) -> Error {
        let kind = match error.kind() {
            // Evicted a moment ago, or removed by somebody else.
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ if is_damage(&error) => ErrorKind::DataLoss,
            _ => return Error::io("get", "reading the blob's file", error).on(digest),
        };
        self.recheck(digest);
        Error::new(kind, "get", "the blob's file is not what it was")
            .on(digest)
            .caused_by(error)
    }
}
