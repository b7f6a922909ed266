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

use std::collections::BTreeMap;
use std::collections::btree_map::Entry::{Occupied, Vacant};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::Digest;

use super::core::Engine;
use super::index::{Entry, Flags};
use crate::blob::is_damage;
use crate::checksum::checksum;
use crate::io::DiskFile;
use crate::layout::{Extent, Place, Region};
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
        if let Some(whole) = CachedReads::new(self).read_new(&digest, &entry) {
            return Ok(part(digest, whole, range));
        }
        self.ensure_checked(&[digest]).await.remove(0)?;
        self.hop(move |engine| engine.read(digest, range)).await
    }

    pub(super) async fn get_many(self: &Arc<Self>, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let (mut outcomes, cold) = {
            let mut cached = CachedReads::new(self);
            self.read_many_cached(digests, |at, entry| cached.read_new(&digests[at], entry))
        };
        for (at, outcome) in self.read_many_cold(digests, cold).await {
            outcomes[at] = outcome;
        }
        outcomes
    }

    pub(super) async fn get_many_into(
        self: &Arc<Self>,
        digests: &[Digest],
        buffers: &mut [&mut [u8]],
    ) -> Vec<Result<()>> {
        let (mut outcomes, cold) = {
            let mut cached = CachedReads::new(self);
            let read = |at: usize, entry: &Entry| cached.read(&digests[at], entry, buffers[at]).then_some(());
            self.read_many_cached(digests, read)
        };
        for (at, outcome) in self.read_many_cold(digests, cold).await {
            outcomes[at] = outcome.map(|bytes| buffers[at].copy_from_slice(&bytes));
        }
        outcomes
    }

    /// Has `read` what can be had without waiting for the disk. Tells which blobs have to be waited for.
    fn read_many_cached<T: Default>(
        &self,
        digests: &[Digest],
        mut read: impl FnMut(usize, &Entry) -> Option<T>,
    ) -> (Vec<Result<T>>, Vec<usize>) {
        let (mut outcomes, mut cold) = (Vec::with_capacity(digests.len()), Vec::new());
        for (at, (digest, entry)) in digests.iter().zip(self.touch_entries(digests)).enumerate() {
            let outcome = match entry {
                _ if digest.is_empty_blob() => Ok(T::default()),
                None => Err(Error::not_found("get", *digest)),
                Some(entry) => Ok(read(at, &entry).unwrap_or_else(|| {
                    cold.push(at);
                    T::default()
                })),
            };
            outcomes.push(outcome);
        }
        (outcomes, cold)
    }

    /// Reads blobs off the runtime, those of `digests` at these places.
    async fn read_many_cold(
        self: &Arc<Self>,
        digests: &[Digest],
        places: Vec<usize>,
    ) -> impl Iterator<Item = (usize, Result<Bytes>)> {
        let mut outcomes = Vec::new();
        if !places.is_empty() {
            let digests: Vec<Digest> = places.iter().map(|at| digests[*at]).collect();
            let checked = self.ensure_checked(&digests).await;
            let read = |engine: &Arc<Self>| {
                let read = |(digest, checked): (Digest, Result<()>)| checked.and_then(|()| engine.read_whole(digest));
                digests.into_iter().zip(checked).map(read).collect::<Vec<_>>()
            };
            outcomes = self.hop(read).await;
        }
        places.into_iter().zip(outcomes)
    }

    /// Looks a blob up, which is a use of it.
    fn find(&self, digest: &Digest) -> Option<Entry> {
        self.touch_entry(digest, self.tick())
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

/// Reads of what is in memory. Whatever else is met is looked at where one may wait.
struct CachedReads<'a> {
    engine: &'a Engine,
    /// The packs that were read from.
    packs: BTreeMap<Region, Arc<dyn DiskFile>>,
}

impl<'a> CachedReads<'a> {
    fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            packs: BTreeMap::new(),
        }
    }

    /// Reads a small blob of a pack if it was checked and is in memory.
    fn read(&mut self, digest: &Digest, entry: &Entry, whole: &mut [u8]) -> bool {
        if !is_quick(digest, entry) {
            return false;
        }
        let at = self.engine.layout.first_byte(entry.place);
        let Some(pack) = self.pack(digest, entry.place) else {
            return false;
        };
        matches!(pack.read_cached(whole, at), Ok(true)) && checksum(whole) == entry.checksum
    }

    /// The same, into new memory.
    fn read_new(&mut self, digest: &Digest, entry: &Entry) -> Option<Bytes> {
        if !is_quick(digest, entry) {
            return None;
        }
        let mut whole = vec![0; usize::try_from(digest.size_bytes()).expect("a small blob")];
        self.read(digest, entry, &mut whole).then(|| whole.into())
    }

    /// `None` if it was dropped a moment ago, or too many files are open.
    fn pack(&mut self, digest: &Digest, place: Place) -> Option<&dyn DiskFile> {
        match self.packs.entry(place.region()) {
            Occupied(opened) => Some(&**opened.into_mut()),
            Vacant(free) => {
                let extent = self.engine.layout.open(digest, place).ok()?;
                Some(&**free.insert(extent.file))
            }
        }
    }
}

fn is_quick(digest: &Digest, entry: &Entry) -> bool {
    entry.flags.has(Flags::VERIFIED)
        && entry.place.region() != Region::ALONE
        && digest.size_bytes() <= READ_AT_ONCE_BYTES
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
