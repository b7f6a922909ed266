//! Clocks, and what the kernel says about its caches.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

/// Wall time, and the CPU time of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub wall: Duration,
    pub cpu: Duration,
}

impl Cost {
    /// Microseconds, wall and CPU, of one of `count`.
    pub fn each(self, count: usize) -> Each {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        Each {
            wall: each(self.wall),
            cpu: each(self.cpu),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Each {
    pub wall: f64,
    pub cpu: f64,
}

impl fmt::Display for Each {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ({:.1})", self.wall, self.cpu)
    }
}

pub fn cost<T>(work: impl FnOnce() -> T) -> (Cost, T) {
    let (wall, cpu) = (Instant::now(), cpu_time());
    let done = work();
    (
        Cost {
            wall: wall.elapsed(),
            cpu: cpu_time() - cpu,
        },
        done,
    )
}

/// The median of runs, by wall and by CPU on their own.
pub fn median(runs: &[Each]) -> Each {
    let middle = |pick: fn(&Each) -> f64| percentile(&mut runs.iter().map(pick).collect::<Vec<_>>(), 0.5);
    Each {
        wall: middle(|run| run.wall),
        cpu: middle(|run| run.cpu),
    }
}

pub fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

fn cpu_time() -> Duration {
    // SAFETY: the pointer is to a structure of the right type that outlives the call, and all zeros is a value of it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

pub fn drop_caches() {
    // SAFETY: no arguments.
    unsafe { libc::sync() };
    fs::write("/proc/sys/vm/drop_caches", "3").expect("run as root");
}

/// Bytes of a file in the page cache.
pub fn cached_bytes(file: &File) -> io::Result<u64> {
    let (range, mut found) = ([0_u64; 2], [0_u64; 5]);
    // SAFETY: cachestat(2) reads two numbers and writes five, and both arrays outlive the call.
    let done = unsafe { libc::syscall(451, file.as_raw_fd(), range.as_ptr(), found.as_mut_ptr(), 0) };
    if done == 0 {
        Ok(found[0] * 4096)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Bytes of the kernel's objects of some kinds, such as `dentry`.
pub fn slab_bytes(kinds: &[&str]) -> u64 {
    let text = fs::read_to_string("/proc/slabinfo").expect("run as root");
    let of = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_asked = kinds.contains(words.first()?);
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        is_asked.then_some(number(1)? * number(3)?)
    };
    text.lines().filter_map(of).sum()
}

/// How many extents a file has.
pub fn extents(file: &File) -> u32 {
    const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
    // start, length, flags and mapped, count and reserved
    let mut map = [0_u64, u64::MAX, 1, 0];
    // SAFETY: the header of a fiemap is 32 bytes; with a count of 0 nothing more is written.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, map.as_mut_ptr()) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    (map[2] >> 32) as u32
}
