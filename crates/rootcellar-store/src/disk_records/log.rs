//! The log in front of the database: a change is in it, one write behind the others, long before it is in the database.
//!
//! ```text
//! entry, entry, ...   the file is a ring; an entry never goes around its end
//!    0   checksum      8 bytes: the first of BLAKE3 over the chain and the rest of the entry
//!    8   key bytes     u32
//!   12   value bytes   u32; all bits set is a removal, and nothing follows the key
//!   16   key
//!        expires       12 bytes, as in the database
//!        value
//! ```
//!
//! The database has a mark: where the first entry is that it does not have, and the chain there. The chain behind an entry is its checksum.
//! A transaction that takes entries into the database moves the mark behind them, so that at every moment each change is in one of both. What
//! else the ring has follows from nothing: not what was written an hour ago, not the rest of a write that failed. Clients, who choose what
//! the values are, do not know the chain: it begins at random, in an empty log.
//!
//! An entry is there once it was written: a killed process loses none, a machine without power only what was not synced. Reading stops at the
//! first entry that is not whole.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::backend::open_or_make;
use super::format::{self, CHECKSUM_BYTES, EXPIRY_BYTES};
use super::writer::Change;
use crate::io::{Disk, DiskFile};
use crate::records::charge_bytes;
use crate::{ErrorKind, Record};

/// A log is never larger, so no start has to read more. Some four thousand action results.
const BYTES_MAX: u64 = 8 << 20;
/// Of the bound on records, so much is for those in the log.
const PART: u64 = 64;
const HEADER_BYTES: usize = CHECKSUM_BYTES + 4 + 4;
const REMOVED: u32 = u32::MAX;

/// What the checksum of an entry begins with.
pub(super) type Chain = u64;

/// A place between entries, in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) at: u64,
    pub(super) chain: Chain,
}

#[derive(Debug)]
pub(super) struct Log {
    file: Arc<dyn DiskFile>,
    bytes_max: u64,
    /// Behind the last entry.
    end: End,
    /// Behind the last entry that is in the database.
    taken: End,
    /// Not when nobody knows what is in the file, or which mark the database has.
    is_usable: bool,
}

/// An end of what is logged.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// Bytes written since the log began, with those left out at the end of the file.
    bytes: u64,
    /// What all records since then counted against the bound: more than their bytes here.
    charge: u64,
    chain: Chain,
}

impl End {
    fn start(chain: Chain) -> Self {
        Self {
            bytes: 0,
            charge: 0,
            chain,
        }
    }
}

/// The bytes of a log, where records are bounded by `records_bytes_max`.
pub(super) fn bytes_max(records_bytes_max: u64) -> u64 {
    BYTES_MAX.min(records_bytes_max / PART)
}

impl Log {
    /// Opens the log, or makes it, with all of its bytes on the disk if there is room: no later write needs any then, and no sync has a size
    /// to write. It takes nothing until it [begins](Self::begin). Blocks.
    pub(super) fn open(disk: &dyn Disk, path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = open_or_make(disk, path)?;
        let size = file.size()?;
        if size < bytes_max {
            let missing = usize::try_from(bytes_max - size).expect("a log is small");
            match file.write_at(&[IoSlice::new(&vec![0; missing])], size) {
                Err(error) if ErrorKind::of_io(&error) == ErrorKind::Exhausted => {
                    tracing::warn!(%error, "there is no room for the log of records");
                }
                written => written.and_then(|()| file.sync())?,
            }
        }
        Ok(Self {
            file,
            bytes_max,
            end: End::start(0),
            taken: End::start(0),
            is_usable: false,
        })
    }

    /// The changes behind a mark. Blocks.
    pub(super) fn read(&self, mark: Mark) -> io::Result<Vec<Change>> {
        let size = self.file.size()?.min(BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(size).expect("it is bounded")];
        self.file.read_at(&mut bytes, 0)?;
        Ok(read(&bytes, mark))
    }

    /// Begins empty, at the start of the file, which the database knows with this chain.
    pub(super) fn begin(&mut self, chain: Chain) {
        self.end = End::start(chain);
        self.taken = self.end;
        self.is_usable = true;
    }

    /// Refuses everything until it begins again.
    pub(super) fn give_up(&mut self) {
        self.is_usable = false;
    }

    /// Where the log ends now.
    pub(super) fn end(&self) -> End {
        self.end
    }

    /// An end as the database notes it.
    pub(super) fn mark(&self, end: End) -> Mark {
        Mark {
            at: self.place(end),
            chain: end.chain,
        }
    }

