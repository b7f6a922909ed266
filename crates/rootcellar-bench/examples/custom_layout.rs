//! A layout of your own: what it takes, the proof that it keeps its promises, and what it costs beside the others.
//!
//!     cargo run --release --example custom_layout          # a table
//!     cargo test --example custom_layout                   # conformance, and thousands of power cuts
//!
//! This one is the simplest there is: a file for each blob, all in one directory, and no log. Its names say everything, so a start
//! lists the directory; and since nothing says what a power cut may have torn, everything counts as doubtful, and is hashed before
//! the first answer. The layouts of the store do the same with logs, and need not look at a single blob.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rootcellar_bench::{CandidateKind, DiskCandidate, MIXES, Report, Workload, measure};
use rootcellar_digest::Digest;
use rootcellar_store::io::Open;
use rootcellar_store::layout::{
    Extent, Facts, Ground, HybridKind, Layout, LayoutKind, New, Place, Region, RegionSize, Stored, Trust,
};
use rootcellar_store::{Content, Result, Share};

/// What `FORMAT` will say.
#[derive(Debug, Clone, Copy)]
struct FlatKind;

impl LayoutKind for FlatKind {
    fn name(&self) -> &'static str {
        "flat"
    }

    fn open(&self, ground: &Ground) -> Result<Box<dyn Layout>> {
        let dir = ground.dir.join("flat");
        let failed = |error| rootcellar_store::Error::io("open", "making the directory", error);
        ground.disk.make_dir(&dir).map_err(failed)?;
        ground.disk.sync_dir(&ground.dir).map_err(failed)?;
        Ok(Box::new(Flat {
            ground: ground.clone(),
            dir,
            unsynced: Mutex::default(),
            doubtful: Mutex::default(),
            share: ground.bytes.share(),
        }))
    }
}

#[derive(Debug)]
struct Flat {
    ground: Ground,
    dir: PathBuf,
    /// Guards the files that no sync has covered.
    unsynced: Mutex<BTreeSet<PathBuf>>,
    /// Guards the names that nobody else may have before it is known what they hold.
    doubtful: Mutex<BTreeSet<PathBuf>>,
    share: Share,
}

impl Flat {
    /// `sha256-abcd...-5.0`: function, hash, size, and a number that tells a file from one that is just being removed.
    fn file_of(&self, digest: &Digest, number: u32) -> PathBuf {
        let (function, hash, size) = (digest.function(), digest.hash_hex(), digest.size_bytes());
        self.dir.join(format!("{function}-{hash}-{size}.{number}"))
    }

    fn parse(name: &str) -> Option<(Digest, u32)> {
        let (digest, number) = name.split_once('.')?;
        Some((digest.replace('-', "/").parse().ok()?, number.parse().ok()?))
    }

    fn write_one(&self, new: &New<'_>) -> io::Result<Place> {
        let digest = new.blob.digest();
        for number in 0.. {
            let path = self.file_of(&digest, number);
            if lock(&self.doubtful).contains(&path) {
                continue;
            }
            match self.ground.disk.open(&path, Open::Create { mode: 0o444 }) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(file) => {
                    if let Err(error) = file.write_at(&[IoSlice::new(&content(new)?)], 0) {
                        self.ground.disk.remove(&path)?;
                        return Err(error);
                    }
                    self.share.add(digest.size_bytes());
                    lock(&self.unsynced).insert(path);
                    return Ok(Place::new(Region::ALONE, number).expect("few files have one name"));
                }
            }
        }
        unreachable!("numbers do not end")
    }
}

/// The bytes of a blob. A real layout would give a large one's spool file its name instead of copying it.
fn content(new: &New<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(new.blob.digest().size_bytes()).map_err(io::Error::other)?];
    match new.blob.content() {
        Content::Bytes(content) => bytes.copy_from_slice(content),
        Content::Spooled(file) => file.file().read_at(&mut bytes, 0)?,
        Content::Part(file, at) => file.read_at(&mut bytes, *at)?,
    }
    Ok(bytes)
}

impl Layout for Flat {
    fn facts(&self) -> Facts {
        Facts {
            file_above_bytes: u64::MAX,
            spare_bytes: 0,
        }
    }

