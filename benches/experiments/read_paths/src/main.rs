//! Measures ways to read a stored record. One subcommand a table; README.md has them all.

mod faults;
mod path;
mod threads;

use std::fs::File;
use std::io;
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use path::{ALL, Outcome, Path, Reader};

const FILE_BYTES: usize = 2 << 30;
/// One record lies in each, so that reading one ahead does not bring the next.
const SLOT_BYTES: usize = 4 << 20;
const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().expect("a subcommand: see README.md");
    let name = arguments.next().expect("a file, or for `faults` a directory");
    let name = FilePath::new(&name);
    match &*what {
        "cold" => cold(name),
        "warm" => warm(name),
        "threads" => threads::run(name),
        "misses" => misses(name),
        "faults" => faults::run(name),
        "memory" => memory(name),
        other => panic!("no subcommand {other}: see README.md"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("a runtime")
}

/// A file of 2 GiB that does not compress and is on the disk; a block device is taken as it is.
fn prepare(name: &FilePath) -> io::Result<File> {
    use std::io::{Seek as _, Write as _};
    use std::os::unix::fs::FileTypeExt as _;
    let is_device = std::fs::metadata(name).is_ok_and(|status| status.file_type().is_block_device());
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(name)?;
    if !is_device && file.metadata()?.len() < FILE_BYTES as u64 {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 13).to_le_bytes()
        };
        let piece: Vec<u8> = std::iter::repeat_with(&mut next).flatten().take(SLOT_BYTES).collect();
        file.rewind()?;
        for _ in 0..FILE_BYTES / SLOT_BYTES {
            file.write_all(&piece)?;
        }
    }
    file.sync_all()?;
    Ok(file)
}

fn forget(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Where records are, in a random order.
fn places(seed: u64) -> Vec<u64> {
    let mut slots: Vec<u64> = (0..(FILE_BYTES / SLOT_BYTES) as u64)
        .map(|slot| slot * SLOT_BYTES as u64)
        .collect();
    let mut state = seed | 1;
    for end in (1..slots.len()).rev() {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        slots.swap(end, (state >> 33) as usize % (end + 1));
    }
    slots
}

fn part(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * part).round() as usize].as_secs_f64() * 1e6
}

fn usage(who: libc::c_int) -> libc::rusage {
    // SAFETY: the pointer is to a structure of the right type that outlives the call, and all zeros is a value of it.
    unsafe {
        let mut usage = std::mem::zeroed();
        libc::getrusage(who, &mut usage);
        usage
    }
}

pub fn cpu_time() -> Duration {
    let usage = usage(libc::RUSAGE_SELF);
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn voluntary_switches() -> i64 {
    usage(libc::RUSAGE_THREAD).ru_nvcsw
}

fn cold(name: &FilePath) -> io::Result<()> {
    let file = prepare(name)?;
    println!("us; {} reads in 3 runs\n", 3 * FILE_BYTES / SLOT_BYTES);
    println!("| size | path | p50 | p99 | blocked p50 | p99 | max | CPU | read from disk, KiB | hits |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for size in SIZES {
        for path in ALL {
            let (mut outcomes, mut cpu, mut disk) = (Vec::new(), Duration::ZERO, 0);
            for run in 0..3 {
                forget(&file)?;
                let (start, read) = (cpu_time(), disk_reads());
                runtime().block_on(async {
                    let mut reader = Reader::open(path, name, FILE_BYTES)?;
                    for at in places(run * 3 + size as u64) {
                        outcomes.push(reader.read(at + (at >> 22) % 64 * 4096, size).await?);
                    }
                    io::Result::Ok(())
                })?;
                cpu += cpu_time() - start;
                disk += disk_reads() - read;
            }
            print_cold(size, path, &outcomes, cpu, disk);
        }
    }
    Ok(())
}

fn print_cold(size: usize, path: Path, outcomes: &[Outcome], cpu: Duration, disk: u64) {
    let count = outcomes.len();
    let mut took: Vec<Duration> = outcomes.iter().map(|outcome| outcome.took).collect();
    let mut blocked: Vec<Duration> = outcomes.iter().map(|outcome| outcome.blocked).collect();
    let is_mapped = matches!(path, Path::Mmap | Path::MmapRandom);
    let hits = outcomes.iter().filter(|outcome| outcome.is_hit && !is_mapped).count();
    println!(
        "| {} KiB | {path:?} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} | {:.1} | {} | {hits} |",
        size >> 10,
        part(&mut took, 0.5),
        part(&mut took, 0.99),
        part(&mut blocked, 0.5),
        part(&mut blocked, 0.99),
        part(&mut blocked, 1.0),
        cpu.as_secs_f64() * 1e6 / count as f64,
        disk / 1024 / count as u64,
    );
}

/// Bytes that this process had read from disks.
fn disk_reads() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").expect("there on Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).expect("a number")
}

