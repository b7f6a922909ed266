//! What something cost: processor time of all threads, and time on the clock.

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

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("processor time is not negative"),
        u32::try_from(time.tv_nsec).expect("nanoseconds are below a second"),
    )
}
