//! Writing to the pack that is open, and opening the next one when it is full.

use std::io::{self, IoSlice};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::Packed;
use super::pack::{Pack, SECTOR_BYTES, data_path};
use crate::io::{DiskFile as _, Open, remove_if_there};
use crate::layout::log::{BlobEntry, ENTRY_BYTES_MAX, Entry};
use crate::layout::{New, Place, Region, copy_content, copy_of};
use crate::{Content, ErrorKind};

/// What lies between a blob and the next sector.
const ZEROS: [u8; 512] = [0; 512];
const _: () = assert!(ZEROS.len() as u64 == SECTOR_BYTES);
/// The part of what is free on the disk that one pack takes at the most.
const FREE_PART: u64 = 8;
/// A pack is not made smaller than this, however little room there is, but for a smaller blob.
const PACK_BYTES_MIN: u64 = 64 << 10;
/// What a log is counted with, for a start: entries of a pack of blobs of a few kilobytes.
pub(super) const LOG_BYTES: u64 = 4096;

/// The pack that is being written, if one is.
#[derive(Debug)]
pub(super) struct Current {
    next_number: u32,
    open: Option<OpenPack>,
}

#[derive(Debug)]
struct OpenPack {
    pack: Arc<Pack>,
    /// Where the next blob begins.
    end: u64,
    /// How much of the file is reserved.
    limit: u64,
}

impl Current {
    pub(super) fn none(next_number: u32) -> Self {
        Self {
            next_number,
            open: None,
        }
    }

    pub(super) fn region(&self) -> Option<Region> {
        self.open.as_ref().map(|open| open.pack.region)
    }

    pub(super) fn end_if(&mut self, region: Region) {
        if self.region() == Some(region) {
            self.open = None;
        }
    }
}

/// Bytes that a blob takes in a pack.
pub(super) fn padded(size: u64) -> u64 {
    size.next_multiple_of(SECTOR_BYTES)
}

impl OpenPack {
    fn has_room_for(&self, size: u64) -> bool {
        self.limit - self.end >= padded(size)
    }
}

impl Packed {
    pub(super) fn current(&self) -> MutexGuard<'_, Current> {
        // The end moves before the bytes are written, so whatever stops a writer leaves no place to be given twice.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn growth_of(&self, sizes: &mut dyn Iterator<Item = u64>) -> u64 {
        let current = self.current();
        let mut room = current.open.as_ref().map_or(0, |open| open.limit - open.end);
        let mut growth = 0;
        for size in sizes {
            let size = padded(size);
            if size > room {
                room = self.pack_bytes.max(size);
                growth += room + LOG_BYTES;
            }
            room -= size;
            growth += ENTRY_BYTES_MAX as u64;
        }
        // The log's last block is counted as a whole.
        if growth == 0 { 0 } else { growth + LOG_BYTES }
    }

    pub(super) fn write_all(&self, blobs: &[New<'_>]) -> Vec<io::Result<Place>> {
        let mut current = self.current();
        let mut outcomes = Vec::with_capacity(blobs.len());
        let mut rest = blobs;
        while let Some(first) = rest.first() {
            let open = match self.open_for(&mut current, first.blob.digest().size_bytes()) {
                Ok(open) => open,
                Err(error) => {
                    outcomes.push(Err(error));
                    rest = &rest[1..];
                    continue;
                }
            };
            let (run, later) = rest.split_at(run_len(open, rest));
            self.write_run(open, run, &mut outcomes);
            rest = later;
        }
        outcomes
    }

    /// The open pack if a blob of `size` fits into it, else the next.
    fn open_for<'a>(&self, current: &'a mut Current, size: u64) -> io::Result<&'a mut OpenPack> {
        if !current.open.as_ref().is_some_and(|open| open.has_room_for(size)) {
            if let Some(full) = current.open.take() {
                self.seal(&full)?;
            }
            let number = current.next_number;
            let region = Region::new(number).ok_or_else(|| io::Error::other("there are no more numbers for packs"))?;
            current.next_number += 1;
            current.open = Some(self.begin(region, size)?);
        }
        Ok(current.open.as_mut().expect("opened just now"))
    }

    /// Ends the pack that is open, if one is.
    pub(super) fn seal_open(&self) -> io::Result<()> {
        let open = self.current().open.take();
        open.map_or(Ok(()), |open| self.seal(&open))
    }

    /// Cuts a pack to what is in it.
    fn seal(&self, full: &OpenPack) -> io::Result<()> {
        full.pack.set_size(full.end)?;
        full.pack.set_bytes(full.end, self.logs.end(full.pack.region.number()));
        Ok(())
    }

    /// Begins a pack for a blob of `size`, as large as a pack should be, or as the disk has room for.
    fn begin(&self, region: Region, size: u64) -> io::Result<OpenPack> {
        let least = padded(size);
        // So that there are always several, and one of them can go, on a disk that is smaller than the bound says.
        let share = self.ground.disk.free_bytes(&self.dir)? / FREE_PART;
        let mut limit = self
            .pack_bytes
            .min(share.max(PACK_BYTES_MIN).next_multiple_of(SECTOR_BYTES))
            .max(least);
        let made = loop {
            match self.make(region, limit) {
                Err(error) if ErrorKind::of_io(&error) == ErrorKind::Exhausted && limit > least.max(PACK_BYTES_MIN) => {
                    limit = (limit / 2).next_multiple_of(SECTOR_BYTES).max(least);
                }
                made => break made,
            }
        };
        let pack = Arc::new(made?);
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        packs.insert(region, pack.clone());
        drop(packs);
        Ok(OpenPack { pack, end: 0, limit })
    }

    /// Makes a pack's files. Leaves none if that fails.
    fn make(&self, region: Region, limit: u64) -> io::Result<Pack> {
        let made = self.try_make(region, limit);
        if made.is_err() {
            // What stays after all is half of a pack, and removed by the next start.
            let _removed = self.logs.remove(region.number());
            let _removed = remove_if_there(&*self.ground.disk, &data_path(&self.dir, region));
        }
        made
    }

    fn try_make(&self, region: Region, limit: u64) -> io::Result<Pack> {
        let ground = &self.ground;
        let path = data_path(&self.dir, region);
        let data = ground.disk.open(&path, Open::Create { mode: 0o644 })?;
        let pack = Pack::new(region, path, data, ground.bytes.share());
        pack.reserve(limit)?;
        pack.set_bytes(limit, LOG_BYTES);
        self.logs.create(region.number())?;
        Ok(pack)
    }

    /// Writes blobs that fit into the open pack: the data with one call, then the entries with one.
    fn write_run(&self, open: &mut OpenPack, run: &[New<'_>], outcomes: &mut Vec<io::Result<Place>>) {
        let start = open.end;
        let entries = lay_out(open, run);
        let pack = &open.pack;
        let written = write_data(pack, start, run);
        match written.and_then(|()| self.logs.append(pack.region.number(), &entries)) {
            Ok(log_bytes) => {
                pack.set_bytes(open.limit, log_bytes.max(LOG_BYTES));
                outcomes.extend(entries.iter().map(|entry| Ok(place_of(pack.region, entry))));
            }
            Err(error) => outcomes.extend(run.iter().map(|_| Err(copy_of(&error)))),
        }
    }
}