fn warm(name: &FilePath) -> io::Result<()> {
    let file = prepare(name)?;
    println!("ns per read, medians of 5 runs\n\n| size | path | wall | CPU |\n|---|---|---|---|");
    for size in SIZES {
        for path in ALL {
            let mut runs: Vec<(u128, u128)> = (0..5)
                .map(|run| warm_run(&file, name, path, size, run))
                .collect::<io::Result<_>>()?;
            runs.sort_unstable();
            let mut cpu: Vec<u128> = runs.iter().map(|run| run.1).collect();
            cpu.sort_unstable();
            println!("| {} KiB | {path:?} | {} | {} |", size >> 10, runs[2].0, cpu[2]);
        }
    }
    Ok(())
}

fn warm_run(file: &File, name: &FilePath, path: Path, size: usize, seed: u64) -> io::Result<(u128, u128)> {
    use std::os::unix::fs::FileExt as _;
    const SPAN: usize = 256 << 20;
    let mut whole = vec![0; 1 << 20];
    for at in (0..SPAN).step_by(1 << 20) {
        file.read_exact_at(&mut whole, at as u64)?;
    }
    let count = (SPAN / size).min(4096);
    let mut state = seed;
    let mut place = || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 20) % (SPAN / size) as u64 * size as u64
    };
    let places: Vec<u64> = (0..count).map(|_| place()).collect();
    runtime().block_on(async {
        let mut reader = Reader::open(path, name, FILE_BYTES)?;
        // Faults the pages of a mapping in.
        for at in &places {
            reader.read(*at, size).await?;
        }
        let (start, cpu) = (Instant::now(), cpu_time());
        for at in &places {
            reader.read(*at, size).await?;
        }
        Ok((
            start.elapsed().as_nanos() / count as u128,
            (cpu_time() - cpu).as_nanos() / count as u128,
        ))
    })
}

/// How long `preadv2(RWF_NOWAIT)` itself takes when it has to say no, and whether it starts to read.
fn misses(name: &FilePath) -> io::Result<()> {
    let file = prepare(name)?;
    println!(
        "| calls | misses | p50, us | p99 | p99.9 | max | above 100 us, % | slept, % | p50 of those, us | \
         there 2 ms later, % |\n|---|---|---|---|---|---|---|---|---|---|"
    );
    for (label, burst) in [
        ("back to back", usize::MAX),
        ("bursts of 192", 192),
        ("bursts of 64", 64),
        ("one at a time", 1),
    ] {
        let (mut times, mut slept, mut there, mut asked) = (Vec::new(), Vec::new(), 0, 0);
        for run in 0..10 {
            // What is still being read cannot be forgotten.
            std::thread::sleep(Duration::from_millis(200));
            forget(&file)?;
            for (number, at) in places(run).into_iter().enumerate() {
                let (is_hit, took, is_asleep) = nowait(&file, at)?;
                if !is_hit {
                    times.push(took);
                    slept.extend(is_asleep.then_some(took));
                }
                if number % burst == burst - 1 {
                    std::thread::sleep(Duration::from_millis(if burst > 1 { 20 } else { 2 }));
                    asked += 1;
                    there += u32::from(nowait(&file, at)?.0);
                }
            }
        }
        let percent = |part: usize, whole: usize| part as f64 * 100.0 / whole as f64;
        let slow = times.iter().filter(|time| **time > Duration::from_micros(100)).count();
        println!(
            "| {label} | {} | {:.1} | {:.1} | {:.1} | {:.0} | {:.2} | {:.2} | {:.0} | {:.0} |",
            times.len(),
            part(&mut times, 0.5),
            part(&mut times, 0.99),
            part(&mut times, 0.999),
            part(&mut times, 1.0),
            percent(slow, times.len()),
            percent(slept.len(), times.len()),
            if slept.is_empty() { 0.0 } else { part(&mut slept, 0.5) },
            f64::from(there) * 100.0 / f64::from(asked.max(1)),
        );
    }
    Ok(())
}

/// Whether all bytes were there, how long the call took, and whether the thread gave the processor up in it.
fn nowait(file: &File, at: u64) -> io::Result<(bool, Duration, bool)> {
    use rustix::io::{Errno, ReadWriteFlags};
    let mut buffer = [0; 4096];
    let (switches, start) = (voluntary_switches(), Instant::now());
    let read = rustix::io::preadv2(
        file,
        &mut [io::IoSliceMut::new(&mut buffer)],
        at,
        ReadWriteFlags::NOWAIT,
    );
    let took = start.elapsed();
    let is_hit = match read {
        Ok(read) => read == buffer.len(),
        Err(Errno::AGAIN) => false,
        Err(error) => return Err(error.into()),
    };
    Ok((is_hit, took, voluntary_switches() > switches))
}

/// What counts as the process's own memory after reading 512 MiB.
fn memory(name: &FilePath) -> io::Result<()> {
    drop(prepare(name)?);
    println!("| path | resident before, MiB | after |\n|---|---|---|");
    for path in [Path::NowaitPool, Path::Uring, Path::Mmap] {
        let before = resident();
        let after = runtime().block_on(async {
            let mut reader = Reader::open(path, name, FILE_BYTES)?;
            for at in (0..512_u64 << 20).step_by(1 << 20) {
                reader.read(at, 1 << 20).await?;
            }
            io::Result::Ok(resident())
        })?;
        println!("| {path:?} | {before} | {after} |");
    }
    Ok(())
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("there on Linux");
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("a number");
    (pages * 4096) >> 20
}
