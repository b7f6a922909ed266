//! The directory of a store: who may use it, and what it says about itself.
//!
//! ```text
//! <dir>/FORMAT      rootcellar store / version 2 / layout hybrid / id <32 hexadecimal digits>     one a line
//! <dir>/lock        locked (flock) while a process uses the store; its text is that process's id
//! <dir>/closed      there if the last process ended in good order; removed at the start
//! <dir>/failed.<boot id>      there if a sync has failed under that boot of the machine
//! ```
//!
//! `FORMAT` is written once, before anything else. A directory that holds other things and no `FORMAT` is somebody else's,
//! and is left alone.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::io::{BootId, Disk, Name, Open, read_small, remove_if_there, replace};
use crate::layout::StoreId;
use crate::{Error, ErrorKind, Result};

const VERSION: u32 = 2;
const TITLE: &str = "rootcellar store";
/// What may lie in the directory before `FORMAT` does: ours, and what a new filesystem brings.
const NEUTRAL: [&str; 3] = ["lock", "FORMAT.new", "lost+found"];
const TEXT_BYTES_MAX: u64 = 4096;

/// A store's directory, locked for this process.
#[derive(Debug)]
pub(crate) struct Home {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    _lock: Box<dyn fmt::Debug + Send + Sync>,
    id: StoreId,
    boot: BootId,
    /// Whether the process before this one ended in good order.
    was_closed: bool,
    /// Whether everything that was written under this boot of the machine reads back, synced or not.
    is_cache_whole: bool,
}

impl Home {
    /// Locks `path`, making it a store's directory, with this layout, if it is empty or absent.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if another process uses it; [`ErrorKind::InvalidArgument`] if it is not a store's, or
    /// one of another version or layout; I/O errors.
    pub(crate) fn claim(disk: &Arc<dyn Disk>, path: &Path, layout: &str) -> Result<Self> {
        disk.make_dir(path)
            .map_err(|error| opening(path, "making the directory", error))?;
        let names = disk
            .list(path)
            .map_err(|error| opening(path, "listing the directory", error))?;
        let has = |wanted: &str| names.iter().any(|name| name.name == wanted);
        if !has("FORMAT") {
            refuse_foreign(path, names.iter().map(|name| name.name.as_str()))?;
        }
        let lock = lock(&**disk, path)?;
        let id = if has("FORMAT") {
            let text =
                read_text(&**disk, &path.join("FORMAT")).map_err(|error| opening(path, "reading FORMAT", error))?;
            read_format(path, layout, &text)?
        } else {
            write_format(&**disk, path, layout).map_err(|error| opening(path, "writing FORMAT", error))?
        };
        let begin = || {
            let boot = disk.boot_id()?;
            // Durably, before anything else is written: else a crash would look like an orderly end.
            let was_closed = remove_if_there(&**disk, &path.join("closed"))?;
            disk.sync_dir(path)?;
            forget_failures_before(&**disk, path, boot, &names)?;
            let is_cache_whole = !has(&failed(boot));
            Ok((boot, was_closed, is_cache_whole))
        };
        let (boot, was_closed, is_cache_whole) =
            begin().map_err(|error| opening(path, "looking at the last end", error))?;
        Ok(Self {
            disk: disk.clone(),
            path: path.to_owned(),
            _lock: lock,
            id,
            boot,
            was_closed,
            is_cache_whole,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn id(&self) -> StoreId {
        self.id
    }

    pub(crate) fn boot(&self) -> BootId {
        self.boot
    }

    pub(crate) fn was_closed(&self) -> bool {
        self.was_closed
    }

    pub(crate) fn is_cache_whole(&self) -> bool {
        self.is_cache_whole
    }

    /// Says that this process ends in good order.
    pub(crate) fn note_closed(&self) -> io::Result<()> {
        replace(&*self.disk, &self.path.join("closed"), &[])
    }

    /// Says that a sync has failed. All of the note is its name, and it is not synced: who has to know of it runs under this boot,
    /// and sees every name.
    pub(crate) fn note_failed(&self) -> io::Result<()> {
        let path = self.path.join(failed(self.boot));
        match self.disk.open(&path, Open::Create { mode: 0o644 }) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }
}

/// Removes notes of failed syncs that are about earlier boots.
fn forget_failures_before(disk: &dyn Disk, path: &Path, boot: BootId, names: &[Name]) -> io::Result<()> {
    let is_past = |name: &&Name| name.name.starts_with("failed.") && name.name != failed(boot);
    for name in names.iter().filter(is_past) {
        remove_if_there(disk, &path.join(&name.name))?;
    }
    Ok(())
}

fn failed(boot: BootId) -> String {
    format!("failed.{:032x}", u128::from_be_bytes(boot.0))
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

/// Makes the names of a directory and of those above it durable: any of them may have been made a moment ago, by this process or
/// by one that was killed.
fn sync_way_to(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    for dir in path.ancestors().skip(1) {
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        match disk.sync_dir(dir) {
            // A directory that may not be read was not made by us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            done => done?,
        }
    }
    Ok(())
}

fn refuse_foreign<'a>(path: &Path, names: impl Iterator<Item = &'a str>) -> Result<()> {
    for name in names {
        if !NEUTRAL.contains(&name) {
            let reason = format!("is no store: it has no FORMAT file, but holds {name:?}; choose an empty directory");
            return Err(invalid(path, &reason));
        }
    }
    Ok(())
}

fn lock(disk: &dyn Disk, path: &Path) -> Result<Box<dyn fmt::Debug + Send + Sync>> {
    disk.lock(&path.join("lock")).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let reason = format!("{} is in use by process {error}", path.display());
            Error::new(ErrorKind::Unavailable, "open", reason)
        }
        _ => opening(path, "locking", error),
    })
}

