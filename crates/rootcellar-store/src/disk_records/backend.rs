//! The database's file, through the store's own seam to the disk: so the records lose power in the same simulations as the blobs.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use redb::StorageBackend;

use crate::io::{Disk, DiskFile, Open};

/// A file of a [`Disk`] as the database wants it. Whoever opens it has locked it otherwise.
#[derive(Debug)]
pub(super) struct Backend(Arc<dyn DiskFile>);

impl Backend {
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        open_or_make(disk, path).map(Self)
    }
}

/// Opens a file, or makes it, durably.
pub(super) fn open_or_make(disk: &dyn Disk, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
    match disk.open(path, Open::Update) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let file = disk.open(path, Open::Create { mode: 0o644 })?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    disk.sync_dir(dir.unwrap_or(Path::new(".")))?;
    Ok(file)
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_size(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(&[IoSlice::new(data)], offset)
    }
}
