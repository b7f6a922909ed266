//! The directory of a store: who may use it, and what it says about itself.
//!
//! ```text
//! <dir>/FORMAT      rootcellar store / version 1 / layout loose / id <32 hexadecimal digits>     one a line
//! <dir>/lock        locked (flock) while a process uses the store; its text is that process's id
//! ```
//!
//! `FORMAT` is written once, before anything else. A directory that holds other things and no `FORMAT` is somebody else's,
//! and is left alone.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result};

const VERSION: u32 = 1;
const TITLE: &str = "rootcellar store";
const LAYOUT: &str = "loose";
/// What may lie in the directory before `FORMAT` does: ours, and what a new filesystem brings.
const NEUTRAL: [&str; 3] = ["lock", "FORMAT.new", "lost+found"];

/// A store's directory, locked for this process.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    /// The directory itself, to sync it.
    dir: File,
    _lock: File,
    id: String,
}

impl Home {
    /// Locks `path`, making it a store's directory if it is empty or absent.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if another process uses it; [`ErrorKind::InvalidArgument`] if it is not a store's, or
    /// a later version's; I/O errors.
    pub(super) fn claim(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|error| opening(path, "making the directory", error))?;
        refuse_foreign(path)?;
        let lock = lock(path)?;
        let dir = File::open(path).map_err(|error| opening(path, "opening the directory", error))?;
        let id = match fs::read_to_string(path.join("FORMAT")) {
            Ok(text) => read_format(path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_format(path, &dir).map_err(|error| opening(path, "writing FORMAT", error))?
            }
            Err(error) => return Err(opening(path, "reading FORMAT", error)),
        };
        let path = path.to_owned();
        Ok(Self {
            path,
            dir,
            _lock: lock,
            id,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Makes the directory's own entries durable.
    pub(super) fn sync_entries(&self) -> io::Result<()> {
        self.dir.sync_all()
    }

    /// Makes all that was written to the filesystem durable.
    pub(super) fn sync_filesystem(&self) -> io::Result<()> {
        rustix::fs::syncfs(&self.dir).map_err(io::Error::from)
    }
}

pub(super) fn opening(path: &Path, action: &str, error: io::Error) -> Error {
    Error::io("open", format!("{}: {action}", path.display()), error)
}

fn invalid(path: &Path, reason: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        "open",
        format!("{}: {reason}", path.display()),
    )
}

fn refuse_foreign(path: &Path) -> Result<()> {
    let list_error = |error| opening(path, "listing the directory", error);
    if fs::exists(path.join("FORMAT")).map_err(list_error)? {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(list_error)? {
        let name = entry.map_err(list_error)?.file_name();
        if !NEUTRAL.iter().any(|neutral| name == *neutral) {
            let reason = format!("is no store: it has no FORMAT file, but holds {name:?}; choose an empty directory");
            return Err(invalid(path, &reason));
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let lock_error = |error| opening(path, "locking", error);
    let mut lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join("lock"))
        .map_err(lock_error)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message, which is as clear without it.
            let _unread = lock.read_to_string(&mut holder);
            let reason = format!("{} is in use by process {}", path.display(), holder.trim());
            return Err(Error::new(ErrorKind::Unavailable, "open", reason));
        }
        Err(TryLockError::Error(error)) => return Err(lock_error(error)),
    }
    lock.set_len(0)
        .and_then(|()| lock.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .map_err(lock_error)?;
    Ok(lock)
}

fn read_format(path: &Path, text: &str) -> Result<String> {
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(invalid(path, "is no store: its FORMAT file is something else's"));
    }
    let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let version = field("version").and_then(|version| version.parse::<u32>().ok());
    let Some(version) = version else {
        return Err(invalid(path, "its FORMAT file names no version"));
    };
    if version != VERSION {
        let reason = format!("has the format version {version}, and this program knows version {VERSION}");
        return Err(invalid(path, &reason));
    }
    match (field("layout"), field("id")) {
        (Some(LAYOUT), Some(id)) if !id.is_empty() => Ok(id.to_owned()),
        (Some(layout), Some(_)) => {
            let reason = format!("has the layout {layout:?}, and this program knows {LAYOUT:?}");
            Err(invalid(path, &reason))
        }
        _ => Err(invalid(path, "its FORMAT file is cut off")),
    }
}

fn write_format(path: &Path, dir: &File) -> io::Result<String> {
    let id = random_id()?;
    let new = path.join("FORMAT.new");
    let mut file = File::create(&new)?;
    write!(file, "{TITLE}\nversion {VERSION}\nlayout {LAYOUT}\nid {id}\n")?;
    file.sync_all()?;
    fs::rename(new, path.join("FORMAT"))?;
    dir.sync_all()?;
    Ok(id)
}

fn random_id() -> io::Result<String> {
    let mut random = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(format!("{:032x}", u128::from_le_bytes(random)))
}
