//! The index in memory: which blobs there are, where each lies, and when it was used.
//!
//! One table for each digest function, cut into shards with a lock each, by the key's hash: no step that makes room touches more
//! than a thousandth of the table. 57 to 62 bytes for a blob whose hash has 32 bytes (`docs/design/0004`). Nothing here touches
//! the disk; a lock is held for one look-up, or for one shard's scan.

mod many;
mod shard;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rootcellar_digest::{Digest, DigestFunction};

use self::shard::{ENTRIES_MAX, Mixed, SIZE_MAX, Shard};
pub(crate) use self::shard::{Entry, Flags};
use crate::layout::Place;
use crate::{Error, ErrorKind, Result};
use rootcellar_digest::fold;

const SHARD_BITS: u32 = 10;
const SHARDS: usize = 1 << SHARD_BITS;

#[derive(Debug)]
pub(crate) struct Index {
    /// Made when the function's first blob comes.
    tables: [OnceLock<Table>; DigestFunction::ALL.len()],
    secret: [u64; 2],
    blobs: AtomicU64,
}

#[derive(Debug)]
struct Table {
    hash_len: usize,
    /// Each lock guards one shard.
    shards: Box<[Mutex<Shard>]>,
}

/// An entry with its name, seen by a scan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scanned {
    pub(super) digest: Digest,
    pub(super) entry: Entry,
}

/// A small part of the index.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShardNumber {
    function: DigestFunction,
    shard: usize,
}

