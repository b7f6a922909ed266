//! The checksum by which stored bytes are known again: the lower half of XXH3-64.
//!
//! It finds damage, at memory speed. It is no defence against an attacker: for that, content is hashed.

use std::fmt;
use std::hash::Hasher as _;

use twox_hash::XxHash3_64;

/// The checksum of bytes in memory.
pub(crate) fn checksum(content: &[u8]) -> u32 {
    lower_half(XxHash3_64::oneshot(content))
}

/// The checksum of bytes, mixed with a seed.
pub(crate) fn checksum_with_seed(seed: u64, content: &[u8]) -> u32 {
    lower_half(XxHash3_64::oneshot_with_seed(seed, content))
}

/// All of the hash of bytes, mixed with a seed.
pub(crate) fn hash_with_seed(seed: u64, content: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, content)
}

/// All of the hash, to make a seed of.
pub(crate) fn seed_of(content: &[u8]) -> u64 {
    XxHash3_64::oneshot(content)
}

/// As [`checksum`], for content that comes in pieces.
#[derive(Clone, Default)]
pub(crate) struct Checksummer(XxHash3_64);

impl Checksummer {
    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.0.write(piece);
    }

    /// All of the hash of what came so far.
    pub(crate) fn hash(&self) -> u64 {
        self.0.finish()
    }

    pub(crate) fn finish(&self) -> u32 {
        lower_half(self.0.finish())
    }
}

impl fmt::Debug for Checksummer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checksummer")
    }
}

fn lower_half(hash: u64) -> u32 {
    u32::try_from(hash & u64::from(u32::MAX)).expect("32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Old stores depend on it. The values are those of the reference implementation (xxHash 0.8).
    #[test]
    fn it_is_the_lower_half_of_xxh3() {
        assert_eq!(seed_of(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(checksum(b""), 0x38d3_94c2);
        assert_eq!(checksum(b"a"), 0x1e96_4e1f);
    }

    #[test]
    fn pieces_make_the_same_as_the_whole() {
        let content: Vec<u8> = (0..5000_u32).map(|n| n.to_le_bytes()[0]).collect();
        for len in [0, 1, 200, 300, 5000] {
            let mut pieces = Checksummer::default();
            for piece in content[..len].chunks(77) {
                pieces.update(piece);
            }
            assert_eq!(pieces.finish(), checksum(&content[..len]), "{len} bytes");
        }
    }
}
