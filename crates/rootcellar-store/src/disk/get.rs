//! Reading blobs: a first read after a start hashes the whole blob before it hands out a byte.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::Digest;

use super::check::{Check, check, is_bad_medium};
use super::index::{ClaimEnd, Claimed};
use super::shared::Shared;
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
        let open = move |shared: &Self| {
            let file = shared.open_blob(digest)?;
            let len = range.end - range.start;
            if len > READ_AT_ONCE_BYTES {
                return Ok(Blob::from_file(digest, range, Arc::new(file), 0));
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
            io::ErrorKind::UnexpectedEof => ErrorKind::DataLoss,
            _ if is_bad_medium(&error) => ErrorKind::DataLoss,
            _ => return Error::io("get", "reading the blob's file", error).on(digest),
        };
        self.recheck(digest);
        Error::new(kind, "get", "the blob's file is not what it was")
            .on(digest)
            .caused_by(error)
    }

    /// Looks again at a blob that could not be read, while nobody puts or removes it, and drops it if it is damaged.
    fn recheck(&self, digest: Digest) {
        let claimed = self.index().claim_present(digest);
        if let Claimed::Mine = claimed {
            // The reader has an error of its own; this one is in the log.
            let _outcome = self.check_one(digest);
            self.index().release(digest);
        }
    }

    /// Hashes those of `digests` that were neither put nor read since the start: one outcome for each. Damaged ones are
    /// absent then. Absent ones are no error here.
    pub(super) async fn ensure_checked(self: &Arc<Self>, digests: &[Digest]) -> Vec<Result<()>> {
        let mut outcomes: Vec<Result<()>> = digests.iter().map(|_| Ok(())).collect();
        let mut items: Vec<usize> = (0..digests.len()).collect();
        while !items.is_empty() {
            let (claims, theirs) = self.claim_unchecked(digests, &items);
            if !claims.items.is_empty() {
                let checked = self.hop(move |shared| shared.check_batch(&claims.items)).await;
                for (at, outcome) in checked {
                    outcomes[at] = outcome;
                }
            }
            items = Vec::with_capacity(theirs.len());
            for (at, mut end) in theirs {
                // An error says that the claim ended, which is what is waited for.
                let _ended = end.changed().await;
                items.push(at);
            }
        }
        outcomes
    }

    fn claim_unchecked(self: &Arc<Self>, digests: &[Digest], items: &[usize]) -> (CheckClaims, Vec<(usize, ClaimEnd)>) {
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        let mut index = self.index();
        for at in items.iter().copied() {
            match index.claim_unchecked(digests[at]) {
                Claimed::Done => {}
                Claimed::Mine => mine.push((at, digests[at])),
                Claimed::Theirs(end) => theirs.push((at, end)),
            }
        }
        drop(index);
        let claims = CheckClaims {
            shared: self.clone(),
            items: mine,
        };
        (claims, theirs)
    }

    fn check_batch(&self, items: &[(usize, Digest)]) -> Vec<(usize, Result<()>)> {
        let check = |(at, digest): &(usize, Digest)| (*at, self.check_one(*digest));
        items.iter().map(check).collect()
    }

    /// Hashes a blob that the caller has claimed.
    fn check_one(&self, digest: Digest) -> Result<()> {
        let outcome = self.loose.open(digest).and_then(|file| check(digest, &file));
        let reason = match outcome {
            Ok(Check::Whole) => {
                self.index().set_checked(digest);
                return Ok(());
            }
            Ok(Check::Damaged(reason)) => reason,
            Err(error) if error.kind() == io::ErrorKind::NotFound => "the file is gone".to_owned(),
            Err(error) => return Err(Error::io("get", "checking the blob's file", error).on(digest)),
        };
        tracing::error!(%digest, reason, "dropping a damaged blob");
        let mut index = self.index();
        index.counters.damaged_blobs += 1;
        index.remove(digest);
        drop(index);
        if let Err(error) = self.loose.remove(digest) {
            tracing::error!(%digest, %error, "a damaged blob's file stays");
        }
        Err(Error::new(ErrorKind::DataLoss, "get", reason).on(digest))
    }
}

/// Blobs that this caller checks. Dropping it ends the claims.
struct CheckClaims {
    shared: Arc<Shared>,
    items: Vec<(usize, Digest)>,
}

impl Drop for CheckClaims {
    fn drop(&mut self) {
        let mut index = self.shared.index();
        for (_, digest) in &self.items {
            index.release(*digest);
        }
    }
}
