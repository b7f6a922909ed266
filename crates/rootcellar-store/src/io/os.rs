//! The operating system's disk.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{BootId, Disk, DiskFile, Name, Open};

/// The filesystem that the kernel shows at a path.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

/// The most pieces that the kernel takes in one call (`UIO_MAXIOV`).
const PIECES_MAX: usize = 1024;

impl Disk for OsDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => {}
            Open::Update => {
                options.write(true);
            }
            Open::Create { mode } => {
                options.write(true).create_new(true).mode(mode);
            }
        }
        let file = options.open(path)?;
        // When a blob was read is known without the filesystem, which would look at each read whether to write it down. Not as the file
        // is opened: who may not set it for a file that is somebody else's would have made that file, and had an error. It is read all
        // the same.
        let _is_set = rustix::fs::fcntl_setfl(&file, OFlags::NOATIME).is_ok();
        Ok(Arc::new(file))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Name>> {
        let name = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            Ok(Name {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_dir: entry.file_type()?.is_dir(),
            })
        };
        fs::read_dir(path)?.map(name).collect()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all().map_err(sync_failed)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let filesystem = rustix::fs::statvfs(path)?;
        Ok(filesystem.f_bavail.saturating_mul(filesystem.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn fmt::Debug + Send + Sync>> {
        let mut lock = OpenOptions::new();
        let mut lock = lock.read(true).write(true).create(true).truncate(false).open(path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message, which is as clear without it.
                let _unread = lock.read_to_string(&mut holder);
                let holder = holder.trim().to_owned();
                return Err(io::Error::new(io::ErrorKind::WouldBlock, holder));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        lock.set_len(0)?;
        lock.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        Ok(Box::new(lock))
    }

    fn boot_id(&self) -> io::Result<BootId> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let number = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
        Ok(BootId(number.to_be_bytes()))
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut random = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        Ok(random)
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }

    fn read_cached(&self, buffer: &mut [u8], at: u64) -> io::Result<bool> {
        let wanted = buffer.len();
        match rustix::io::preadv2(self, &mut [IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == wanted => Ok(true),
            // Part of it is in memory, or the file ends: a read that may wait tells them apart.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            // A kernel or a filesystem that cannot say.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], mut at: u64) -> io::Result<()> {
        for pieces in pieces.chunks(PIECES_MAX) {
            let mut pieces = pieces.to_vec();
            let mut rest = &mut pieces[..];
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                match rustix::io::pwritev(self, rest, at) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        at += written as u64;
                        IoSlice::advance_slices(&mut rest, written);
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(self, FallocateFlags::KEEP_SIZE, 0, size) {
                // tmpfs gives up for any signal.
                Err(Errno::INTR) => {}
                // A filesystem without it: space is taken as it is written, and may run out then.
                Err(Errno::OPNOTSUPP) => return Ok(()),
                done => return Ok(done?),
            }
        }
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data().map_err(sync_failed)
    }

    fn as_file(&self) -> Option<&File> {
        Some(self)
    }
}

/// Takes its number from the error of a sync. That a disk is full passes; that a sync has found it so means that what was written is lost.
fn sync_failed(error: io::Error) -> io::Error {
    io::Error::other(error)
}
