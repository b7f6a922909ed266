//! The `loose` layout: a file for each blob.
//!
//! ```text
//! loose/<function>/ab/<hash>      mode 0444; never written again once it has this name (`name.rs`)
//! loose.logs/00000003.log         what was stored and what is gone, in order (`logs.rs`)
//! ```
//!
//! The logs are the truth: a file that no log speaks of is no blob. So it does not matter in which order the disk gets to know a
//! file's bytes, its name and its entry; only all of them together are synced, and only what is synced is certain. A file is
//! removed after that it is gone is durable, so no log speaks of a blob without a file.

mod logs;
mod name;
mod sweep;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rootcellar_digest::Digest;

use self::logs::LooseLogs;
use self::name::{dir_of, path_of};
use self::sweep::Sweep;
use super::log::{BlobEntry, Entry, LogText, entry_bytes};
use super::{
    Extent, Facts, Ground, Layout, LayoutKind, New, Place, Region, RegionSize, Stored, Trust, copy_content, copy_of,
    whole_blocks,
};
use crate::byte_counter::Share;
use crate::io::{Open, remove_if_there};
use crate::{Content, Error, Result, SpoolFile, Verified};

/// Every blob is a file of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct LooseKind;

impl LayoutKind for LooseKind {
    fn name(&self) -> &'static str {
        "loose"
    }

    fn open(&self, ground: &Ground) -> Result<Box<dyn Layout>> {
        Ok(Box::new(Loose::open(ground)?))
    }
}

const FILE_MODE: u32 = 0o444;
/// Files of one name that may lie there at once: the one that is being removed, and few that could not be.
const NUMBER_MAX: u32 = 1000;
/// Blobs above this size should come as spool files, to be given a name and not to be written here.
const FILE_BYTES: u64 = 128 * 1024;

/// Blobs' files in a directory.
#[derive(Debug)]
pub(super) struct Loose {
    ground: Ground,
    root: PathBuf,
    logs: LooseLogs,
    /// Guards what the next sync has to do besides the logs.
    unsynced: Mutex<Unsynced>,
    /// Guards the names that doubtful blobs have. No other blob gets them before it is known what they are.
    doubtful: Mutex<HashSet<u64>>,
    /// Guards what is left to be swept after a crash.
    sweep: Mutex<Sweep>,
    /// One more than the number of a log of which everything that holds was written again.
    renewed: AtomicU32,
    /// What the files take on the disk.
    share: Share,
    /// What files take that were removed before a crash and may be there again, until they are swept.
    left: Share,
    /// Orders the entries of the logs: held by whoever looks what is so and then writes it down.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Unsynced {
    files: Vec<(Digest, u32)>,
    /// Directories that files were removed from.
    dirs: BTreeSet<PathBuf>,
    /// Directories whose own names are known to be durable.
    durable_dirs: HashSet<PathBuf>,
}

impl Loose {
    pub(super) fn open(ground: &Ground) -> Result<Self> {
        let root = ground.dir.join("loose");
        let failed = |error| Error::io("open", format!("making {}", root.display()), error);
        ground.disk.make_dir(&root).map_err(failed)?;
        let logs = LooseLogs::open(ground).map_err(failed)?;
        ground.disk.sync_dir(&ground.dir).map_err(failed)?;
        Ok(Self {
            ground: ground.clone(),
            logs,
            unsynced: Mutex::default(),
            doubtful: Mutex::default(),
            // After a sync has failed, what the logs say is gone may come back with the next boot, and needs its file then.
            sweep: Mutex::new(Sweep::new(!ground.was_closed && ground.is_cache_whole)),
            renewed: AtomicU32::new(0),
            share: ground.bytes.share(),
            left: ground.bytes.share(),
            turn: Mutex::default(),
            root,
        })
    }

    fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubtful(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sweep(&self) -> MutexGuard<'_, Sweep> {
        self.sweep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a blob's file, under the first name that is free.
    fn publish(&self, blob: &Verified) -> io::Result<u32> {
        let digest = blob.digest();
        for number in 0..NUMBER_MAX {
            if self.doubtful().contains(&key(&digest, number)) {
                continue;
            }
            let path = path_of(&self.root, &digest, number);
            // Before the file is there, so that a sweep never meets one that it does not know.
            self.sweep().note(&path);
            match self.make_file(blob, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                done => return done.map(|()| number),
            }
        }
        Err(io::Error::other(
            "files that lie in this blob's place cannot be removed",
        ))
    }

    fn make_file(&self, blob: &Verified, path: &Path) -> io::Result<()> {
        let make = || match blob.content() {
            Content::Bytes(bytes) => self.write_file(path, bytes),
            Content::Spooled(file) => self.link_file(path, file, blob),
            Content::Part(..) => self.copy_file(path, blob),
        };
        match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The first blob in its directory.
                self.ground
                    .disk
                    .make_dir(path.parent().expect("a blob lies in a directory"))?;
                make()
            }
            done => done,
        }
    }

    fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = self.ground.disk.open(path, Open::Create { mode: FILE_MODE })?;
        self.or_remove(path, file.write_at(&[IoSlice::new(bytes)], 0))
    }

    fn link_file(&self, path: &Path, spooled: &SpoolFile, blob: &Verified) -> io::Result<()> {
        match self.ground.disk.link(spooled.path(), path) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => self.copy_file(path, blob),
            Ok(()) => {
                spooled.hand_over();
                Ok(())
            }
            done => done,
        }
    }

    fn copy_file(&self, path: &Path, blob: &Verified) -> io::Result<()> {
        let file = self.ground.disk.open(path, Open::Create { mode: FILE_MODE })?;
        self.or_remove(path, copy_content(blob, &*file, 0))
    }

    /// Removes a file. Tells whether it was there.
    fn remove_file(&self, path: &Path) -> io::Result<bool> {
        let was_there = remove_if_there(&*self.ground.disk, path)?;
        if was_there {
            // A store that was closed is not swept: what is removed has to stay so from the next sync on.
            let dir = path.parent().expect("a blob lies in a directory");
            self.unsynced().dirs.insert(dir.to_owned());
        }
        Ok(was_there)
    }

    /// Leaves no part of a file that could not be written.
    fn or_remove(&self, path: &Path, written: io::Result<()>) -> io::Result<()> {
        if written.is_err()
            && let Err(error) = self.remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "a part of a blob stays until the store is swept");
        }
        written
    }

    fn sync_files(&self) -> io::Result<()> {
        let mut unsynced = self.unsynced();
        let files = std::mem::take(&mut unsynced.files);
        let dirs = std::mem::take(&mut unsynced.dirs);
        drop(unsynced);
        let synced = self.sync_each(&files, &dirs);
        if synced.is_err() {
            let mut unsynced = self.unsynced();
            unsynced.files.extend(files);
            unsynced.dirs.extend(dirs);
        }
        synced
    }

    fn sync_each(&self, files: &[(Digest, u32)], dirs: &BTreeSet<PathBuf>) -> io::Result<()> {
        for (digest, number) in files {
            match self.ground.disk.open(&path_of(&self.root, digest, *number), Open::Read) {
                Ok(file) => file.sync()?,
                // It was evicted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let of_files: BTreeSet<PathBuf> = files.iter().map(|(digest, _)| dir_of(&self.root, digest)).collect();
        of_files.union(dirs).try_for_each(|dir| self.sync_dir(dir))
    }

    /// Makes the names in a blobs' directory durable, and its own name, whoever made it.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let disk = &self.ground.disk;
        disk.sync_dir(dir)?;
        if self.unsynced().durable_dirs.contains(dir) {
            return Ok(());
        }
        for parent in dir.ancestors().skip(1).take(2) {
            disk.sync_dir(parent)?;
        }
        self.unsynced().durable_dirs.insert(dir.to_owned());
        Ok(())
    }
}

impl Layout for Loose {
    fn facts(&self) -> Facts {
        Facts {
            file_above_bytes: FILE_BYTES,
            spare_bytes: 0,
        }
    }

    fn replay(&self, _region: Region, tell: &mut dyn FnMut(Stored)) -> Result<u64> {
        let mut seen = HashSet::new();
        let tell = |log: &LogText, position, blob: &BlobEntry| {
            let Some(place) = Place::new(Region::ALONE, blob.offset) else {
                return;
            };
            // A log that was tidied says again what an older one says.
            if seen.insert(key(&blob.digest, blob.offset)) {
                self.share.add(charge(&blob.digest));
            }
            if log.trust(position) != Trust::Certain {
                self.doubtful().insert(key(&blob.digest, blob.offset));
            } else if !log.is_synced(position) {
                self.unsynced().files.push((blob.digest, blob.offset));
            }
            tell(blob.stored(place, log, position));
        };
        let left = |digest: &Digest| self.left.add(charge(digest));
        let damaged_slots = self.logs.replay(tell, left)?;
        self.logs.set_live(seen.len() as u64);
        Ok(damaged_slots)
    }

    fn sizes(&self) -> Vec<RegionSize> {
        vec![RegionSize {
            region: Region::ALONE,
            bytes: self.share.bytes(),
            is_open: true,
        }]
    }

    fn growth(&self, sizes: &mut dyn Iterator<Item = u64>) -> u64 {
        let files: u64 = sizes.map(charge_of_size).sum();
        if files == 0 { 0 } else { files + self.logs.growth() }
    }

    fn footprint(&self, digest: &Digest) -> u64 {
        charge_of_size(digest.size_bytes()).saturating_add(entry_bytes(digest.function()))
    }

