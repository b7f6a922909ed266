//! One pack: a file of blobs. Its log says where in it they lie.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::byte_counter::Share;
use crate::io::DiskFile;
use crate::layout::{Region, whole_blocks};

/// Blobs begin on such boundaries, and what lies between is zero: the unit in which an EROFS image can map a file.
pub(super) const SECTOR_BYTES: u64 = 512;

/// A pack that exists. Its bytes come back, and count no more, when the last reader lets go of it.
pub(super) struct Pack {
    pub(super) region: Region,
    pub(super) path: Arc<Path>,
    data: Arc<dyn DiskFile>,
    /// What the pack takes on the disk.
    share: Share,
}

impl Pack {
    pub(super) fn new(region: Region, path: PathBuf, data: Arc<dyn DiskFile>, share: Share) -> Self {
        Self {
            region,
            path: path.into(),
            data,
            share,
        }
    }

    /// Counts what the pack's two files take.
    pub(super) fn set_bytes(&self, data_bytes: u64, log_bytes: u64) {
        self.share.set(whole_blocks(data_bytes) + whole_blocks(log_bytes));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.share.bytes()
    }
}

/// The file of the pack's data. Who holds it keeps the pack's bytes counted.
impl DiskFile for Pack {
    fn size(&self) -> io::Result<u64> {
        self.data.size()
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.data.read_at(buffer, at)
    }

    fn read_cached(&self, buffer: &mut [u8], at: u64) -> io::Result<bool> {
        self.data.read_cached(buffer, at)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        self.data.write_at(pieces, at)
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        self.data.reserve(size)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.data.set_size(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.data.sync()
    }

    fn as_file(&self) -> Option<&File> {
        self.data.as_file()
    }
}

impl fmt::Debug for Pack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pack")
            .field("region", &self.region.number())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

pub(super) fn data_path(dir: &Path, region: Region) -> PathBuf {
    dir.join(format!("{:08}.data", region.number()))
}

/// The pack that a file belongs to, and whether the file is its log. `None` for names that are not ours.
pub(super) fn parse_name(name: &str) -> Option<(Region, bool)> {
    let (number, kind) = name.split_once('.')?;
    let region = Region::new(number.parse().ok()?)?;
    let is_log = match kind {
        "data" => false,
        "log" => true,
        _ => return None,
    };
    // A number has one spelling, and zero is no pack.
    (format!("{:08}", region.number()) == number && region != Region::ALONE).then_some((region, is_log))
}
