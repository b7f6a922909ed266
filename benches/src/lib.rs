//! Workloads that the benchmarks share: the sizes that builds are made of, and content that does not compress.

/// Sizes of blobs: an almost empty file, a source file, an object file, an archive.
pub const BLOB_SIZES: [usize; 4] = [64, 4 * 1024, 128 * 1024, 16 * 1024 * 1024];

/// `len` bytes that look random and are the same for the same `seed` (xorshift64*).
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_depends_on_its_seed_alone() {
        assert_eq!(content(7, 1000), content(7, 1000));
        assert_ne!(content(7, 1000), content(8, 1000));
        assert_eq!(content(1, 13).len(), 13);
    }
}
