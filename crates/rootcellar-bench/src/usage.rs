//! What something cost: processor time of all threads, and time on the clock.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What something cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all threads of this process, in the kernel and outside of it.
    pub cpu: Duration,
    /// Time on the clock.
    pub wall: Duration,
}

impl Usage {
    /// Runs `work`, and tells what it cost.
    pub fn of<T>(work: impl FnOnce() -> T) -> (T, Self) {
        let (cpu, wall) = (cpu_time(), Instant::now());
        let done = work();
        let usage = Self {
            wall: wall.elapsed(),
            cpu: cpu_time().saturating_sub(cpu),
        };
        (done, usage)
    }

    /// The cheapest of several runs of `work`, each made ready by `prepare`. Whatever else the machine does only adds to a run.
    pub fn least<S>(runs: usize, mut prepare: impl FnMut() -> S, mut work: impl FnMut(S)) -> Self {
        let mut least: Option<Self> = None;
        for _ in 0..runs {
            let ready = prepare();
            let ((), usage) = Self::of(|| work(ready));
            least = Some(least.map_or(usage, |least| Self {
                cpu: least.cpu.min(usage.cpu),
                wall: least.wall.min(usage.wall),
            }));
        }
        least.expect("at least one run")
    }
}

/// Touches so much memory and gives it back, for what comes next to find it there. The host of a virtual machine gives memory when it
/// is touched and takes it back when it is free for some seconds; a page cache that grows would pay for that, several times what
/// writing to it costs.
pub(crate) fn touch_memory(bytes: usize) {
    const PAGE_BYTES: usize = 4096;
    // What else is written meanwhile, and what is taken back before it is used.
    let mut memory = vec![0_u8; bytes + bytes / 4];
    memory.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 1);
    std::hint::black_box(&memory);
}

/// Has so much of the page cache ready for what another process is going to write: it writes a file in `dir` and removes it. Memory that a
/// program has touched does not serve: the cache takes its large pieces from elsewhere (1 GiB into files took 2.4 s behind
/// [`touch_memory`], and 0.2 s behind this).
///
/// A disk that is full is not told here: whoever writes next finds out.
pub(crate) fn touch_page_cache(dir: &Path, bytes: u64) {
    const PIECE_BYTES: usize = 1 << 20;
    let piece = vec![1; PIECE_BYTES];
    let touch = || {
        let mut file = tempfile::tempfile_in(dir)?;
        (0..bytes.div_ceil(PIECE_BYTES as u64)).try_for_each(|_| file.write_all(&piece))
    };
    let _is_whole = touch().is_ok();
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("processor time is not negative"),
        u32::try_from(time.tv_nsec).expect("nanoseconds are below a second"),
    )
}
