//! Content that looks random and is the same for the same seed.

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};

use crate::{Spool, Verified};

/// Makes numbers and contents from a seed (the SplitMix64 sequence: Steele, Lea, Flood, OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct Seeded(u64);

/// Content reaches a spool in pieces of this size: no divisor of anything.
const PIECE_BYTES: usize = 60_013;

impl Seeded {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number of the sequence.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number, brought below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Bytes {
        let mut content = Vec::with_capacity(len + 8);
        while content.len() < len {
            content.extend_from_slice(&self.number().to_le_bytes());
        }
        content.truncate(len);
        content.into()
    }

    /// The next `len` bytes as a blob in memory.
    pub fn blob(&mut self, function: DigestFunction, len: usize) -> Verified {
        Verified::of(function, self.bytes(len))
    }

    /// The next `len` bytes as a blob that `spool` ingested: a file, if the spool does not keep so many in memory.
    pub async fn ingested(&mut self, spool: &Spool, function: DigestFunction, len: usize) -> Verified {
        let content = self.bytes(len);
        let mut ingest = spool.ingest(Digest::of(function, &content)).unwrap();
        for at in (0..len).step_by(PIECE_BYTES) {
            let piece = content.slice(at..len.min(at + PIECE_BYTES));
            ingest.write(piece).await.unwrap();
        }
        ingest.finish().unwrap()
    }
}