/// How many of `blobs` fit into the open pack. The first does.
fn run_len(open: &OpenPack, blobs: &[New<'_>]) -> usize {
    let mut room = open.limit - open.end;
    let fits = |new: &&New<'_>| {
        let size = padded(new.blob.digest().size_bytes());
        let fits = size <= room;
        room = room.saturating_sub(size);
        fits
    };
    blobs.iter().take_while(fits).count()
}

/// Gives each blob its place, and moves the end behind them. It stays there even if the blobs are never written.
fn lay_out(open: &mut OpenPack, run: &[New<'_>]) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(run.len());
    for new in run {
        let digest = new.blob.digest();
        let offset = u32::try_from(open.end / SECTOR_BYTES).expect("a pack has at most 2^24 sectors");
        open.end += padded(digest.size_bytes());
        entries.push(Entry::Stored(BlobEntry {
            digest,
            offset,
            checksum: new.blob.checksum(),
            used: new.used,
        }));
    }
    entries
}

fn place_of(region: Region, entry: &Entry) -> Place {
    let (Entry::Stored(blob) | Entry::Gone(blob)) = entry else {
        unreachable!("only blobs are laid out")
    };
    Place::new(region, blob.offset).expect("a pack has at most 2^24 sectors")
}

fn write_data(pack: &Pack, mut at: u64, run: &[New<'_>]) -> io::Result<()> {
    let mut pieces = Vec::with_capacity(2 * run.len());
    let mut pieces_at = at;
    for new in run {
        let size = new.blob.digest().size_bytes();
        let padding = usize::try_from(padded(size) - size).expect("less than a sector");
        match new.blob.content() {
            Content::Bytes(bytes) => pieces.push(IoSlice::new(bytes)),
            Content::Spooled(_) | Content::Part(..) => {
                pack.write_at(&pieces, pieces_at)?;
                pieces.clear();
                copy_content(new.blob, pack, at)?;
                pieces_at = at + size;
            }
        }
        if padding > 0 {
            pieces.push(IoSlice::new(&ZEROS[..padding]));
        }
        at += padded(size);
    }
    pack.write_at(&pieces, pieces_at)
}
