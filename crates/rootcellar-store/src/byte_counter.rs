//! A count of bytes that several owners share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts bytes that something keeps on disk, so that whoever bounds the sum can see them. Clones share one count.
#[derive(Debug, Clone, Default)]
pub struct ByteCounter(Arc<AtomicU64>);

impl ByteCounter {
    /// The bytes counted now.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Replaces the count, for an owner that measures what it keeps.
    pub fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// Begins a share of the count that goes with its owner.
    pub fn share(&self) -> Share {
        Share {
            counter: self.clone(),
            bytes: AtomicU64::new(0),
        }
    }
}

/// One owner's part of a [`ByteCounter`]: taken off again when it is dropped.
#[derive(Debug)]
pub struct Share {
    counter: ByteCounter,
    bytes: AtomicU64,
}

impl Share {
    /// The bytes of this owner.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts `bytes` more.
    pub fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counter.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts `bytes` less.
    pub fn subtract(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.counter.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Replaces this owner's part. For one thread at a time.
    pub fn set(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        if bytes >= before {
            self.counter.0.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            self.counter.0.fetch_sub(before - bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}
