//! What a log holds, byte by byte. All numbers are little-endian.
//!
//! ```text
//! header, 64 bytes
//!    0  8  "rootclog"
//!    8  2  version, 1
//!   10  1  what the log is of: 1 a pack, 2 loose blobs
//!   11  1  1 if its writer acknowledges only what is durable, else 0
//!   12  4  check: XXH3-64 of these 64 bytes with this field zero, its lower half
//!   16  4  number of the pack or of the log
//!   20  4  zero
//!   24 16  id of the store
//!   40 16  boot id of the machine that writes it
//!   56  8  zero
//!
//! then slots of 32 bytes. One that begins with a zero byte is empty.
//!
//! stored, or gone: 2 slots, or 3 if the hash has more than 32 bytes
//!    0  1  kind: 1 stored, 2 gone
//!    1  1  digest function: 1 SHA-256, 2 BLAKE3, 3 SHA-1, 4 MD5, 5 SHA-384, 6 SHA-512, 7 SHA256TREE, 8 GITSHA1
//!    2  2  zero
//!    4  4  check
//!    8  8  size of the blob
//!   16  4  place: the 512-byte sector of the pack where it begins, or the number in its file's name
//!   20  4  checksum of the blob: XXH3-64, its lower half
//!   24  4  when it was used last, in ticks of the store
//!   28  4  zero
//!   32     the hash, padded with zeros to 32 or 64 bytes
//!
//! mark: 1 slot
//!    0  1  kind: 3
//!    1  3  zero
//!    4  4  check
//!    8  8  position in this log: what slots before it say, and what they speak of, is durable
//!   16 16  zero
//! ```
//!
//! `check` is the lower half of XXH3-64 over the slots of the entry with the field zero. Its seed is XXH3-64 of the store's id, the
//! kind and the number (21 bytes), plus the entry's position: an entry counts only where it was written, in the log it was
//! written to. The header is not part of it, so that a damaged one costs nothing but the boot id.

use rootcellar_digest::{Digest, DigestFunction};

use crate::checksum::{checksum, checksum_with_seed, seed_of};
use crate::io::BootId;
use crate::layout::StoreId;

pub(super) const HEADER_BYTES: usize = 64;
pub(super) const SLOT_BYTES: usize = 32;
/// The longest entry: three slots.
pub(crate) const ENTRY_BYTES_MAX: usize = 3 * SLOT_BYTES;

const MAGIC: &[u8; 8] = b"rootclog";
const VERSION: u16 = 1;
const HEADER_CHECK_AT: usize = 12;
const CHECK_AT: usize = 4;

const STORED: u8 = 1;
const GONE: u8 = 2;
const MARK: u8 = 3;

/// What a log is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogKind {
    Pack,
    Loose,
}

impl LogKind {
    const fn number(self) -> u8 {
        match self {
            Self::Pack => 1,
            Self::Loose => 2,
        }
    }
}

/// The beginning of a log: whose it is, and who writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: LogKind,
    /// Whether its writer acknowledges what is durable, and only that.
    pub(crate) is_synced: bool,
    pub(crate) number: u32,
    pub(crate) store: StoreId,
    pub(crate) boot: BootId,
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// It was never written whole, or it was damaged.
    Unreadable,
    /// It is of a version that this program does not know.
    Version(u16),
    /// It belongs to another store, or to another place in this one.
    Foreign,
}

/// A blob in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobEntry {
    pub(crate) digest: Digest,
    pub(crate) offset: u32,
    pub(crate) checksum: u32,
    pub(crate) used: u32,
}

/// What slots say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Stored(BlobEntry),
    Gone(BlobEntry),
    Mark { position: u64 },
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10] = self.kind.number();
        bytes[11] = u8::from(self.is_synced);
        bytes[16..20].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.store.0);
        bytes[40..56].copy_from_slice(&self.boot.0);
        let check = checksum(&bytes);
        bytes[HEADER_CHECK_AT..HEADER_CHECK_AT + 4].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads the header of log `number` of `kind` in `store`.
    pub(crate) fn decode(
        bytes: &[u8; HEADER_BYTES],
        kind: LogKind,
        number: u32,
        store: StoreId,
    ) -> Result<Self, HeaderFault> {
        if bytes[..8] != *MAGIC {
            return Err(HeaderFault::Unreadable);
        }
        // Before anything that it says is believed.
        let mut zeroed = *bytes;
        zeroed[HEADER_CHECK_AT..HEADER_CHECK_AT + 4].fill(0);
        if bytes[HEADER_CHECK_AT..HEADER_CHECK_AT + 4] != checksum(&zeroed).to_le_bytes() {
            return Err(HeaderFault::Unreadable);
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        let header = Self {
            kind,
            is_synced: bytes[11] != 0,
            number,
            store,
            boot: BootId(*bytes[40..].first_chunk().expect("16 bytes and more")),
        };
        if bytes[16..20] != number.to_le_bytes() || bytes[24..40] != store.0 {
            return Err(HeaderFault::Foreign);
        }
        if header.encode() != *bytes {
            return Err(HeaderFault::Unreadable);
        }
        Ok(header)
    }
}