    fn place(&self, end: End) -> u64 {
        end.bytes.checked_rem(self.bytes_max).unwrap_or(0)
    }

    /// What lies before `end` is in the database: its place can be used again.
    pub(super) fn take_until(&mut self, end: End) {
        self.taken = end;
    }

    /// Whether so much is in it that it should be taken into the database.
    pub(super) fn is_half_full(&self) -> bool {
        let used = (self.end.bytes - self.taken.bytes).max(self.end.charge - self.taken.charge);
        self.is_usable && used > self.bytes_max / 2
    }

    /// Appends changes; `false` if there is no room for them. After an error, [`give_up`](Self::give_up). Blocks.
    pub(super) fn append(&mut self, changes: &[Change]) -> io::Result<bool> {
        let end_charge = self.end.charge + charge_of(changes);
        if !self.is_usable || end_charge - self.taken.charge > self.bytes_max {
            return Ok(false);
        }
        let (bytes, chain) = encode(changes, self.end.chain);
        let len = bytes.len() as u64;
        let left = self.bytes_max - self.place(self.end);
        let skipped = if len > left { left } else { 0 };
        let end_bytes = self.end.bytes + skipped + len;
        if end_bytes - self.taken.bytes > self.bytes_max {
            return Ok(false);
        }
        self.file
            .write_at(&[IoSlice::new(&bytes)], (end_bytes - len) % self.bytes_max)?;
        self.end = End {
            bytes: end_bytes,
            charge: end_charge,
            chain,
        };
        Ok(true)
    }

    /// Makes what was appended durable. Blocks.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    pub(super) fn file_bytes(&self) -> io::Result<u64> {
        self.file.size()
    }
}

fn charge_of(changes: &[Change]) -> u64 {
    let charge = |change: &Change| match change {
        Change::Put(key, record) => charge_bytes(key, record.value.len() as u64),
        Change::Remove(key) => charge_bytes(key, 0),
    };
    changes.iter().map(charge).sum()
}

/// The entries of changes behind a chain, and the chain behind them.
fn encode(changes: &[Change], mut chain: Chain) -> (Vec<u8>, Chain) {
    let mut bytes = Vec::new();
    for change in changes {
        let (key, record) = change.parts();
        let value_bytes = record.map_or(REMOVED, |record| len(&record.value));
        let start = bytes.len();
        bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
        bytes.extend_from_slice(&len(key).to_le_bytes());
        bytes.extend_from_slice(&value_bytes.to_le_bytes());
        bytes.extend_from_slice(key);
        if let Some(record) = record {
            bytes.extend_from_slice(&format::encode_expiry(record.expires));
            bytes.extend_from_slice(&record.value);
        }
        let checksum = checksum(chain, &bytes[start + CHECKSUM_BYTES..]);
        bytes[start..][..CHECKSUM_BYTES].copy_from_slice(&checksum);
        chain = Chain::from_le_bytes(checksum);
    }
    (bytes, chain)
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a record in a log is smaller than the log")
}

/// The changes in a ring behind a mark, up to the first entry that is not whole or does not follow.
fn read(ring: &[u8], Mark { at, mut chain }: Mark) -> Vec<Change> {
    let mut changes = Vec::new();
    let start = usize::try_from(at)
        .ok()
        .and_then(|at| ring.get(at..))
        .unwrap_or_default();
    // To the end of the file, and from its start.
    for mut bytes in [start, ring] {
        while let Some((change, entry_bytes, next)) = entry(bytes, chain) {
            changes.push(change);
            chain = next;
            bytes = &bytes[entry_bytes..];
        }
    }
    changes
}

/// The entry at the start of some bytes, its length, and the chain behind it.
fn entry(bytes: &[u8], chain: Chain) -> Option<(Change, usize, Chain)> {
    let (stored_checksum, rest) = bytes.split_first_chunk::<CHECKSUM_BYTES>()?;
    let (key_bytes, after) = rest.split_first_chunk()?;
    let (value_bytes, after) = after.split_first_chunk()?;
    let key_bytes = usize::try_from(u32::from_le_bytes(*key_bytes)).ok()?;
    let value_bytes = match u32::from_le_bytes(*value_bytes) {
        REMOVED => None,
        bytes => Some(usize::try_from(bytes).ok()?),
    };
    let body_bytes = key_bytes.checked_add(match value_bytes {
        Some(bytes) => bytes.checked_add(EXPIRY_BYTES)?,
        None => 0,
    })?;
    let body = after.get(..body_bytes)?;
    let entry_bytes = HEADER_BYTES + body_bytes;
    if *stored_checksum != checksum(chain, &rest[..entry_bytes - CHECKSUM_BYTES]) {
        return None;
    }
    let (key, record) = body.split_at(key_bytes);
    let change = match value_bytes {
        None => Change::Remove(key.into()),
        Some(_) => {
            let (expires, value) = format::decode_expiry(record)?;
            let value = Bytes::copy_from_slice(value);
            Change::Put(key.into(), Record { value, expires })
        }
    };
    Some((change, entry_bytes, Chain::from_le_bytes(*stored_checksum)))
}

