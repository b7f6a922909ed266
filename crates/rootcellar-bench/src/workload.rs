//! The blobs of one run.

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::Verified;

use crate::mix::Mix;
use crate::random::Random;

/// Blobs that a batch has at the most, as a client would send them.
const BATCH_BLOBS: usize = 1000;
const BATCH_BYTES: u64 = 4 << 20;

/// Blobs with a name for tables. They are in memory and hashed, so that storing them is all that a run pays for.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its name in tables.
    pub name: String,
    /// The blobs, all of them different.
    pub blobs: Vec<Verified>,
}

impl Workload {
    /// About `bytes` of a mix.
    pub fn of_mix(mix: &Mix, seed: u64, bytes: u64) -> Self {
        Self {
            name: mix.name.to_owned(),
            blobs: mix.blobs(seed, bytes),
        }
    }

    /// As many blobs of one size.
    pub fn uniform(seed: u64, size: u64, count: usize) -> Self {
        let mut random = Random::new(seed);
        let blob = |_| Verified::of(DigestFunction::Sha256, random.bytes(size));
        Self {
            name: format!("{count} x {size} B"),
            blobs: (0..count).map(blob).collect(),
        }
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.digest().size_bytes()).sum()
    }

    /// The blobs' names, in a random order.
    pub fn shuffled_digests(&self, seed: u64) -> Vec<Digest> {
        let mut digests: Vec<Digest> = self.blobs.iter().map(Verified::digest).collect();
        Random::new(seed).shuffle(&mut digests);
        digests
    }

    /// The blobs as a client would send them.
    pub fn batches(&self) -> Vec<Vec<Verified>> {
        let mut batches: Vec<Vec<Verified>> = Vec::new();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for blob in &self.blobs {
            let size = blob.digest().size_bytes();
            if !batch.is_empty() && (batch.len() == BATCH_BLOBS || bytes + size > BATCH_BYTES) {
                batches.push(std::mem::take(&mut batch));
                bytes = 0;
            }
            bytes += size;
            batch.push(blob.clone());
        }
        batches.extend((!batch.is_empty()).then_some(batch));
        batches
    }
}
