//! The one seam between the engine and a disk.
//!
//! Everything that has to survive goes through [`Disk`] and [`DiskFile`]: blobs, logs, records, what is being ingested. There are
//! two disks: the operating system's ([`OsDisk`]), and one that loses power in the middle of anything
//! (`testing::SimulatedDisk`).
//!
//! What a disk promises, and no more:
//!
//! - Reads see every earlier write of this boot of the machine.
//! - After a power cut, a file holds what it held at its last [`DiskFile::sync`]; of what was written later each 512-byte sector
//!   is there or not, in any combination.
//! - After a power cut, a directory has the names that it had at its last [`Disk::sync_dir`]; of later changes each happened or
//!   did not, in any combination.

mod dry_run;
mod os;

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

pub use self::dry_run::DryRunDisk;
pub use self::os::OsDisk;

/// Names this boot of the machine: memory, and what was only in memory, is gone when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId(pub [u8; 16]);

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// For reading.
    Read,
    /// For reading and writing.
    Update,
    /// Makes the file, which must not be there, for reading and writing. Others see it with these permission bits.
    Create {
        /// Permission bits, such as `0o444`.
        mode: u32,
    },
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The name itself; what is not UTF-8 is replaced, and so is no name of ours.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// A filesystem. All calls may block.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file a second name, which must not be taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Moves a file to another name in its directory, in place of what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory and those above it, as far as they are missing.
    fn make_dir(&self, path: &Path) -> io::Result<()>;

    /// Lists a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<Name>>;

    /// Makes the names in a directory durable. As for [`DiskFile::sync`], an error of the sync itself has no OS number.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Bytes that are free on the filesystem of a directory.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Locks a file for this process, until what is returned is dropped: `WouldBlock` if another process has it. The file's text
    /// names the process.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn fmt::Debug + Send + Sync>>;

    /// Which boot of the machine this is.
    fn boot_id(&self) -> io::Result<BootId>;

    /// Bytes that nobody can guess.
    fn random(&self) -> io::Result<[u8; 16]>;
}

/// An open file. Positions are absolute, so one handle serves any number of readers and writers at once. All calls may block
/// but where it says otherwise.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Bytes up to the end of the file.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` from position `at`: `UnexpectedEof` if the file ends before.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;

    /// As [`read_at`](Self::read_at) if all the bytes are in memory; else `false`, soon.
    fn read_cached(&self, buffer: &mut [u8], at: u64) -> io::Result<bool>;

    /// Writes the pieces one behind the other, all of them, from position `at`.
    fn write_at(&self, pieces: &[IoSlice<'_>], at: u64) -> io::Result<()>;

    /// Reserves the disk's space up to `size`, so that later writes there need no more. The end of the file stays where it is.
    fn reserve(&self, size: u64) -> io::Result<()>;

    /// Sets the end of the file. What lies behind it, or is reserved there, is given back.
    fn set_size(&self, size: u64) -> io::Result<()>;

    /// Makes everything that was written to the file durable. An error has no OS number: whatever it is, it does not pass.
    fn sync(&self) -> io::Result<()>;

    /// The kernel's file, if it is one.
    fn as_file(&self) -> Option<&File>;
}

/// The bytes of a file that is known to be small.
pub(crate) fn read_small(disk: &dyn Disk, path: &Path, size_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let size = file.size()?;
    if size > size_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the file has {size} bytes, {size_max} are the most"),
        ));
    }
    let mut bytes = vec![0; usize::try_from(size).expect("a bounded size")];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Puts a small file in the place of the one that has its name, durably: after a power cut one of them is there, whole.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, pieces: &[IoSlice<'_>]) -> io::Result<()> {
    let new = path.with_extension("new");
    remove_if_there(disk, &new)?;
    let file = disk.open(&new, Open::Create { mode: 0o644 })?;
    file.write_at(pieces, 0)?;
    file.sync()?;
    disk.rename(&new, path)?;
    disk.sync_dir(path.parent().expect("a file lies in a directory"))
}

/// Removes a file; that there is none is as good. Tells whether there was one.
pub(crate) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    match disk.remove(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
