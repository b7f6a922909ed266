//! The start of a store: which files are blobs, and which of them a crash may have torn.
//!
//! A walk over the directories yields names, sizes and times. A file of another size than its name says is removed. A file
//! that the sync mark does not cover is hashed, and removed if it is not what its name says. What is no blob's file at all
//! is left alone: the store did not make it.

use std::fs::{self, DirEntry, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use rootcellar_digest::{Digest, DigestFunction};

use super::check::{Check, check};
use super::home::{Home, opening};
use super::loose::{Loose, parse_file_name};
use super::mark::{KernelTime, Mark, boot_id};
use crate::Result;

/// More threads than this only wait for the disk together.
const THREADS_MAX: usize = 8;

/// What the disk knew.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Blobs, those used longest ago first.
    pub(super) blobs: Vec<(Digest, SystemTime)>,
    pub(super) torn: u64,
    pub(super) odd_files: u64,
}

/// What is known about the time before this start.
#[derive(Debug)]
pub(super) struct Past {
    mark: Option<Mark>,
    /// This boot.
    pub(super) boot: String,
}

impl Past {
    pub(super) fn read(home: &Home) -> io::Result<Self> {
        Ok(Self {
            mark: Mark::read(home.path())?,
            boot: boot_id()?,
        })
    }

    pub(super) fn covers_everything(&self) -> bool {
        self.mark.as_ref().is_some_and(Mark::covers_everything)
    }

    fn covers(&self, metadata: &Metadata) -> bool {
        let mark = self.mark.as_ref();
        mark.is_some_and(|mark| mark.covers(KernelTime::of(metadata), &self.boot))
    }
}

/// Finds the blobs of `loose`. Blocks.
pub(super) fn recover(loose: &Loose, past: &Past) -> Result<Recovered> {
    let failed = |error| opening(loose.root(), "walking the blobs", error);
    let mut all = Recovered::default();
    let dirs = fan_dirs(loose.root(), &mut all).map_err(failed)?;
    let next = AtomicUsize::new(0);
    let walk = || {
        let mut found = Recovered::default();
        while let Some((function, dir)) = dirs.get(next.fetch_add(1, Ordering::Relaxed)) {
            walk_fan(*function, dir, past, &mut found)?;
        }
        Ok(found)
    };
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(THREADS_MAX);
    let parts: Vec<io::Result<Recovered>> = std::thread::scope(|scope| {
        let walkers: Vec<_> = (0..threads).map(|_| scope.spawn(walk)).collect();
        let join = |walker: std::thread::ScopedJoinHandle<'_, _>| walker.join().expect("walking does not panic");
        walkers.into_iter().map(join).collect()
    });
    for part in parts {
        let part = part.map_err(failed)?;
        all.blobs.extend(part.blobs);
        all.torn += part.torn;
        all.odd_files += part.odd_files;
    }
    all.blobs.sort_unstable_by_key(|(digest, used)| (*used, *digest));
    Ok(all)
}

/// The directories that hold blobs.
fn fan_dirs(root: &Path, found: &mut Recovered) -> io::Result<Vec<(DigestFunction, PathBuf)>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let function = name.to_str().and_then(|name| name.parse::<DigestFunction>().ok());
        let Some(function) = function.filter(|_| is_dir(&entry)) else {
            found.leave(&entry.path());
            continue;
        };
        for fan in fs::read_dir(entry.path())? {
            let fan = fan?;
            if is_dir(&fan) {
                dirs.push((function, fan.path()));
            } else {
                found.leave(&fan.path());
            }
        }
    }
    Ok(dirs)
}

fn is_dir(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

fn walk_fan(function: DigestFunction, dir: &Path, past: &Past, found: &mut Recovered) -> io::Result<()> {
    let fan = dir.file_name().unwrap_or_default().to_string_lossy();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let digest = name.to_str().and_then(|name| parse_file_name(function, &fan, name));
        let metadata = entry.metadata()?;
        match digest {
            Some(digest) if metadata.is_file() => found.take(digest, &entry.path(), &metadata, past)?,
            _ => found.leave(&entry.path()),
        }
    }
    Ok(())
}

impl Recovered {
    fn take(&mut self, digest: Digest, path: &Path, metadata: &Metadata, past: &Past) -> io::Result<()> {
        let is_cut = metadata.len() != digest.size_bytes();
        if is_cut || (!past.covers(metadata) && is_torn(digest, path)?) {
            tracing::warn!(%digest, file_bytes = metadata.len(), "dropping a blob that was not stored whole");
            self.torn += 1;
            return fs::remove_file(path);
        }
        self.blobs.push((digest, metadata.modified()?));
        Ok(())
    }

    fn leave(&mut self, path: &Path) {
        tracing::warn!(path = %path.display(), "leaving alone what is no blob's file");
        self.odd_files += 1;
    }
}

fn is_torn(digest: Digest, path: &Path) -> io::Result<bool> {
    let verdict = check(digest, &File::open(path)?)?;
    Ok(matches!(verdict, Check::Damaged(_)))
}