/// What the checks of a log's entries begin with.
pub(super) fn seed(kind: LogKind, number: u32, store: StoreId) -> u64 {
    let mut name = [0; 21];
    name[..16].copy_from_slice(&store.0);
    name[16] = kind.number();
    name[17..].copy_from_slice(&number.to_le_bytes());
    seed_of(&name)
}

impl Entry {
    /// Appends the entry's slots. They will lie at `position`.
    pub(crate) fn encode(&self, seed: u64, position: u64, into: &mut Vec<u8>) {
        let start = into.len();
        match self {
            Self::Stored(blob) => encode_blob(STORED, blob, into),
            Self::Gone(blob) => encode_blob(GONE, blob, into),
            Self::Mark { position } => {
                into.extend_from_slice(&[MARK, 0, 0, 0, 0, 0, 0, 0]);
                into.extend_from_slice(&position.to_le_bytes());
                into.extend_from_slice(&[0; 16]);
            }
        }
        let check = check(seed, position, &into[start..]);
        into[start + CHECK_AT..start + CHECK_AT + 4].copy_from_slice(&check.to_le_bytes());
    }

    /// Reads the entry that `bytes` begin with, and tells its length. `None` if they begin with none that is whole.
    pub(crate) fn decode(seed: u64, position: u64, bytes: &[u8]) -> Option<(Self, usize)> {
        let (entry, len) = match *bytes.first()? {
            kind @ (STORED | GONE) => {
                let blob = decode_blob(bytes)?;
                let entry = if kind == STORED {
                    Self::Stored(blob)
                } else {
                    Self::Gone(blob)
                };
                (entry, blob_len(blob.digest.function()))
            }
            MARK => {
                let position = u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
                (Self::Mark { position }, SLOT_BYTES)
            }
            _ => return None,
        };
        let (found, mut slots) = (bytes.get(..len)?, [0; ENTRY_BYTES_MAX]);
        slots[..len].copy_from_slice(found);
        slots[CHECK_AT..CHECK_AT + 4].fill(0);
        let check = check(seed, position, &slots[..len]).to_le_bytes();
        (found[CHECK_AT..CHECK_AT + 4] == check).then_some((entry, len))
    }
}

fn encode_blob(kind: u8, blob: &BlobEntry, into: &mut Vec<u8>) {
    let function = blob.digest.function();
    let start = into.len();
    into.extend_from_slice(&[kind, function_number(function), 0, 0, 0, 0, 0, 0]);
    into.extend_from_slice(&blob.digest.size_bytes().to_le_bytes());
    for number in [blob.offset, blob.checksum, blob.used, 0] {
        into.extend_from_slice(&number.to_le_bytes());
    }
    into.extend_from_slice(blob.digest.hash());
    into.resize(start + blob_len(function), 0);
}

fn decode_blob(bytes: &[u8]) -> Option<BlobEntry> {
    let function = function_of(*bytes.get(1)?)?;
    let bytes = bytes.get(..blob_len(function))?;
    let number = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("an entry is longer"));
    let size = u64::from_le_bytes(*bytes[8..].first_chunk().expect("an entry is longer"));
    let hash = &bytes[SLOT_BYTES..SLOT_BYTES + function.hash_len()];
    Some(BlobEntry {
        digest: Digest::new(function, hash, size).ok()?,
        offset: number(16),
        checksum: number(20),
        used: number(24),
    })
}

/// Bytes of an entry about a blob.
pub(crate) const fn entry_bytes(function: DigestFunction) -> u64 {
    blob_len(function) as u64
}

const fn blob_len(function: DigestFunction) -> usize {
    SLOT_BYTES + function.hash_len().next_multiple_of(SLOT_BYTES)
}

const _: () = assert!(blob_len(DigestFunction::Sha256) == 64 && blob_len(DigestFunction::Sha512) == ENTRY_BYTES_MAX);

fn check(seed: u64, position: u64, slots: &[u8]) -> u32 {
    checksum_with_seed(seed.wrapping_add(position), slots)
}

/// The number that a function has on the disk, whatever becomes of the order in which the program knows them.
pub(crate) const fn function_number(function: DigestFunction) -> u8 {
    match function {
        DigestFunction::Sha256 => 1,
        DigestFunction::Blake3 => 2,
        DigestFunction::Sha1 => 3,
        DigestFunction::Md5 => 4,
        DigestFunction::Sha384 => 5,
        DigestFunction::Sha512 => 6,
        DigestFunction::Sha256Tree => 7,
        DigestFunction::GitSha1 => 8,
    }
}

/// The function with a number.
pub(crate) fn function_of(number: u8) -> Option<DigestFunction> {
    DigestFunction::ALL
        .into_iter()
        .find(|function| function_number(*function) == number)
}
