//! How much of the disk an action has taken.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use rootcellar_reapi::{Error, ErrorKind};
use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use crate::beneath::{Beneath, file_type};
use crate::write::staging;

/// The unit of `st_blocks` (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// Bytes of the disk that all below a directory take; not much more than `enough` is counted. Whatever goes meanwhile is not there.
pub(crate) fn written_bytes(root: &Beneath, enough: u64) -> Result<u64, Error> {
    let mut bytes = 0;
    let mut pending = vec![OsString::new()];
    while let Some(path) = pending.pop() {
        match add_directory(root, &path, &mut pending) {
            Ok(added) => bytes += added,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(Errno::NAMETOOLONG) => {
                let reason = "the action nests directories deeper than a path is long";
                return Err(Error::new(ErrorKind::FailedPrecondition, reason));
            }
            Err(error) => return Err(staging(&path.to_string_lossy(), error)),
        }
        if bytes > enough {
            break;
        }
    }
    Ok(bytes)
}

fn add_directory(root: &Beneath, path: &OsStr, pending: &mut Vec<OsString>) -> rustix::io::Result<u64> {
    let directory = root.open_own_dir(path)?;
    let mut bytes = 0;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        // A file with several names counts once, in parts.
        #[allow(clippy::useless_conversion, reason = "the type has 32 bits on other machines")]
        let links = u64::from(stat.st_nlink).max(1);
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        if file_type(&stat) == FileType::Directory {
            bytes += blocks * BLOCK_BYTES;
            let mut below = path.to_owned();
            if !below.is_empty() {
                below.push("/");
            }
            below.push(OsStr::from_bytes(name.to_bytes()));
            pending.push(below);
        } else {
            bytes += blocks * BLOCK_BYTES / links;
        }
    }
    Ok(bytes)
}

/// Bytes that are free on the filesystem of a directory for users other than root, and all that there are.
pub(crate) fn disk_room(root: &Beneath) -> Result<(u64, u64), Error> {
    let stat = rustix::fs::fstatvfs(root).map_err(|error| staging("", error))?;
    Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}
