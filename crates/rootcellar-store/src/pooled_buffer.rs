//! Memory for what is read, used again and again.
//!
//! Large memory comes from the allocator zeroed and, after a while, cold; what is read into it writes it once more. So as much of it as a
//! busy server needs at a time is kept for the next who reads, the latest first: it may still be in the processor's cache.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Memory is kept in sizes of 32 KiB (what is smaller, an allocator has at hand), twice that, and so on up to 4 MiB.
const SMALLEST_BYTES: usize = 32 * 1024;
const SIZES: usize = 8;

/// Memory of each size that waits to be used, at most: 64 pieces of a stream, or one of the largest answers.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

static POOL: Pool = Pool::new();

/// Bytes in memory that goes back into a pool of the process when it is dropped.
///
/// What a new one holds means nothing: zeros, or what was read before, for somebody else.
pub struct PooledBuffer {
    memory: Vec<u8>,
    len: usize,
    pool: &'static Pool,
}

impl PooledBuffer {
    /// Memory of this length.
    pub fn new(len: usize) -> Self {
        Self::from_pool(len, &POOL)
    }

    fn from_pool(len: usize, pool: &'static Pool) -> Self {
        Self {
            memory: pool.take(len),
            len,
            pool,
        }
    }

    /// The bytes, to be shared. The memory goes back once nobody has any of them.
    pub fn freeze(mut self) -> Bytes {
        match size_for(self.len) {
            Some(_) => Bytes::from_owner(self),
            None => std::mem::take(&mut self.memory).into(),
        }
    }
}

impl Deref for PooledBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl DerefMut for PooledBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.memory));
    }
}

impl fmt::Debug for PooledBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBuffer")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Memory of each size that nobody uses.
struct Pool([Mutex<Vec<Vec<u8>>>; SIZES]);

impl Pool {
    const fn new() -> Self {
        Self([const { Mutex::new(Vec::new()) }; SIZES])
    }

    /// Memory of at least this length.
    fn take(&self, len: usize) -> Vec<u8> {
        let mut memory = match size_for(len) {
            Some(size) => {
                let kept = self.kept(size).pop();
                kept.unwrap_or_else(|| vec![0; SMALLEST_BYTES << size])
            }
            None => vec![0; len],
        };
        if cfg!(debug_assertions) {
            // So that a test finds who takes it for zeros, or sends it without having filled it.
            memory.fill(0xa5);
        }
        memory
    }

    /// Keeps memory that was taken, if there is room.
    fn put(&self, memory: Vec<u8>) {
        let Some(size) = size_for(memory.len()).filter(|size| memory.len() == SMALLEST_BYTES << size) else {
            return;
        };
        let mut kept = self.kept(size);
        if (kept.len() + 1) * memory.len() <= KEPT_BYTES_MAX {
            kept.push(memory);
        }
    }

    fn kept(&self, size: usize) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0[size].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn kept_bytes(&self) -> usize {
        (0..SIZES)
            .map(|size| self.kept(size).iter().map(Vec::len).sum::<usize>())
            .sum()
    }
}

/// The size in which memory of this length is kept; `None` if it is not.
fn size_for(len: usize) -> Option<usize> {
    if len <= SMALLEST_BYTES / 2 {
        return None;
    }
    (0..SIZES).find(|size| len <= SMALLEST_BYTES << size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn pool() -> &'static Pool {
        Box::leak(Box::new(Pool::new()))
    }

    #[test]
    fn memory_is_used_again_when_nobody_has_it() {
        let pool = pool();
        let mut buffer = PooledBuffer::from_pool(100_000, pool);
        buffer.fill(1);
        let address = buffer.as_ptr();
        let bytes = buffer.freeze();
        let part = bytes.slice(5..10);
        drop(bytes);
        assert_eq!(pool.kept_bytes(), 0, "{part:?} is still there");
        assert_eq!(&part[..], [1; 5]);
        drop(part);
        assert_eq!(pool.kept_bytes(), 128 * 1024);
        let again = PooledBuffer::from_pool(66_000, pool);
        assert_eq!((again.as_ptr(), again.len()), (address, 66_000));
        assert_eq!(pool.kept_bytes(), 0);
    }

    #[test]
    fn a_buffer_is_as_long_as_it_was_asked_for() {
        let pool = pool();
        for len in [
            0,
            1,
            16 * 1024,
            16 * 1024 + 1,
            32 * 1024,
            32 * 1024 + 1,
            4 * MIB,
            4 * MIB + 1,
        ] {
            for _ in 0..2 {
                let mut buffer = PooledBuffer::from_pool(len, pool);
                buffer.fill(2);
                assert_eq!(buffer.freeze(), vec![2; len]);
            }
        }
        // One of 32 KiB, for two lengths, one of 64 KiB, and one of 4 MiB.
        assert_eq!(pool.kept_bytes(), 4 * MIB + 96 * 1024);
    }

    #[test]
    fn little_is_kept_of_each_size() {
        let pool = pool();
        for len in [4 * MIB, 64 * 1024] {
            let many: Vec<_> = (0..100).map(|_| PooledBuffer::from_pool(len, pool)).collect();
            drop(many);
        }
        assert_eq!(pool.kept_bytes(), 2 * KEPT_BYTES_MAX);
    }
}
