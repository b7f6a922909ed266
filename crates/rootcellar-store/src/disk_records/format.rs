//! What the tables hold, byte by byte.
//!
//! ```text
//! table "about"     "version" -> 2         "bytes" -> the sum of all records' charges         "log", "log at" -> the mark in the log (`log.rs`)
//! table "records"   key -> checksum:8 expires_seconds:8 expires_nanoseconds:4 value
//! table "uses"      key -> stamp           when the record was used last, by a counter
//! table "order"     stamp -> key           the same, for eviction
//!
//! key: the kind's name, a zero byte, the key within the kind
//! ```
//!
//! Numbers are little-endian. The checksum is the first 8 bytes of BLAKE3 over the key's length, the key, and what follows the checksum:
//! a database finds torn pages after a crash, but a value that rots later is found by nobody else. `expires_seconds` counts
//! from the Unix epoch; all bits set means never. Version 1 had no log (`log.rs`).

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use redb::TableDefinition;
use rootcellar_digest::{DigestFunction, Hasher};

use crate::{Record, RecordKind};

pub(super) const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
pub(super) const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
pub(super) const USES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("uses");
pub(super) const ORDER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("order");

pub(super) const VERSION_FIELD: &str = "version";
pub(super) const VERSION: u64 = 2;
/// This and what came between is brought up to date when it is opened.
pub(super) const VERSION_MIN: u64 = 1;
pub(super) const BYTES_FIELD: &str = "bytes";
pub(super) const LOG_CHAIN_FIELD: &str = "log";
pub(super) const LOG_AT_FIELD: &str = "log at";

pub(super) const CHECKSUM_BYTES: usize = 8;
pub(super) const EXPIRY_BYTES: usize = 8 + 4;
const HEADER_BYTES: usize = CHECKSUM_BYTES + EXPIRY_BYTES;
const NEVER: u64 = u64::MAX;

/// A record's key in the tables.
pub(super) type Key = Box<[u8]>;

pub(super) fn key(kind: RecordKind, key: &[u8]) -> Key {
    let kind = kind.0.as_bytes();
    assert!(!kind.contains(&0), "a zero byte ends a kind's name");
    [kind, &[0], key].concat().into()
}

pub(super) fn encode(key: &[u8], record: &Record) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + record.value.len());
    bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
    bytes.extend_from_slice(&encode_expiry(record.expires));
    bytes.extend_from_slice(&record.value);
    let checksum = checksum(key, &bytes[CHECKSUM_BYTES..]);
    bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum);
    bytes
}

/// The record that `bytes` encode; `None` if they were damaged.
pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Option<Record> {
    let (stored_checksum, rest) = bytes.split_first_chunk::<CHECKSUM_BYTES>()?;
    if *stored_checksum != checksum(key, rest) {
        return None;
    }
    let (expires, value) = decode_expiry(rest)?;
    Some(Record {
        value: Bytes::copy_from_slice(value),
        expires,
    })
}

pub(super) fn encode_expiry(expires: Option<SystemTime>) -> [u8; EXPIRY_BYTES] {
    let since_epoch = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanoseconds) = match expires.map(since_epoch) {
        Some(expires) => (expires.as_secs(), expires.subsec_nanos()),
        None => (NEVER, 0),
    };
    let mut bytes = [0; EXPIRY_BYTES];
    bytes[..8].copy_from_slice(&seconds.to_le_bytes());
    bytes[8..].copy_from_slice(&nanoseconds.to_le_bytes());
    bytes
}

/// The expiry at the start of some bytes, and what follows it; `None` if it is none.
pub(super) fn decode_expiry(bytes: &[u8]) -> Option<(Option<SystemTime>, &[u8])> {
    let (seconds, rest) = bytes.split_first_chunk()?;
    let (nanoseconds, rest) = rest.split_first_chunk()?;
    let expires = match u64::from_le_bytes(*seconds) {
        NEVER => None,
        seconds => {
            // Not `Duration::new`, which panics on what no record has.
            let whole = Duration::from_secs(seconds);
            let since_epoch = whole.checked_add(Duration::from_nanos(u32::from_le_bytes(*nanoseconds).into()))?;
            Some(SystemTime::UNIX_EPOCH.checked_add(since_epoch)?)
        }
    };
    Some((expires, rest))
}

/// The length of a value whose encoding has `encoded_bytes`.
pub(super) fn value_bytes(encoded_bytes: usize) -> u64 {
    encoded_bytes.saturating_sub(HEADER_BYTES) as u64
}

fn checksum(key: &[u8], rest: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let len = (key.len() as u64).to_le_bytes();
    hash(&[&len, key, rest])
}

/// The first bytes of BLAKE3 over some parts.
pub(super) fn hash(parts: &[&[u8]]) -> [u8; CHECKSUM_BYTES] {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let mut hasher = Hasher::new(DigestFunction::Blake3, bytes as u64);
    for part in parts {
        hasher.update(part);
    }
    let digest = hasher.finish().expect("BLAKE3 takes content of any length");
    *digest.hash().first_chunk().expect("a BLAKE3 hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_and_a_flipped_bit_is_found() {
        let times = [
            None,
            Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789)),
        ];
        for expires in times {
            let record = Record {
                value: Bytes::from_static(b"value"),
                expires,
            };
            let bytes = encode(b"key", &record);
            assert_eq!(decode(b"key", &bytes), Some(record.clone()));
            assert_eq!(value_bytes(bytes.len()), 5);
            assert_eq!(decode(b"kez", &bytes), None);
            for bit in 0..8 * bytes.len() {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(b"key", &bytes), None, "bit {bit}");
            }
            for len in 0..bytes.len() {
                assert_eq!(decode(b"key", &bytes[..len]), None, "cut to {len} bytes");
            }
        }
    }
}
