//! What reserving a pack's space buys: the time of a sync after an append, and in how many pieces packs lie.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::fs::FallocateFlags;

use crate::measure::{cost, drop_caches, extents, percentile};

const PACK_BYTES: u64 = 256 << 20;
const BATCH_BYTES: usize = 64 << 10;
const SYNCS: usize = 300;
const UNSYNCED: usize = 1024;

#[derive(Clone, Copy, Debug)]
enum Reserve {
    Nothing,
    KeepSize,
    SetSize,
    Zeros,
}

pub fn run(scratch: &Path, runs: usize) -> io::Result<()> {
    println!("{SYNCS} appends of {BATCH_BYTES} bytes, each synced; medians of {runs} runs\n");
    table(scratch, runs)?;
    println!("\nThe same, beside a thread that computes on every core\n");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism()?.get() {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let done = table(scratch, runs);
        is_over.store(true, Ordering::Relaxed);
        done
    })
}

fn table(scratch: &Path, runs: usize) -> io::Result<()> {
    println!(
        "| reserved | make, ms | fdatasync p50, us | mean | p99 | extents: one pack | two at once | \
         two, unsynced | read back, MiB/s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut rows = vec![vec![]; 4];
    let kinds = [Reserve::Nothing, Reserve::KeepSize, Reserve::SetSize, Reserve::Zeros];
    for _ in 0..runs {
        for (row, kind) in rows.iter_mut().zip(kinds) {
            row.push(measure(&scratch.join("prealloc"), kind)?);
        }
    }
    for (kind, row) in kinds.iter().zip(&rows) {
        let column = |at: usize| percentile(&mut row.iter().map(|run| run[at]).collect::<Vec<_>>(), 0.5);
        let columns: Vec<String> = (0..8).map(|at| format!("{:.0}", column(at))).collect();
        println!("| {kind:?} | {} |", columns.join(" | "));
    }
    Ok(())
}

fn measure(dir: &Path, kind: Reserve) -> io::Result<[f64; 8]> {
    fs::create_dir_all(dir)?;
    let (make, pack) = cost(|| make(dir, "one", kind));
    let pack = pack?;
    let mut times = appends(&[&pack], true)?;
    let pair = [self::make(dir, "two", kind)?, self::make(dir, "three", kind)?];
    appends(&[&pair[0], &pair[1]], true)?;
    let loose = [self::make(dir, "four", kind)?, self::make(dir, "five", kind)?];
    appends(&[&loose[0], &loose[1]], false)?;
    rustix::fs::syncfs(&loose[0])?;
    let numbers = [
        make.wall.as_secs_f64() * 1e3,
        percentile(&mut times, 0.5),
        times.iter().sum::<f64>() / times.len() as f64,
        percentile(&mut times, 0.99),
        f64::from(written(&pack)),
        f64::from(written(&pair[0])),
        f64::from(written(&loose[0])),
        read_back(&pair[0])?,
    ];
    fs::remove_dir_all(dir)?;
    Ok(numbers)
}

fn make(dir: &Path, name: &str, kind: Reserve) -> io::Result<File> {
    let mut options = File::options();
    let pack = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(dir.join(name))?;
    match kind {
        Reserve::Nothing => {}
        Reserve::KeepSize => rustix::fs::fallocate(&pack, FallocateFlags::KEEP_SIZE, 0, PACK_BYTES)?,
        Reserve::SetSize => rustix::fs::fallocate(&pack, FallocateFlags::empty(), 0, PACK_BYTES)?,
        Reserve::Zeros => {
            for at in (0..PACK_BYTES).step_by(1 << 20) {
                pack.write_all_at(&[0; 1 << 20], at)?;
            }
        }
    }
    pack.sync_all()?;
    Ok(pack)
}

/// Appends to each pack in turn: microseconds of each append with its sync.
fn appends(packs: &[&File], is_synced: bool) -> io::Result<Vec<f64>> {
    let batch = [7; BATCH_BYTES];
    let mut times = Vec::new();
    for number in 0..if is_synced { SYNCS } else { UNSYNCED } {
        for pack in packs {
            let start = Instant::now();
            pack.write_all_at(&batch, (number * BATCH_BYTES) as u64)?;
            if is_synced {
                pack.sync_data()?;
            }
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(times)
}

/// The pieces of what was written: what is only reserved is cut off first.
fn written(pack: &File) -> u32 {
    let end = pack
        .metadata()
        .expect("an open file")
        .len()
        .min((UNSYNCED * BATCH_BYTES) as u64);
    pack.set_len(end).expect("a file of ours");
    extents(pack)
}

fn read_back(pack: &File) -> io::Result<f64> {
    drop_caches();
    let (start, mut piece, end) = (Instant::now(), vec![0; 1 << 20], SYNCS * BATCH_BYTES);
    let mut at = 0;
    while at < end {
        at += pack.read_at(&mut piece[..(end - at).min(1 << 20)], at as u64)?;
    }
    Ok(end as f64 / start.elapsed().as_secs_f64() / (1 << 20) as f64)
}
