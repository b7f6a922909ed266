//! Blobs that no server has seen, for next to nothing.
//!
//! ```text
//!   a blob    [ beginning, the same for all of one kind ............ ][ salt, 8 bytes ][ number, 8 bytes ]
//! ```
//!
//! The beginning is hashed once, so the digest of another blob costs the hash of 16 bytes; and all of them share its memory. What a
//! server hands out is told right from wrong by its length, its first bytes and its number.

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction, Hasher};

use crate::random::Random;

/// What every blob here is named by: all servers know it.
pub(super) const FUNCTION: DigestFunction = DigestFunction::Sha256;
/// Bytes that make a blob another one.
const END_BYTES: usize = 16;
/// Bytes at the beginning that are looked at.
const HEAD_BYTES: usize = 16;
/// The smallest size: a head and an end.
pub const BLOB_BYTES_MIN: u64 = (HEAD_BYTES + END_BYTES) as u64;

/// Blobs of one size.
#[derive(Clone)]
pub(super) struct Contents {
    beginning: Bytes,
    /// Has seen the beginning.
    hasher: Hasher,
    salt: u64,
    next: u64,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) number: u64,
}

impl Contents {
    /// Blobs of `size` bytes, which is [`BLOB_BYTES_MIN`] or more.
    pub(super) fn new(size: u64, random: &mut Random) -> Self {
        let beginning = random.bytes(size.max(BLOB_BYTES_MIN) - END_BYTES as u64);
        let mut hasher = Hasher::new(FUNCTION, size);
        hasher.update(&beginning);
        Self {
            beginning,
            hasher,
            salt: random.number(),
            next: 0,
        }
    }

    /// The next blob.
    pub(super) fn blob(&mut self) -> Blob {
        let number = self.next;
        self.next += 1;
        let mut hasher = self.hasher.clone();
        hasher.update(&self.end(number));
        Blob {
            digest: hasher.finish().expect("this function takes any size"),
            number,
        }
    }

    pub(super) fn blobs(&mut self, count: usize) -> Vec<Blob> {
        (0..count).map(|_| self.blob()).collect()
    }

    /// The bytes of a blob in one piece.
    pub(super) fn whole(&self, blob: Blob) -> Bytes {
        let mut whole = Vec::with_capacity(self.beginning.len() + END_BYTES);
        whole.extend_from_slice(&self.beginning);
        whole.extend_from_slice(&self.end(blob.number));
        whole.into()
    }

    /// The bytes of a blob in pieces of `max` bytes. All but those of the end lie in memory only once for all blobs.
    pub(super) fn pieces(&self, blob: Blob, max: usize) -> Vec<Bytes> {
        let shared = self.beginning.len() / max * max;
        let mut pieces: Vec<Bytes> = (0..shared)
            .step_by(max)
            .map(|start| self.beginning.slice(start..start + max))
            .collect();
        let mut rest = self.beginning[shared..].to_vec();
        rest.extend_from_slice(&self.end(blob.number));
        let mut rest = Bytes::from(rest);
        while !rest.is_empty() {
            pieces.push(rest.split_to(max.min(rest.len())));
        }
        pieces
    }

    /// The first bytes of each blob, for [`Check`].
    pub(super) fn head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head.copy_from_slice(&self.beginning[..HEAD_BYTES]);
        head
    }

    fn end(&self, number: u64) -> [u8; END_BYTES] {
        let mut end = [0; END_BYTES];
        end[..8].copy_from_slice(&self.salt.to_le_bytes());
        end[8..].copy_from_slice(&number.to_le_bytes());
        end
    }
}

/// Looks at a blob as it comes, piece by piece, at next to no cost.
#[derive(Debug)]
pub(super) struct Check {
    head: [u8; HEAD_BYTES],
    head_differs: bool,
    bytes: u64,
    last: [u8; 8],
}

impl Check {
    pub(super) fn new(head: [u8; HEAD_BYTES]) -> Self {
        Self {
            head,
            head_differs: false,
            bytes: 0,
            last: [0; 8],
        }
    }

    pub(super) fn take(&mut self, piece: &[u8]) {
        if let Some(expected) = usize::try_from(self.bytes)
            .ok()
            .and_then(|start| self.head.get(start..))
        {
            self.head_differs |= expected.iter().zip(piece).any(|(expected, found)| expected != found);
        }
        self.bytes += piece.len() as u64;
        let kept = piece.len().min(self.last.len());
        self.last.rotate_left(kept);
        let from = self.last.len() - kept;
        self.last[from..].copy_from_slice(&piece[piece.len() - kept..]);
    }

    /// Bytes that came.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of the blob that this is, if it is one of its kind.
    pub(super) fn number(&self) -> Option<u64> {
        (!self.head_differs && self.bytes >= BLOB_BYTES_MIN).then(|| u64::from_le_bytes(self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_what_their_digests_say_and_all_different() {
        let mut contents = Contents::new(1000, &mut Random::new(1));
        let blobs = contents.blobs(3);
        for blob in &blobs {
            let whole = contents.whole(*blob);
            assert_eq!(whole.len(), 1000);
            assert_eq!(Digest::of(FUNCTION, &whole), blob.digest);
        }
        assert_ne!(blobs[0].digest, blobs[1].digest);
        let other = Contents::new(1000, &mut Random::new(2)).blob();
        assert_ne!(other.digest, blobs[0].digest);
    }

    #[test]
    fn pieces_of_any_size_make_the_whole() {
        for size in [BLOB_BYTES_MIN, 100, 999, 1000] {
            let mut contents = Contents::new(size, &mut Random::new(3));
            let blob = contents.blob();
            for max in [1, 7, 10, 984, 1000, 5000] {
                let pieces = contents.pieces(blob, max);
                assert!(pieces.iter().all(|piece| piece.len() <= max), "{size} {max}");
                assert_eq!(pieces.concat(), contents.whole(blob), "{size} {max}");
            }
        }
    }

    #[test]
    fn a_check_knows_a_blob_from_a_wrong_one() {
        let mut contents = Contents::new(300, &mut Random::new(4));
        let blob = contents.blobs(9)[8];
        for max in [1, 5, 13, 299, 300] {
            let mut check = Check::new(contents.head());
            contents.pieces(blob, max).iter().for_each(|piece| check.take(piece));
            assert_eq!((check.bytes(), check.number()), (300, Some(8)), "{max}");
        }
        let mut zeros = Check::new(contents.head());
        zeros.take(&[0; 300]);
        assert_eq!(zeros.number(), None);
    }
}
