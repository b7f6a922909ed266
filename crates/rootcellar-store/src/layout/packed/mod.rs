//! The `packed` layout: blobs one behind the other in large files.
//!
//! ```text
//! packs/00000007.data    | blob, zeros | blob, zeros | ...      each begins on a 512-byte boundary
//! packs/00000007.log     header | entry | entry | mark | ...    an entry for each blob (`layout/log`)
//! ```
//!
//! A batch is written with one call to the data and one to the log. A pack is written by one process, until it is full or the
//! process ends; then it is cut to what is in it. From then on it only ever loses blobs, which its log notes, until it is
//! dropped as a whole. Numbers are never used again: an old image that maps a pack cannot see another one.

mod find;
mod pack;
mod write;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rootcellar_digest::Digest;

use self::pack::{Pack, SECTOR_BYTES};
use self::write::{Current, LOG_BYTES};
use super::log::{BlobEntry, Entry, LogBook, LogKind, entry_bytes};
use super::{Extent, Facts, Ground, Layout, LayoutKind, New, Place, Region, RegionSize, Stored};
use crate::io::{DiskFile as _, remove_if_there};
use crate::{Error, Result};

/// Every blob lies in a pack; large ones in one of their own.
#[derive(Debug, Clone, Copy, Default)]
pub struct PackedKind;

impl LayoutKind for PackedKind {
    fn name(&self) -> &'static str {
        "packed"
    }

    fn open(&self, ground: &Ground) -> Result<Box<dyn Layout>> {
        Ok(Box::new(Packed::open(ground, PART)?))
    }
}

/// The part of the store that one pack is, where everything is packed. There are over a hundred packs.
const PART: u64 = 128;

/// Packs in a directory.
#[derive(Debug)]
pub(super) struct Packed {
    ground: Ground,
    dir: PathBuf,
    pack_bytes: u64,
    /// Guards which packs there are.
    packs: RwLock<BTreeMap<Region, Arc<Pack>>>,
    /// Guards the end of the pack that is being written.
    current: Mutex<Current>,
    /// A log for each pack, with its number.
    logs: LogBook,
}

impl Packed {
    /// Opens the packs of a store, or begins a store. A new pack is one of `part` parts of the store.
    pub(super) fn open(ground: &Ground, part: u64) -> Result<Self> {
        let dir = ground.dir.join("packs");
        let found = find::find(ground, &dir)?;
        Ok(Self {
            logs: LogBook::new(ground, dir.clone(), LogKind::Pack),
            ground: ground.clone(),
            dir,
            pack_bytes: pack_bytes(ground.bytes_max, part),
            packs: RwLock::new(found.packs),
            current: Mutex::new(Current::none(found.next_number)),
        })
    }

    fn pack(&self, region: Region) -> io::Result<Arc<Pack>> {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        packs
            .get(&region)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Cuts what was reserved and not used off a pack of an earlier process.
    fn trim(&self, pack: &Pack, data_end: u64, log_end: u64) -> Result<()> {
        let trim = || {
            // What a process that was killed had reserved is not seen in the size.
            if !self.ground.was_closed || pack.size()? > data_end {
                find::reopen(&self.ground, pack)?.set_size(data_end)?;
            }
            pack.set_bytes(data_end, log_end);
            Ok(())
        };
        trim().map_err(|error| Error::io("open", format!("cutting {}", pack.path.display()), error))
    }
}

/// Large enough that few packs make a store, and an image that maps them all mounts in a millisecond; small enough that one in
/// use does not keep much, and that a small store has many.
fn pack_bytes(bytes_max: u64, part: u64) -> u64 {
    const LEAST: u64 = 16 << 10;
    const MOST: u64 = 256 << 20;
    (bytes_max / part).next_power_of_two().clamp(LEAST, MOST)
}

impl Layout for Packed {
    fn facts(&self) -> Facts {
        Facts {
            file_above_bytes: u64::MAX,
            // A pack, its log if all its blobs are small, and the log's last block.
            spare_bytes: self.pack_bytes + self.pack_bytes / 4 + 2 * LOG_BYTES,
        }
    }

