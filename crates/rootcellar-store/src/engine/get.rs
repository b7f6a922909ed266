//! Reading blobs.
//!
//! ```text
//!   index ──> checked since the start? ──no──> hash all of it, off the runtime (`first_read.rs`)
//!                 │ yes
//!                 ├─ in a pack, small: read what is cached, here and now, and compare its checksum
//!                 │        └─ not cached: the same off the runtime
//!                 └─ else: open the file off the runtime, and read it piece by piece as it is asked for
//! ```
//!
//! A packed blob of up to 64 KiB is compared with its checksum by every read. What is larger is hashed when it is first read, and again
//! by the scrub.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::Digest;

use super::core::Engine;
use super::index::{Entry, Flags};
use crate::blob::is_damage;
use crate::checksum::checksum;
use crate::layout::{Extent, Region};
use crate::{Blob, ByteRange, Error, ErrorKind, Result};

/// Blobs of up to this size are read whole, whatever part of them is asked for.
const READ_AT_ONCE_BYTES: u64 = 64 * 1024;

/// How often a blob that was moved while it was looked for is looked for again.
const TRIES_MAX: u32 = 8;

impl Engine {
    pub(super) async fn get(self: &Arc<Self>, digest: Digest, range: ByteRange) -> Result<Blob> {
        if digest.is_empty_blob() {
            return Ok(Blob::from_bytes(digest, range.resolve(digest)?, Bytes::new()));
        }
        let Some(entry) = self.find(&digest) else {
            return Err(Error::not_found("get", digest));
        };
        let range = range.resolve(digest)?;
        if let Some(whole) = self.read_cached(&digest, &entry)? {
            return Ok(part(digest, whole, range));
        }
        self.ensure_checked(&[digest]).await.remove(0)?;
        self.hop(move |engine| engine.read(digest, range)).await
    }

    pub(super) async fn get_many(self: &Arc<Self>, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let (mut outcomes, mut cold) = (Vec::with_capacity(digests.len()), Vec::new());
        for (at, (digest, entry)) in digests.iter().zip(self.touch_entries(digests)).enumerate() {
            let cached = self.get_cached(digest, entry);
            if cached.is_none() {
                cold.push((at, *digest));
            }
            outcomes.push(cached.unwrap_or_else(|| Ok(Bytes::new())));
        }
        if cold.is_empty() {
            return outcomes;
        }
        let digests: Vec<Digest> = cold.iter().map(|(_, digest)| *digest).collect();
        let checked = self.ensure_checked(&digests).await;
        let read = |engine: &Arc<Self>| {
            let read = |(digest, checked): (Digest, Result<()>)| checked.and_then(|()| engine.read_whole(digest));
            digests.into_iter().zip(checked).map(read).collect::<Vec<_>>()
        };
        let read = self.hop(read).await;
        for ((at, _), outcome) in cold.into_iter().zip(read) {
            outcomes[at] = outcome;
        }
        outcomes
    }

    /// What can be said of a blob without waiting for the disk.
    fn get_cached(&self, digest: &Digest, entry: Option<Entry>) -> Option<Result<Bytes>> {
        if digest.is_empty_blob() {
            return Some(Ok(Bytes::new()));
        }
        match entry {
            Some(entry) => self.read_cached(digest, &entry).transpose(),
            None => Some(Err(Error::not_found("get", *digest))),
        }
    }

    /// Looks a blob up, which is a use of it.
    fn find(&self, digest: &Digest) -> Option<Entry> {
        self.touch_entry(digest, self.tick())
    }

    /// Reads a small blob of a pack if it was checked and is in memory.
    fn read_cached(&self, digest: &Digest, entry: &Entry) -> Result<Option<Bytes>> {
        let is_quick = entry.flags.has(Flags::VERIFIED)
            && entry.place.region() != Region::ALONE
            && digest.size_bytes() <= READ_AT_ONCE_BYTES;
        if !is_quick {
            return Ok(None);
        }
        // Dropped a moment ago, or too many files are open: what comes next will tell.
        let Ok(extent) = self.layout.open(digest, entry.place) else {
            return Ok(None);
        };
        let mut whole = vec![0; usize::try_from(digest.size_bytes()).expect("a small blob")];
        let is_read = extent.file.read_cached(&mut whole, extent.at);
        let is_right = matches!(is_read, Ok(true)) && checksum(&whole) == entry.checksum;
        // Whatever is wrong is looked at where one may wait.
        Ok(is_right.then(|| whole.into()))
    }

    /// Opens a blob that was checked. Blocks.
    fn read(self: &Arc<Self>, digest: Digest, range: Range<u64>) -> Result<Blob> {
        if digest.size_bytes() <= READ_AT_ONCE_BYTES {
            return Ok(part(digest, self.read_whole(digest)?, range));
        }
        let (entry, extent) = self.open(digest)?;
        let store = Arc::downgrade(self);
        let on_damage = move || {
            if let Some(engine) = store.upgrade() {
                engine.look_again(digest, entry);
            }
        };
        Ok(Blob::from_file(digest, range, extent.file, extent.at).on_damage(on_damage))
    }

    /// Reads a blob that was checked, and compares its checksum. Blocks.
    pub(super) fn read_whole(&self, digest: Digest) -> Result<Bytes> {
        if digest.is_empty_blob() {
            return Ok(Bytes::new());
        }
        let len = usize::try_from(digest.size_bytes())
            .map_err(|_| Error::new(ErrorKind::Exhausted, "get", "the blob does not fit into memory").on(digest))?;
        let (entry, extent) = self.open(digest)?;
        let mut whole = vec![0; len];
        let read = extent.file.read_at(&mut whole, extent.at);
        read.map_err(|error| self.unreadable(digest, entry, error))?;
        if checksum(&whole) != entry.checksum {
            return Err(self.unreadable(digest, entry, io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(whole.into())
    }

    /// Finds the bytes of a blob, wherever it is moved. Blocks.
    pub(super) fn open(&self, digest: Digest) -> Result<(Entry, Extent)> {
        for _ in 0..TRIES_MAX {
            let Some(entry) = self.index.get(&digest) else {
                return Err(Error::not_found("get", digest));
            };
            match self.layout.open(&digest, entry.place) {
                Ok(extent) => return Ok((entry, extent)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if self.index.get(&digest).is_some_and(|now| now.place == entry.place) {
                        return Err(self.unreadable(digest, entry, error));
                    }
                }
                Err(error) => return Err(self.unreadable(digest, entry, error)),
            }
        }
        let reason = "the blob is moved again and again";
        Err(Error::new(ErrorKind::Unavailable, "get", reason).on(digest))
    }

    /// The error of a blob that could not be opened or read to its end. Drops it if it is damaged.
    fn unreadable(&self, digest: Digest, entry: Entry, error: io::Error) -> Error {
        let kind = match error.kind() {
            // Evicted a moment ago, or removed by somebody else.
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ if is_damage(&error) => ErrorKind::DataLoss,
            _ => return Error::io("get", "reading the stored blob", error).on(digest),
        };
        self.look_again(digest, entry);
        Error::new(kind, "get", "the stored blob is not what it was")
            .on(digest)
            .caused_by(error)
    }
}

fn part(digest: Digest, whole: Bytes, range: Range<u64>) -> Blob {
    let is_all = range == (0..digest.size_bytes());
    let index = |at: u64| usize::try_from(at).expect("a range within bytes in memory");
    let part = match is_all {
        true => whole,
        false => whole.slice(index(range.start)..index(range.end)),
    };
    Blob::from_bytes(digest, range, part)
}
