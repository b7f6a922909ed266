//! Uses, written down for the next start.
//!
//! ```text
//! <dir>/uses     header, 64 bytes
//!                   0  8  "rootcuse"
//!                   8  2  version, 1
//!                  10  2  zero
//!                  12  4  check: lower half of XXH3-64 of these 64 bytes with this field zero
//!                  16 16  id of the store
//!                  32  4  the current tick
//!                  36  4  number of moments
//!                  40  8  seconds since the Unix epoch when this was written
//!                  48  8  the same of the end of the last scrub, or zero
//!                  56  4  the part that a scrub under way is in: a region's number, or 2^24 and the first byte of the hashes of
//!                         what lies alone; zero if none is under way
//!                  60  4  zero
//!                moments, 12 bytes each:   tick 4, seconds since the Unix epoch 8
//!                   and a check of 4 bytes over all of them
//!                blocks:                   number of uses 4, check 4 over the uses, then the uses
//!                   a use, 13 bytes:       digest function 1 (as in logs), the hash's first bytes 8, tick 4
//! ```
//!
//! Numbers are little-endian. Only blobs that were used since a log last told when are in it. The file replaces the one before it,
//! whole. Nothing but the order of eviction depends on it: what of it is damaged is left out.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::core::Engine;
use super::index::{Flags, Index};
use super::recency::Moment;
use super::scrub::Part;
use crate::byte_counter::Share;
use crate::checksum::checksum;
use crate::io::{Disk, DiskFile, Open, remove_if_there};
use crate::layout::{StoreId, function_number, function_of};

const MAGIC: &[u8; 8] = b"rootcuse";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 64;
const CHECK_AT: usize = 12;
const MOMENT_BYTES: usize = 12;
const USE_BYTES: usize = 13;
/// Uses in a block.
const BLOCK_USES: usize = 8192;
/// Far more than are ever written.
const MOMENTS_MAX: u32 = 100_000;

/// What is known of the time before this start.
#[derive(Debug, Clone)]
pub(super) struct Before {
    pub(super) tick: u32,
    pub(super) moments: Vec<Moment>,
    pub(super) scrubbed: SystemTime,
    pub(super) scrubbing: Option<Part>,
    /// How much of the file belongs to the blocks, and where they begin.
    blocks_at: u64,
}

impl Default for Before {
    fn default() -> Self {
        Self {
            tick: 0,
            moments: Vec::new(),
            scrubbed: SystemTime::UNIX_EPOCH,
            scrubbing: None,
            blocks_at: 0,
        }
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Uses {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    store: StoreId,
    /// What the file takes.
    share: Share,
}

impl Uses {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, store: StoreId, share: Share) -> Self {
        Self {
            disk,
            path: dir.join("uses"),
            store,
            share,
        }
    }

    /// Reads what is known of the time before. What cannot be read is as if it were not there.
    pub(super) fn read_before(&self) -> Before {
        match self.try_read_before() {
            Ok(before) => before,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Before::default(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "when blobs were used is not known");
                Before::default()
            }
        }
    }

    fn try_read_before(&self) -> io::Result<Before> {
        let file = self.disk.open(&self.path, Open::Read)?;
        self.share.set(file.size()?);
        let mut header = [0; HEADER_BYTES];
        file.read_at(&mut header, 0)?;
        let header = Header::decode(&header, self.store).ok_or(io::ErrorKind::InvalidData)?;
        let mut bytes = vec![0; header.moments as usize * MOMENT_BYTES + 4];
        file.read_at(&mut bytes, HEADER_BYTES as u64)?;
        let blocks_at = (HEADER_BYTES + bytes.len()) as u64;
        let (moments, check) = bytes.split_at(bytes.len() - 4);
        if *check != checksum(moments).to_le_bytes() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let moment = |bytes: &[u8]| Moment {
            tick: number(bytes),
            seconds: long_number(&bytes[4..]),
        };
        Ok(Before {
            tick: header.tick,
            moments: moments.chunks_exact(MOMENT_BYTES).map(moment).collect(),
            scrubbed: SystemTime::UNIX_EPOCH + Duration::from_secs(header.scrubbed.min(1 << 40)),
            scrubbing: Part::numbered(header.scrubbing),
            blocks_at,
        })
    }

    /// Notes in `index` when blobs were used.
    pub(super) fn restore(&self, before: &Before, index: &Index) {
        if before.blocks_at == 0 {
            return;
        }
        if let Err(error) = self.try_restore(before, index) {
            tracing::warn!(path = %self.path.display(), %error, "when some blobs were used is not known");
        }
    }

    fn try_restore(&self, before: &Before, index: &Index) -> io::Result<()> {
        let file = self.disk.open(&self.path, Open::Read)?;
        let (mut at, size) = (before.blocks_at, file.size()?);
        while at + 8 <= size {
            let mut head = [0; 8];
            file.read_at(&mut head, at)?;
            let uses = number(&head) as usize;
            if uses > BLOCK_USES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut block = vec![0; uses * USE_BYTES];
            file.read_at(&mut block, at + 8)?;
            at += 8 + block.len() as u64;
            if checksum(&block) != number(&head[4..]) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            for used in block.chunks_exact(USE_BYTES) {
                restore_use(used, before.tick, index);
            }
        }
        Ok(())
    }

