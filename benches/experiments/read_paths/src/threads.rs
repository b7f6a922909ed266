//! Warm reads with one and two threads, and what a mapping costs that is made anew.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use rustix::io::ReadWriteFlags;
use rustix::mm::{MapFlags, ProtFlags};

use crate::path::Map;

const SPAN: usize = 256 << 20;

#[derive(Clone, Copy, Debug)]
enum Way {
    Pread,
    Nowait,
    MapKept,
    /// One record is mapped, copied and unmapped.
    MapEach,
    /// 32 reads in one call.
    Uring32,
}

/// Reads per second and thread, and the CPU time of one in ns.
pub fn run(name: &FilePath) -> io::Result<()> {
    let file = crate::prepare(name)?;
    let mut whole = vec![0; 1 << 20];
    for at in (0..SPAN).step_by(1 << 20) {
        file.read_exact_at(&mut whole, at as u64)?;
    }
    println!(
        "| size | way | 1 thread, 1000/s | ns CPU | 2 threads, 1000/s in all | ns CPU | \
         beside one that computes, 1000/s |"
    );
    println!("|---|---|---|---|---|---|---|");
    for size in [4 << 10, 64 << 10, 1 << 20] {
        for way in [Way::Pread, Way::Nowait, Way::MapKept, Way::MapEach, Way::Uring32] {
            let mut cells = Vec::new();
            for (threads, is_beside) in [(1, false), (2, false), (1, true)] {
                let mut runs: Vec<(f64, f64)> = (0..3)
                    .map(|_| measure(&file, way, size, threads, is_beside))
                    .collect::<io::Result<_>>()?;
                runs.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
                cells.push(runs[1]);
            }
            println!(
                "| {} KiB | {way:?} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
                size >> 10,
                cells[0].0,
                cells[0].1,
                cells[1].0,
                cells[1].1,
                cells[2].0,
            );
        }
    }
    Ok(())
}

fn measure(file: &File, way: Way, size: usize, threads: u64, is_beside: bool) -> io::Result<(f64, f64)> {
    let (start, cpu, is_over) = (Instant::now(), crate::cpu_time(), AtomicBool::new(false));
    let count = std::thread::scope(|scope| {
        if is_beside {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let spawn = |seed| scope.spawn(move || read_for(Duration::from_millis(400), file, way, size, seed));
        let readers: Vec<_> = (0..threads).map(spawn).collect();
        let counts: io::Result<Vec<u64>> = readers.into_iter().map(|one| one.join().expect("no panic")).collect();
        is_over.store(true, Ordering::Relaxed);
        counts.map(|counts| counts.iter().sum::<u64>())
    })?;
    let rate = count as f64 / start.elapsed().as_secs_f64() / 1e3;
    Ok((rate, (crate::cpu_time() - cpu).as_nanos() as f64 / count as f64))
}

fn read_for(time: Duration, file: &File, way: Way, size: usize, seed: u64) -> io::Result<u64> {
    let mut buffer = vec![0; size * if matches!(way, Way::Uring32) { 32 } else { 1 }];
    let kept = Map::new(file, SPAN)?;
    let mut ring = IoUring::new(64)?;
    let (mut count, mut state, start) = (0, seed + 1, Instant::now());
    let mut place = || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 20) % (SPAN / size) as u64 * size as u64
    };
    // The first pass over a mapping faults its pages in, which is not what is measured.
    if matches!(way, Way::MapKept) {
        let mut page = [0; 4096];
        (0..SPAN as u64).step_by(4096).for_each(|at| kept.copy(at, &mut page));
    }
    while start.elapsed() < time {
        match way {
            Way::Pread => file.read_exact_at(&mut buffer, place())?,
            Way::Nowait => {
                let at = place();
                let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut buffer)], at, ReadWriteFlags::NOWAIT);
                if read != Ok(size) {
                    file.read_exact_at(&mut buffer, at)?;
                }
            }
            Way::MapKept => kept.copy(place(), &mut buffer),
            Way::MapEach => map_each(file, place(), &mut buffer)?,
            Way::Uring32 => ring32(&mut ring, file, &mut buffer, size, &mut place)?,
        }
        count += if matches!(way, Way::Uring32) { 32 } else { 1 };
    }
    Ok(count)
}

fn map_each(file: &File, at: u64, buffer: &mut [u8]) -> io::Result<()> {
    let len = buffer.len();
    // SAFETY: a fresh mapping of `len` bytes within the file, of which `len` are copied before it goes.
    unsafe {
        let map = rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, at)?;
        std::ptr::copy_nonoverlapping(map.cast(), buffer.as_mut_ptr(), len);
        rustix::mm::munmap(map, len)?;
    }
    Ok(())
}

fn ring32(
    ring: &mut IoUring,
    file: &File,
    buffer: &mut [u8],
    size: usize,
    place: &mut impl FnMut() -> u64,
) -> io::Result<()> {
    for piece in buffer.chunks_mut(size) {
        let read = opcode::Read::new(types::Fd(file.as_raw_fd()), piece.as_mut_ptr(), size as u32).offset(place());
        // SAFETY: buffer and file outlive the call below, which waits for all of them.
        unsafe { ring.submission().push(&read.build()) }.expect("room for 64");
    }
    ring.submit_and_wait(32)?;
    for done in ring.completion() {
        assert_eq!(done.result(), size as i32);
    }
    Ok(())
}