impl Index {
    /// Makes an empty index. Who does not know `secret` cannot choose blobs that collide in it.
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        let (low, high) = secret.split_at(8);
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        Self {
            tables: [const { OnceLock::new() }; DigestFunction::ALL.len()],
            secret: [number(low), number(high)],
            blobs: AtomicU64::new(0),
        }
    }

    pub(super) fn blobs(&self) -> u64 {
        self.blobs.load(Ordering::Relaxed)
    }

    /// Bytes of memory that the index takes.
    pub(super) fn bytes(&self) -> u64 {
        let tables = self.tables.iter().filter_map(OnceLock::get);
        let shards = tables.flat_map(|table| &table.shards);
        let bytes = |shard| size_of::<Mutex<Shard>>() + lock(shard).bytes();
        shards.map(|shard| bytes(shard) as u64).sum()
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<Entry> {
        self.with(digest, |shard, id, hash_len| shard.entry(id, hash_len))
    }

    /// Looks a blob up and notes that it is used.
    pub(super) fn touch(&self, digest: &Digest, used: u32) -> Option<Entry> {
        self.with(digest, |shard, id, hash_len| {
            shard.touch(id, hash_len, used);
            shard.entry(id, hash_len)
        })
    }

    /// Notes that the content of the blob at this place was hashed, and what checksum it has.
    pub(super) fn set_verified(&self, digest: &Digest, place: Place, checksum: u32) {
        self.with(digest, |shard, id, hash_len| {
            let entry = shard.entry(id, hash_len);
            if entry.place == place {
                let flags = entry.flags.with(Flags::VERIFIED).with(Flags::CHECKSUMMED);
                let verified = Entry {
                    checksum,
                    flags,
                    ..entry
                };
                shard.replace(id, hash_len, verified);
            }
        });
    }

    /// Notes a use of the blob whose hash begins with `prefix`, if there is one.
    pub(super) fn restore_use(&self, function: DigestFunction, prefix: [u8; 8], used: u32) {
        let Some(table) = self.tables[function as usize].get() else {
            return;
        };
        let mixed = self.mix(&prefix);
        let mut shard = table.shard(mixed);
        if let Some(id) = shard.find_prefix(mixed, prefix, table.hash_len) {
            shard.touch(id, table.hash_len, used);
        }
    }

    /// Adds a blob, or moves it to another place. Returns what was known of it before.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] if the index can hold no more.
    pub(crate) fn insert(&self, digest: &Digest, entry: Entry) -> Result<Option<Entry>> {
        let table = self.tables[digest.function() as usize].get_or_init(|| Table::new(digest.function().hash_len()));
        let mixed = self.mix(digest.hash());
        let mut shard = table.shard(mixed);
        if let Some(id) = shard.find(mixed, digest.hash(), digest.size_bytes()) {
            let before = shard.entry(id, table.hash_len);
            shard.replace(id, table.hash_len, entry);
            return Ok(Some(before));
        }
        if shard.len(table.hash_len) == ENTRIES_MAX || digest.size_bytes() > SIZE_MAX {
            return Err(Error::new(ErrorKind::Exhausted, "put", "the index is full").on(*digest));
        }
        shard.add(mixed, digest.hash(), digest.size_bytes(), entry, |hash| self.mix(hash));
        self.blobs.fetch_add(1, Ordering::Relaxed);
        Ok(None)
    }

    /// Moves a blob from `from` to `entry.place`, if it is still there. Uses that came meanwhile are kept.
    pub(super) fn relocate(&self, digest: &Digest, from: Place, to: Place) -> bool {
        let moved = self.with(digest, |shard, id, hash_len| {
            let entry = shard.entry(id, hash_len);
            if entry.place == from {
                shard.replace(id, hash_len, Entry { place: to, ..entry });
            }
            entry.place == from
        });
        moved == Some(true)
    }

    /// Forgets a blob, if it lies at `place` and `may_go` says so of what is known of it now.
    pub(super) fn remove_if(&self, digest: &Digest, place: Place, may_go: impl FnOnce(Entry) -> bool) -> Option<Entry> {
        let table = self.tables[digest.function() as usize].get()?;
        let mixed = self.mix(digest.hash());
        let mut shard = table.shard(mixed);
        let id = shard.find(mixed, digest.hash(), digest.size_bytes())?;
        let entry = shard.entry(id, table.hash_len);
        if entry.place != place || !may_go(entry) {
            return None;
        }
        shard.remove(id, table.hash_len, |hash| self.mix(hash));
        self.blobs.fetch_sub(1, Ordering::Relaxed);
        Some(entry)
    }

    /// Shows every entry once, shard by shard. Blobs that come or go meanwhile may be seen or not. `see` must not use the index.
    pub(super) fn scan(&self, mut see: impl FnMut(Scanned)) {
        for shard in self.shards() {
            self.scan_shard(shard, &mut see);
        }
    }

    /// The shards there are, each a small part of the blobs.
    pub(super) fn shards(&self) -> impl Iterator<Item = ShardNumber> + use<> {
        let of_function = |function| (0..SHARDS).map(move |shard| ShardNumber { function, shard });
        let is_made = DigestFunction::ALL.map(|function| self.tables[function as usize].get().is_some());
        let functions = DigestFunction::ALL.into_iter().zip(is_made);
        functions
            .filter(|(_, is_made)| *is_made)
            .flat_map(move |(function, _)| of_function(function))
    }

    /// Shows every entry of a shard. `see` must not use the index.
    pub(super) fn scan_shard(&self, number: ShardNumber, mut see: impl FnMut(Scanned)) {
        let Some(table) = self.tables[number.function as usize].get() else {
            return;
        };
        let shard = lock(&table.shards[number.shard]);
        for id in 0..shard.len(table.hash_len) {
            let hash = shard.hash(id, table.hash_len);
            let digest = Digest::new(number.function, hash, shard.size(id, table.hash_len));
            see(Scanned {
                digest: digest.expect("the table's hashes have one length"),
                entry: shard.entry(id, table.hash_len),
            });
        }
    }

    fn with<T>(&self, digest: &Digest, act: impl FnOnce(&mut Shard, usize, usize) -> T) -> Option<T> {
        let table = self.tables[digest.function() as usize].get()?;
        let mixed = self.mix(digest.hash());
        let mut shard = table.shard(mixed);
        let id = shard.find(mixed, digest.hash(), digest.size_bytes())?;
        Some(act(&mut shard, id, table.hash_len))
    }

    /// Spreads the hash's first bytes, which are random already unless somebody chose them.
    fn mix(&self, hash: &[u8]) -> Mixed {
        let first = u64::from_le_bytes(*hash.first_chunk().expect("a hash has 16 bytes or more"));
        Mixed(fold(fold(first ^ self.secret[0]) ^ self.secret[1]))
    }
}

impl Table {
    fn new(hash_len: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { hash_len, shards }
    }

    fn shard(&self, mixed: Mixed) -> MutexGuard<'_, Shard> {
        lock(&self.shards[mixed.shard()])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // A shard's own assertions aside, no code that holds the lock can stop halfway.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
