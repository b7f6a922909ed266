//! Maps and sets of digests, hashed in a few nanoseconds.
//!
//! A digest's hash is random already. A secret of this process keeps those who choose contents from choosing collisions.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use crate::Digest;

/// A map from digests.
pub type DigestMap<V> = HashMap<Digest, V, Secret>;
/// A set of digests.
pub type DigestSet = HashSet<Digest, Secret>;

/// Makes hashers that know the process's secret: `DigestMap::default()` has one.
#[derive(Debug, Clone, Copy)]
pub struct Secret(u64);

impl Default for Secret {
    fn default() -> Self {
        static SECRET: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0_u64));
        Self(*SECRET)
    }
}

impl BuildHasher for Secret {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(self.0)
    }
}

/// Folds the first bytes of what it is shown into the secret.
#[derive(Debug, Clone, Copy)]
pub struct Folded(u64);

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = fold(self.0 ^ u64::from_le_bytes(*first));
        }
    }

    // The size, and the number of the function: neither tells digests apart that the hash does not.
    fn write_u64(&mut self, _number: u64) {}
    fn write_isize(&mut self, _number: isize) {}
    fn write_usize(&mut self, _number: usize) {}

    fn finish(&self) -> u64 {
        fold(self.0)
    }
}

/// Multiplies by an odd number without structure, and folds the halves of the product together.
pub fn fold(number: u64) -> u64 {
    const FACTOR: u128 = 0x9e37_79b9_7f4a_7c15;
    let product = (u128::from(number) * FACTOR).to_le_bytes();
    let (low, high) = product.split_at(8);
    let half = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    half(low) ^ half(high)
}