fn checksum(chain: Chain, rest: &[u8]) -> [u8; CHECKSUM_BYTES] {
    format::hash(&[&chain.to_le_bytes(), rest])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::testing::{Seeded, SimulatedDisk};

    const START: Mark = Mark { at: 0, chain: 42 };

    fn put(key: &str, value: &'static str, expires: Option<SystemTime>) -> Change {
        let value = Bytes::from_static(value.as_bytes());
        Change::Put(key.as_bytes().into(), Record { value, expires })
    }

    fn changes() -> Vec<Change> {
        let later = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        vec![
            put("a", "first", None),
            Change::Remove(b"b".as_slice().into()),
            put("", "", Some(later)),
            put("a", "second", Some(later)),
        ]
    }

    #[test]
    fn what_was_logged_reads_back_up_to_the_first_entry_that_is_not_whole() {
        let changes = changes();
        let (bytes, _) = encode(&changes, START.chain);
        let ends: Vec<usize> = (0..=changes.len())
            .map(|n| encode(&changes[..n], START.chain).0.len())
            .collect();
        let whole_before = |at: usize| ends.iter().filter(|end| **end <= at).count() - 1;
        assert_eq!(read(&bytes, START), changes);
        assert_eq!(read(&bytes, Mark { chain: 43, ..START }), []);
        for len in 0..bytes.len() {
            assert_eq!(
                read(&bytes[..len], START),
                changes[..whole_before(len)],
                "cut to {len} bytes"
            );
        }
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&damaged, START), changes[..whole_before(bit / 8)], "bit {bit}");
        }
    }

    #[test]
    fn what_a_failed_write_left_does_not_follow_from_what_was_written_over_it() {
        let failed = [put("a", "aaaa", None), put("k", "old", None)];
        let (mut file, _) = encode(&failed, START.chain);
        let written = [put("k", "new!", None)];
        let (over, _) = encode(&written, START.chain);
        assert_eq!(
            over.len(),
            encode(&failed[..1], START.chain).0.len(),
            "so the second of the old ones is in place"
        );
        file[..over.len()].copy_from_slice(&over);
        assert_eq!(read(&file, START), written);
    }

    #[test]
    fn a_log_goes_around_and_only_what_is_behind_the_mark_is_in_it() {
        let disk = SimulatedDisk::new(1);
        let path = Path::new("/records.log");
        let mut log = Log::open(&disk, path, 2000).unwrap();
        assert!(!log.append(&changes()).unwrap(), "it has not begun");
        log.begin(42);
        let mut seeded = Seeded::new(3);
        let mut kept: Vec<(End, Change)> = Vec::new();
        let (mut refused, mut rounds) = (0, 0);
        for n in 0..2000_u32 {
            let len = usize::try_from(seeded.below(300)).unwrap();
            let value = seeded.bytes(len);
            let change = Change::Put(n.to_string().into_bytes().into(), Record { value, expires: None });
            let before = log.end();
            if log.append(std::slice::from_ref(&change)).unwrap() {
                rounds += u64::from(log.place(log.end()) < log.place(before));
                kept.push((log.end(), change));
            } else {
                refused += 1;
                let taken = usize::try_from(1 + seeded.below(kept.len() as u64)).unwrap();
                log.take_until(kept[taken - 1].0);
                kept.drain(..taken);
            }
            let expected: Vec<Change> = kept.iter().map(|(_, change)| change.clone()).collect();
            assert_eq!(log.read(log.mark(log.taken)).unwrap(), expected, "after {n}");
        }
        assert!(refused > 50 && rounds > 50, "{refused} refused, {rounds} rounds");
    }

    #[test]
    fn any_bytes_are_read() {
        let mut seeded = Seeded::new(7);
        for _ in 0..2000 {
            let len = usize::try_from(seeded.below(200)).unwrap();
            let at = seeded.below(250);
            let chain = seeded.number();
            read(&seeded.bytes(len), Mark { at, chain });
        }
        read(&[0; 1000], Mark { at: 0, chain: 0 });
        read(
            &[0xff; 1000],
            Mark {
                at: u64::MAX,
                chain: Chain::MAX,
            },
        );
    }
}