    /// Writes the file anew.
    fn write(&self, engine: &Engine, now: SystemTime) -> io::Result<()> {
        let new = self.path.with_extension("new");
        remove_if_there(&*self.disk, &new)?;
        let file = self.disk.open(&new, Open::Create { mode: 0o644 })?;
        let moments = engine.recency.moments();
        let (scrubbed, scrubbing) = engine.upkeep().scrub.to_remember();
        let header = Header {
            tick: engine.recency.tick(now),
            moments: u32::try_from(moments.len()).expect("a timeline is short"),
            written: seconds(now),
            scrubbed: seconds(scrubbed),
            scrubbing: scrubbing.map_or(0, Part::number),
        };
        let mut bytes = header.encode(self.store).to_vec();
        for moment in &moments {
            bytes.extend_from_slice(&moment.tick.to_le_bytes());
            bytes.extend_from_slice(&moment.seconds.to_le_bytes());
        }
        let check = checksum(&bytes[HEADER_BYTES..]);
        bytes.extend_from_slice(&check.to_le_bytes());
        file.write_at(&[IoSlice::new(&bytes)], 0)?;
        let size = write_blocks(&engine.index, &*file, bytes.len() as u64)?;
        file.sync()?;
        self.disk.rename(&new, &self.path)?;
        self.disk
            .sync_dir(self.path.parent().expect("a file lies in a directory"))?;
        self.share.set(size);
        Ok(())
    }
}

/// Writes the uses of all blobs in the index, and tells where they end.
fn write_blocks(index: &Index, file: &dyn DiskFile, mut at: u64) -> io::Result<u64> {
    let mut uses: Vec<u8> = Vec::new();
    for shard in index.shards() {
        index.scan_shard(shard, |seen| {
            if seen.entry.flags.has(Flags::TOUCHED) {
                uses.push(function_number(seen.digest.function()));
                uses.extend_from_slice(&seen.digest.hash()[..8]);
                uses.extend_from_slice(&seen.entry.used.to_le_bytes());
            }
        });
        while uses.len() >= BLOCK_USES * USE_BYTES {
            at = write_block(file, &uses[..BLOCK_USES * USE_BYTES], at)?;
            uses.drain(..BLOCK_USES * USE_BYTES);
        }
    }
    if uses.is_empty() {
        return Ok(at);
    }
    write_block(file, &uses, at)
}

fn write_block(file: &dyn DiskFile, uses: &[u8], at: u64) -> io::Result<u64> {
    let count = u32::try_from(uses.len() / USE_BYTES).expect("a block is small");
    let mut head = [0; 8];
    head[..4].copy_from_slice(&count.to_le_bytes());
    head[4..].copy_from_slice(&checksum(uses).to_le_bytes());
    file.write_at(&[IoSlice::new(&head), IoSlice::new(uses)], at)?;
    Ok(at + (head.len() + uses.len()) as u64)
}

fn restore_use(used: &[u8], last: u32, index: &Index) {
    let Some(function) = function_of(used[0]) else {
        return;
    };
    let prefix = *used[1..].first_chunk().expect("a use has 13 bytes");
    index.restore_use(function, prefix, number(&used[9..]).min(last));
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// The head of the file, as it is drawn above.
struct Header {
    tick: u32,
    moments: u32,
    written: u64,
    scrubbed: u64,
    scrubbing: u32,
}

impl Header {
    fn encode(&self, store: StoreId) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&store.0);
        bytes[32..36].copy_from_slice(&self.tick.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.moments.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.written.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.scrubbed.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.scrubbing.to_le_bytes());
        let check = checksum(&bytes);
        bytes[CHECK_AT..CHECK_AT + 4].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES], store: StoreId) -> Option<Self> {
        let mut zeroed = *bytes;
        zeroed[CHECK_AT..CHECK_AT + 4].fill(0);
        let is_ours = bytes[..8] == *MAGIC && bytes[8..10] == VERSION.to_le_bytes() && bytes[16..32] == store.0;
        let header = Self {
            tick: number(&bytes[32..]),
            moments: number(&bytes[36..]),
            written: long_number(&bytes[40..]),
            scrubbed: long_number(&bytes[48..]),
            scrubbing: number(&bytes[56..]),
        };
        let is_whole =
            bytes[CHECK_AT..CHECK_AT + 4] == checksum(&zeroed).to_le_bytes() && header.moments <= MOMENTS_MAX;
        (is_ours && is_whole).then_some(header)
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(*bytes.first_chunk().expect("4 bytes and more"))
}

fn long_number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("8 bytes and more"))
}

impl Engine {
    /// Writes down when blobs were used, if any was since the last time. Blocks.
    pub(super) fn checkpoint_uses(&self) {
        if !self.has_new_uses.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.uses.write(self, self.now()) {
            self.has_new_uses.store(true, Ordering::Relaxed);
            tracing::warn!(%error, "a restart would not know which blobs were used lately");
        }
    }
}
