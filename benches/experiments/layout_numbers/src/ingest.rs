//! What it costs to take a blob in: a record at the end of a pack, or a file that is made and renamed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::measure::{Each, cost, median};

const BLOBS: usize = 2048;
const REMOVED: usize = 5 * BLOBS;
/// Blobs that are made durable together.
const BATCH: usize = 64;
const SIZES: [usize; 7] = [512, 1 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];

pub fn run(scratch: &Path, runs: usize) -> io::Result<()> {
    println!("us per blob, wall (CPU); {BLOBS} blobs, durable in batches of {BATCH}\n");
    println!(
        "| size | append | create, rename | create, link, unlink | append, durable | create, rename, durable | \
         create, rename: {REMOVED} files were removed |"
    );
    println!("|---|---|---|---|---|---|---|");
    let dirs = Dirs(scratch.join("ingest"));
    for size in SIZES {
        let (blob, mut columns) = (vec![7; size], vec![vec![]; 5]);
        for run in 0..runs {
            let works: [&Work; 5] = [
                &|dir| append(dir, &blob, false),
                &|dir| rename(dir, &blob, false),
                &|dir| link(dir, &blob, false),
                &|dir| append(dir, &blob, true),
                &|dir| rename(dir, &blob, true),
            ];
            for (column, work) in works.into_iter().enumerate() {
                columns[column].push(timed(&dirs.fresh(&format!("{size}-{run}-{column}"))?, work)?);
            }
        }
        let mut columns: Vec<String> = columns.iter().map(|runs| median(runs).to_string()).collect();
        columns.push(dirs.after_removal(size)?.to_string());
        println!("| {size} | {} |", columns.join(" | "));
    }
    fs::remove_dir_all(&dirs.0)
}

type Work<'a> = dyn Fn(&Path) -> io::Result<()> + 'a;

/// Directories to fill. All are removed at the end only: ext4 gives the inode of a removed file away again a minute
/// later at the earliest, and searches past it until then.
struct Dirs(PathBuf);

impl Dirs {
    fn fresh(&self, name: &str) -> io::Result<PathBuf> {
        let dir = self.0.join(name);
        for number in 0..256 {
            fs::create_dir_all(dir.join(format!("{number:02x}")))?;
        }
        Ok(dir)
    }

    /// What a file costs when many were removed from the same directories just before.
    fn after_removal(&self, size: usize) -> io::Result<Each> {
        let dir = self.fresh(&format!("{size}-removed"))?;
        let blob = vec![7; size];
        for _ in 0..REMOVED / BLOBS {
            rename(&dir, &blob, false)?;
            for number in 0..BLOBS {
                fs::remove_file(place(&dir, number))?;
            }
        }
        timed(&dir, &|dir| rename(dir, &blob, false))
    }
}

fn timed(dir: &Path, work: &Work) -> io::Result<Each> {
    // What earlier runs left to write is not this one's cost.
    rustix::fs::syncfs(File::open(dir)?)?;
    let (cost, done) = cost(|| work(dir));
    done?;
    Ok(cost.each(BLOBS))
}

fn place(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("{:02x}/{number:064x}", number % 256))
}

fn append(dir: &Path, blob: &[u8], is_durable: bool) -> io::Result<()> {
    let mut pack = File::create(dir.join("pack"))?;
    rustix::fs::fallocate(&pack, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 256 << 20)?;
    for number in 1..=BLOBS {
        pack.write_all(blob)?;
        if is_durable && number % BATCH == 0 {
            pack.sync_data()?;
        }
    }
    // Gives back what was reserved.
    pack.set_len((BLOBS * blob.len()) as u64)
}

fn rename(dir: &Path, blob: &[u8], is_durable: bool) -> io::Result<()> {
    named(dir, blob, is_durable, |from, to| fs::rename(from, to))
}

fn link(dir: &Path, blob: &[u8], is_durable: bool) -> io::Result<()> {
    named(dir, blob, is_durable, |from, to| {
        fs::hard_link(from, to)?;
        fs::remove_file(from)
    })
}

fn named(dir: &Path, blob: &[u8], is_durable: bool, name: fn(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
    let mut unsynced = Vec::new();
    for number in 0..BLOBS {
        let (from, to) = (dir.join(format!("tmp-{number}")), place(dir, number));
        let mut file = File::create(&from)?;
        file.write_all(blob)?;
        if !is_durable {
            name(&from, &to)?;
            continue;
        }
        unsynced.push((file, from, to));
        if unsynced.len() == BATCH {
            publish(dir, &mut unsynced, name)?;
        }
    }
    Ok(())
}

type Unsynced = (File, PathBuf, PathBuf);

fn publish(dir: &Path, unsynced: &mut Vec<Unsynced>, name: fn(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
    for (file, from, to) in unsynced.iter() {
        file.sync_data()?;
        name(from, to)?;
    }
    for (_, _, to) in unsynced.drain(..) {
        File::open(to.parent().unwrap_or(dir))?.sync_all()?;
    }
    Ok(())
}