fn read_text(disk: &dyn Disk, path: &Path) -> io::Result<String> {
    let bytes = read_small(disk, path, TEXT_BYTES_MAX)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read_format(path: &Path, layout: &str, text: &str) -> Result<StoreId> {
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
        let advice = match version {
            1 => "; version 1 was never released: move the directory away, and clients will fill a new one",
            _ => "",
        };
        let reason = format!("has the format version {version}, and this program knows version {VERSION}{advice}");
        return Err(invalid(path, &reason));
    }
    let (found, id) = (field("layout"), field("id"));
    match (found, id.and_then(parse_id)) {
        (Some(found), Some(id)) if found == layout => Ok(id),
        (Some(found), Some(_)) => {
            let reason =
                format!("has the layout {found:?}, not {layout:?}: a store keeps the layout that it was made with");
            Err(invalid(path, &reason))
        }
        _ => Err(invalid(path, "its FORMAT file is cut off")),
    }
}

fn parse_id(id: &str) -> Option<StoreId> {
    let number = u128::from_str_radix(id, 16).ok().filter(|_| id.len() == 32)?;
    Some(StoreId(number.to_be_bytes()))
}

/// The layout that the store at `path` was made with; `None` if there is no store yet.
pub(crate) fn layout_of(disk: &dyn Disk, path: &Path) -> Result<Option<String>> {
    let text = match read_text(disk, &path.join("FORMAT")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(opening(path, "reading FORMAT", error)),
    };
    let layout = text.lines().nth(2).and_then(|line| line.strip_prefix("layout "));
    Ok(layout.map(str::to_owned))
}

fn write_format(disk: &dyn Disk, path: &Path, layout: &str) -> io::Result<StoreId> {
    sync_way_to(disk, path)?;
    let id = StoreId(disk.random()?);
    let text = format!("{TITLE}\nversion {VERSION}\nlayout {layout}\nid {id}\n");
    replace(disk, &path.join("FORMAT"), &[IoSlice::new(text.as_bytes())])?;
    Ok(id)
}