    fn replay(&self, region: Region, tell: &mut dyn FnMut(Stored)) -> Result<u64> {
        let failed = |error| Error::io("open", format!("reading pack {}", region.number()), error);
        let pack = self.pack(region).map_err(failed)?;
        let log = self.logs.read(region.number())?;
        let size = pack.size().map_err(failed)?;
        let gone: HashSet<u32> = log.entries().filter_map(|(_, entry)| gone_offset(&entry)).collect();
        let mut data_end = 0;
        for (position, entry) in log.entries() {
            let Entry::Stored(blob) = entry else {
                continue;
            };
            let end = (u64::from(blob.offset) * SECTOR_BYTES).saturating_add(blob.digest.size_bytes());
            // What lies behind the end of the file was never on the disk.
            let place = Place::new(region, blob.offset).filter(|_| end <= size);
            if let Some(place) = place {
                data_end = data_end.max(end.next_multiple_of(SECTOR_BYTES).min(size));
                if !gone.contains(&blob.offset) {
                    tell(blob.stored(place, &log, position));
                }
            }
        }
        self.trim(&pack, data_end, log.end())?;
        Ok(log.damaged_slots())
    }

    fn sizes(&self) -> Vec<RegionSize> {
        let open = self.current().region();
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        // The last one stays, so that the next start does not give its number to another.
        let last = packs.last_key_value().map(|(region, _)| *region);
        let size = |pack: &Arc<Pack>| RegionSize {
            region: pack.region,
            bytes: pack.bytes(),
            is_open: Some(pack.region) == open || Some(pack.region) == last,
        };
        packs.values().map(size).collect()
    }

    fn growth(&self, sizes: &mut dyn Iterator<Item = u64>) -> u64 {
        self.growth_of(sizes)
    }

    fn footprint(&self, digest: &Digest) -> u64 {
        write::padded(digest.size_bytes()) + entry_bytes(digest.function())
    }

    fn write(&self, blobs: &[New<'_>]) -> Vec<io::Result<Place>> {
        self.write_all(blobs)
    }

    fn sync(&self) -> io::Result<()> {
        self.logs.sync(|written| {
            for number in written {
                let region = Region::new(*number).expect("a log's number is its pack's");
                // One that was dropped meanwhile needs no sync.
                if let Ok(pack) = self.pack(region) {
                    pack.sync()?;
                }
            }
            Ok(())
        })
    }

    fn settle(&self, region: Region) {
        self.logs.settle(region.number());
    }

    fn open(&self, _digest: &Digest, place: Place) -> io::Result<Extent> {
        let pack = self.pack(place.region())?;
        Ok(Extent {
            file: pack,
            at: self.first_byte(place),
        })
    }

    fn path(&self, _digest: &Digest, place: Place) -> Arc<Path> {
        match self.pack(place.region()) {
            Ok(pack) => pack.path.clone(),
            // It was dropped meanwhile: nothing is leased in it.
            Err(_) => pack::data_path(&self.dir, place.region()).into(),
        }
    }

    fn first_byte(&self, place: Place) -> u64 {
        u64::from(place.offset()) * SECTOR_BYTES
    }

    fn alone_dir(&self) -> Option<PathBuf> {
        None
    }

    fn remove(&self, blobs: &[(Digest, Place)]) -> io::Result<()> {
        for (digest, place) in blobs {
            let entry = Entry::Gone(BlobEntry {
                digest: *digest,
                offset: place.offset(),
                checksum: 0,
                used: 0,
            });
            match self.logs.append(place.region().number(), &[entry]) {
                // Its pack went meanwhile, and took it along.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => drop(done?),
            }
        }
        Ok(())
    }

    fn drop_region(&self, region: Region) -> io::Result<()> {
        self.current().end_if(region);
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        let dropped = packs.remove(&region);
        drop(packs);
        let Some(pack) = dropped else {
            return Ok(());
        };
        // Data without a log is nobody's, and removed by the next start.
        self.logs.remove(region.number())?;
        remove_if_there(&*self.ground.disk, &pack.path).map(drop)
    }

    fn tidy(&self, _is_live: &dyn Fn(&Digest, Place) -> bool) -> io::Result<bool> {
        Ok(false)
    }

    fn end(&self) -> io::Result<()> {
        self.seal_open()
    }
}

fn gone_offset(entry: &Entry) -> Option<u32> {
    match entry {
        Entry::Gone(blob) => Some(blob.offset),
        Entry::Stored(_) | Entry::Mark { .. } => None,
    }
}

impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        let (size, unit) = match self.pack_bytes {
            0..MIB => (self.pack_bytes >> 10, "KiB"),
            MIB.. => (self.pack_bytes >> 20, "MiB"),
        };
        write!(f, "packed({size} {unit})")
    }
}