    fn write(&self, blobs: &[New<'_>]) -> Vec<io::Result<Place>> {
        let mut outcomes: Vec<io::Result<u32>> = blobs.iter().map(|new| self.publish(new.blob)).collect();
        let written = blobs.iter().zip(&outcomes);
        let entries: Vec<Entry> = written
            .filter_map(|(new, outcome)| {
                Some(Entry::Stored(BlobEntry {
                    digest: new.blob.digest(),
                    offset: *outcome.as_ref().ok()?,
                    checksum: new.blob.checksum(),
                    used: new.used,
                }))
            })
            .collect();
        // Before their entries are there: a sync in between would mark those.
        let written = blobs.iter().zip(&outcomes);
        let files = written.filter_map(|(new, outcome)| Some((new.blob.digest(), *outcome.as_ref().ok()?)));
        self.unsynced().files.extend(files);
        let turn = self.turn();
        let appended = self.logs.append(&entries);
        drop(turn);
        for (new, outcome) in blobs.iter().zip(&mut outcomes) {
            self.end_write(&new.blob.digest(), &appended, outcome);
        }
        let place = |number| Place::new(Region::ALONE, number).expect("numbers are small");
        outcomes.into_iter().map(|outcome| outcome.map(place)).collect()
    }

    fn sync(&self) -> io::Result<()> {
        self.logs.sync(|| self.sync_files())
    }

    fn settle(&self, _region: Region) {
        self.doubtful().clear();
        self.logs.settle();
    }

    fn open(&self, digest: &Digest, place: Place) -> io::Result<Extent> {
        let path = path_of(&self.root, digest, place.offset());
        let file = self.ground.disk.open(&path, Open::Read)?;
        // Whoever is given the file's name has no other way to see that it was cut off.
        if file.size()? != digest.size_bytes() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Extent { file, at: 0 })
    }

    fn path(&self, digest: &Digest, place: Place) -> Arc<Path> {
        path_of(&self.root, digest, place.offset()).into()
    }

    fn first_byte(&self, _place: Place) -> u64 {
        0
    }

    fn alone_dir(&self) -> Option<PathBuf> {
        Some(self.root.clone())
    }

    fn left_bytes(&self) -> u64 {
        self.left.bytes()
    }

    fn remove(&self, blobs: &[(Digest, Place)]) -> io::Result<()> {
        let gone = |(digest, place): &(Digest, Place)| {
            Entry::Gone(BlobEntry {
                digest: *digest,
                offset: place.offset(),
                checksum: 0,
                used: 0,
            })
        };
        let turn = self.turn();
        // Before the files go: else a power cut could leave entries of blobs that have none.
        self.logs.append_durably(&blobs.iter().map(gone).collect::<Vec<_>>())?;
        drop(turn);
        for (digest, place) in blobs {
            let path = path_of(&self.root, digest, place.offset());
            match self.remove_file(&path) {
                Ok(_) => self.share.subtract(charge(digest)),
                Err(error) => tracing::error!(path = %path.display(), %error, "an evicted blob's file stays"),
            }
        }
        Ok(())
    }

    fn drop_region(&self, _region: Region) -> io::Result<()> {
        unreachable!("loose blobs are given up one by one")
    }

    fn tidy(&self, is_live: &dyn Fn(&Digest, Place) -> bool) -> io::Result<bool> {
        let remove = |dir: &Path, orphans: &[PathBuf]| {
            orphans.iter().try_for_each(|path| self.remove_file(path).map(drop))?;
            // What a process that was killed has removed may come back.
            self.unsynced().dirs.insert(dir.to_owned());
            Ok(())
        };
        if self.sweep().step(&self.ground, &self.root, is_live, remove)? {
            return Ok(true);
        }
        self.left.set(0);
        if let Some(renewed) = self.renewed.swap(0, Ordering::Relaxed).checked_sub(1) {
            self.logs.give_up(renewed)?;
            return Ok(true);
        }
        let _turn = self.turn();
        let renewed = self.logs.renew_oldest(|digest, number| {
            let place = Place::new(Region::ALONE, number);
            place.is_some_and(|place| is_live(digest, place))
        })?;
        // It can go once what was written in its place is durable.
        self.renewed
            .store(renewed.map_or(0, |number| number + 1), Ordering::Relaxed);
        Ok(renewed.is_some())
    }

    fn end(&self) -> io::Result<()> {
        self.logs.end()
    }
}

impl Loose {
    /// Counts a blob that was written, or takes back what could not be.
    fn end_write(&self, digest: &Digest, appended: &io::Result<()>, outcome: &mut io::Result<u32>) {
        let Ok(number) = *outcome else {
            return;
        };
        match appended {
            Ok(()) => {
                self.share.add(charge(digest));
            }
            Err(error) => {
                let path = path_of(&self.root, digest, number);
                *outcome = self.or_remove(&path, Err(copy_of(error))).map(|()| number);
            }
        }
    }
}

/// Names a file within the store for counting. That two share a name is as good as impossible, and costs a wrong count.
fn key(digest: &Digest, number: u32) -> u64 {
    let first = u64::from_le_bytes(*digest.hash().first_chunk().expect("a hash has 16 bytes or more"));
    first ^ (u64::from(number) << 32) ^ digest.function() as u64
}

/// Bytes of the disk that a blob is counted with: whole blocks, an inode and a directory entry.
fn charge(digest: &Digest) -> u64 {
    charge_of_size(digest.size_bytes())
}

fn charge_of_size(size_bytes: u64) -> u64 {
    const INODE_BYTES: u64 = 512;
    whole_blocks(size_bytes).saturating_add(INODE_BYTES)
}

impl fmt::Display for Loose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("loose")
    }
}
