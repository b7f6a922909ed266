//! The content of a directory: blocks, each a list of entries and then their names.
//!
//! ```text
//!   entry, 12 bytes    0  8  number of the inode
//!                      8  2  where in the block its name begins; of the first entry, this tells how many there are
//!                     10  1  type
//!                     11  1  zero
//! ```
//!
//! A name ends where the next one begins, or at a zero byte. All are in the order of their bytes, `.` and `..` among them, so that the
//! kernel can search for one.

use super::format::{Field, Type};

const ENTRY_BYTES: usize = 12;

/// An entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) inode: u64,
    pub(super) kind: Type,
}

/// How many bytes names take as a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measure {
    block_bytes: usize,
    whole_blocks: usize,
    in_last: usize,
}

impl Measure {
    pub(super) fn new(block_bytes: usize) -> Self {
        Self {
            block_bytes,
            whole_blocks: 0,
            in_last: 0,
        }
    }

    /// Adds a name, in the order in which they are to be.
    pub(super) fn add(&mut self, name: &str) {
        let bytes = ENTRY_BYTES + name.len();
        if self.in_last + bytes > self.block_bytes {
            self.whole_blocks += 1;
            self.in_last = 0;
        }
        self.in_last += bytes;
    }

    pub(super) fn bytes(self) -> usize {
        self.whole_blocks * self.block_bytes + self.in_last
    }
}

/// Writes a directory into `bytes`, which is empty. The entries are in the order of their names.
pub(super) fn encode(entries: &[Named<'_>], block_bytes: usize, bytes: &mut Vec<u8>) {
    let mut rest = entries;
    while !rest.is_empty() {
        let (block, later) = rest.split_at(fitting(rest, block_bytes));
        encode_block(block, bytes);
        if !later.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(block_bytes), 0);
        }
        rest = later;
    }
}

/// How many entries a block takes.
fn fitting(entries: &[Named<'_>], block_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Named<'_>| {
        bytes += ENTRY_BYTES + entry.name.len();
        bytes <= block_bytes
    };
    entries.iter().take_while(fits).count()
}

fn encode_block(entries: &[Named<'_>], bytes: &mut Vec<u8>) {
    let mut name_at = entries.len() * ENTRY_BYTES;
    for entry in entries {
        let mut encoded = [0; ENTRY_BYTES];
        Field(&mut encoded)
            .u64(0, entry.inode)
            .u16(8, u16::try_from(name_at).expect("within a block"))
            .u8(10, entry.kind.in_directory());
        bytes.extend_from_slice(&encoded);
        name_at += entry.name.len();
    }
    entries
        .iter()
        .for_each(|entry| bytes.extend_from_slice(entry.name.as_bytes()));
}
