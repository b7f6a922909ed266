//! The ways to read a record, each as it would be used on an async thread.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

const ALIGN: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Copied out of a mapping, on the async thread.
    Mmap,
    /// The same, and the kernel is told not to read ahead.
    MmapRandom,
    /// `preadv2(RWF_NOWAIT)` on the async thread, and if that says no, `pread` on the pool. What is built.
    NowaitPool,
    /// `pread` on the pool.
    Pool,
    /// io_uring, completions by polling its descriptor.
    Uring,
    /// `pread` on the pool with `O_DIRECT`.
    DirectPool,
    /// io_uring with `O_DIRECT`.
    DirectUring,
}

pub const ALL: [Path; 7] = [
    Path::Mmap,
    Path::MmapRandom,
    Path::NowaitPool,
    Path::Pool,
    Path::Uring,
    Path::DirectPool,
    Path::DirectUring,
];

/// A mapping of a whole file.
pub struct Map {
    pub at: *mut u8,
    len: usize,
}

impl Map {
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses the address; nothing of ours lies there.
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
        Ok(Self { at: at.cast(), len })
    }

    fn advise(&self, advice: Advice) -> io::Result<()> {
        // SAFETY: the range is the mapping's own; the advice changes no byte.
        unsafe { rustix::mm::madvise(self.at.cast(), self.len, advice)? };
        Ok(())
    }

    pub fn copy(&self, at: u64, buffer: &mut [u8]) {
        assert!(at as usize + buffer.len() <= self.len);
        // SAFETY: within the mapping, which lives as long as `self`; nobody cuts the file while this runs.
        unsafe { std::ptr::copy_nonoverlapping(self.at.add(at as usize), buffer.as_mut_ptr(), buffer.len()) };
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from the mapping.
        let unmapped = unsafe { rustix::mm::munmap(self.at.cast(), self.len) };
        unmapped.expect("a mapping of ours");
    }
}

/// A file with what a path needs to read it.
pub struct Reader {
    path: Path,
    file: Arc<File>,
    map: Option<Map>,
    ring: Option<AsyncFd<IoUring>>,
    turns: Arc<Semaphore>,
    buffer: Vec<u8>,
}

fn pollable(ring: IoUring) -> io::Result<AsyncFd<IoUring>> {
    // SAFETY: the ring's descriptor stays the same, and open, for as long as the `AsyncFd` owns the ring.
    let polled = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    polled.map_err(io::Error::other)
}

/// How one read went.
pub struct Outcome {
    pub took: Duration,
    /// For how long the async thread could do nothing else.
    pub blocked: Duration,
    /// Whether the bytes were there at once.
    pub is_hit: bool,
}

impl Reader {
    /// Inside of a runtime.
    pub fn open(path: Path, name: &FilePath, len: usize) -> io::Result<Self> {
        let is_direct = matches!(path, Path::DirectPool | Path::DirectUring);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(if is_direct { libc::O_DIRECT } else { 0 })
            .open(name)?;
        let is_mapped = matches!(path, Path::Mmap | Path::MmapRandom);
        let map = if is_mapped { Some(Map::new(&file, len)?) } else { None };
        if path == Path::MmapRandom {
            map.as_ref().expect("mapped above").advise(Advice::Random)?;
        }
        let is_ring = matches!(path, Path::Uring | Path::DirectUring);
        let ring = if is_ring {
            Some(pollable(IoUring::new(8)?)?)
        } else {
            None
        };
        let (turns, buffer) = (Arc::new(Semaphore::new(4)), vec![0; (1 << 20) + ALIGN]);
        Ok(Self {
            path,
            file: Arc::new(file),
            map,
            ring,
            turns,
            buffer,
        })
    }

    /// Reads a record whose size is a multiple of 4 KiB.
    pub async fn read(&mut self, at: u64, len: usize) -> io::Result<Outcome> {
        let start = Instant::now();
        match self.path {
            Path::Mmap | Path::MmapRandom => {
                self.map
                    .as_ref()
                    .expect("mapped at open")
                    .copy(at, &mut self.buffer[..len]);
                let took = start.elapsed();
                Ok(Outcome {
                    took,
                    blocked: took,
                    is_hit: true,
                })
            }
            Path::NowaitPool => {
                let into = &mut [IoSliceMut::new(&mut self.buffer[..len])];
                let read = rustix::io::preadv2(&*self.file, into, at, ReadWriteFlags::NOWAIT);
                let blocked = start.elapsed();
                match read {
                    Ok(read) if read == len => {
                        return Ok(Outcome {
                            took: blocked,
                            blocked,
                            is_hit: true,
                        });
                    }
                    Ok(_) | Err(Errno::AGAIN) => {}
                    Err(error) => return Err(error.into()),
                }
                self.on_pool(at, len).await?;
                Ok(Outcome {
                    took: start.elapsed(),
                    blocked,
                    is_hit: false,
                })
            }
            Path::Pool | Path::DirectPool => {
                self.on_pool(at, len).await?;
                Ok(Outcome {
                    took: start.elapsed(),
                    blocked: Duration::ZERO,
                    is_hit: false,
                })
            }
            Path::Uring | Path::DirectUring => {
                let blocked = self.on_ring(at, len).await?;
                Ok(Outcome {
                    took: start.elapsed(),
                    blocked,
                    is_hit: false,
                })
            }
        }
    }

    async fn on_pool(&mut self, at: u64, len: usize) -> io::Result<()> {
        let turn = self.turns.clone().acquire_owned().await.expect("never closed");
        let (file, mut buffer) = (self.file.clone(), std::mem::take(&mut self.buffer));
        let job = move || {
            let start = buffer.as_ptr().align_offset(ALIGN);
            let read = file.read_exact_at(&mut buffer[start..start + len], at);
            drop(turn);
            (buffer, read)
        };
        let (buffer, read) = tokio::task::spawn_blocking(job).await.expect("reads do not panic");
        self.buffer = buffer;
        read
    }

    async fn on_ring(&mut self, at: u64, len: usize) -> io::Result<Duration> {
        let start = Instant::now();
        let into = {
            let start = self.buffer.as_ptr().align_offset(ALIGN);
            self.buffer[start..].as_mut_ptr()
        };
        let file = types::Fd(self.file.as_raw_fd());
        let read = opcode::Read::new(file, into, u32::try_from(len).expect("at most 1 MiB"))
            .offset(at)
            .build();
        let ring = self.ring.as_mut().expect("made at open").get_mut();
        // SAFETY: the buffer and the file live until the completion is taken below; nobody else uses the buffer.
        unsafe { ring.submission().push(&read) }.expect("one at a time");
        ring.submit()?;
        let blocked = start.elapsed();
        loop {
            let mut ready = None;
            let ring = self.ring.as_mut().expect("made at open");
            if ring.get_mut().completion().is_empty() {
                ready = Some(ring.readable_mut().await?);
            }
            if let Some(mut ready) = ready {
                ready.clear_ready();
            }
            let Some(done) = ring.get_mut().completion().next() else {
                continue;
            };
            return match done.result() {
                read if read == len as i32 => Ok(blocked),
                read if read >= 0 => Err(io::ErrorKind::UnexpectedEof.into()),
                error => Err(io::Error::from_raw_os_error(-error)),
            };
        }
    }
}