    fn replay(&self, _region: Region, tell: &mut dyn FnMut(Stored)) -> Result<u64> {
        let listed = self.ground.disk.list(&self.dir);
        let listed = listed.map_err(|error| rootcellar_store::Error::io("open", "listing the directory", error))?;
        for name in listed {
            let Some((digest, number)) = Self::parse(&name.name) else {
                continue;
            };
            let path = self.file_of(&digest, number);
            lock(&self.unsynced).insert(path.clone());
            lock(&self.doubtful).insert(path);
            self.share.add(digest.size_bytes());
            tell(Stored {
                digest,
                place: Place::new(Region::ALONE, number).expect("few files have one name"),
                checksum: None,
                used: 1,
                trust: Trust::Doubtful,
                is_promised: true,
            });
        }
        Ok(0)
    }

    fn sizes(&self) -> Vec<RegionSize> {
        vec![RegionSize {
            region: Region::ALONE,
            bytes: self.share.bytes(),
            is_open: true,
        }]
    }

    fn growth(&self, sizes: &mut dyn Iterator<Item = u64>) -> u64 {
        sizes.sum()
    }

    fn footprint(&self, digest: &Digest) -> u64 {
        digest.size_bytes()
    }

    fn write(&self, blobs: &[New<'_>]) -> Vec<io::Result<Place>> {
        blobs.iter().map(|new| self.write_one(new)).collect()
    }

    fn sync(&self) -> io::Result<()> {
        let files = std::mem::take(&mut *lock(&self.unsynced));
        for file in files {
            match self.ground.disk.open(&file, Open::Read) {
                Ok(file) => file.sync()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.ground.disk.sync_dir(&self.dir)
    }

    fn settle(&self, _region: Region) {
        lock(&self.doubtful).clear();
    }

    fn open(&self, digest: &Digest, place: Place) -> io::Result<Extent> {
        let file = self
            .ground
            .disk
            .open(&self.file_of(digest, place.offset()), Open::Read)?;
        if file.size()? != digest.size_bytes() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Extent { file, at: 0 })
    }

    fn path(&self, digest: &Digest, place: Place) -> Arc<Path> {
        self.file_of(digest, place.offset()).into()
    }

    fn first_byte(&self, _place: Place) -> u64 {
        0
    }

    fn alone_dir(&self) -> Option<PathBuf> {
        Some(self.dir.clone())
    }

    fn remove(&self, blobs: &[(Digest, Place)]) -> io::Result<()> {
        for (digest, place) in blobs {
            self.ground.disk.remove(&self.file_of(digest, place.offset()))?;
            self.share.subtract(digest.size_bytes());
        }
        self.ground.disk.sync_dir(&self.dir)
    }

    fn drop_region(&self, _region: Region) -> io::Result<()> {
        unreachable!("every blob lies alone")
    }

    fn tidy(&self, _is_live: &dyn Fn(&Digest, Place) -> bool) -> io::Result<bool> {
        Ok(false)
    }

    fn end(&self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Flat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flat")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn main() {
    let dir = Path::new(".");
    let candidates = [
        DiskCandidate::new(Arc::new(FlatKind)),
        DiskCandidate::new(Arc::new(HybridKind::default())),
    ];
    let kinds: Vec<&dyn CandidateKind> = candidates.iter().map(|candidate| candidate as _).collect();
    let workload = Workload::of_mix(&MIXES[0], 1, 32 << 20);
    let mut report = Report::new();
    report.samples = measure(&kinds, &[workload], dir, None, |_| {});
    print!("{}", report.to_text());
}

#[cfg(test)]
mod tests {
    use rootcellar_store::testing::{Lanes, SimulatedDisk, check_blob_store, check_local_store, check_power_cuts_on};
    use rootcellar_store::{DiskOptions, DiskStore, Durability, SystemClock};

    use super::*;

    async fn store(dir: &Path, bytes_max: u64) -> Arc<DiskStore> {
        let dir = tempfile::tempdir_in(dir).unwrap().keep();
        let options = DiskOptions {
            layout: Arc::new(FlatKind),
            bytes_max,
            ..DiskOptions::default()
        };
        Arc::new(DiskStore::open(dir, options, Arc::new(SystemClock)).await.unwrap())
    }

    #[test]
    fn it_makes_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        runtime.block_on(async {
            check_blob_store(async |bytes_max| store(dir.path(), bytes_max).await as _).await;
            check_local_store(async |bytes_max| store(dir.path(), bytes_max).await as _).await;
        });
    }

    #[test]
    fn it_keeps_its_promises_through_power_cuts() {
        let kind: Arc<dyn LayoutKind> = Arc::new(FlatKind);
        for durability in [Durability::Always, Durability::default(), Durability::None] {
            // It does not remember what was synced.
            let new_disk = |seed| SimulatedDisk::new(seed).without_failed_syncs();
            check_power_cuts_on(new_disk, &kind, durability, Lanes::InTurn, 0..25);
        }
    }
}
