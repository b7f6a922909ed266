//! Where the files of a tree lie in the store.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rootcellar_reapi::{Error, ErrorKind};
use rootcellar_store::Location;

use crate::erofs::Source;

/// Bytes of a pack between two places that a blob can begin at.
const SECTOR_BYTES: u64 = 512;

/// Files by their numbers among all that a tree mentions, as
/// [`InputTree::mentioned_files`](rootcellar_reapi::InputTree::mentioned_files) names them.
pub(super) struct Places {
    files: Vec<Place>,
    /// The directory of all files that lie by themselves.
    loose_dir: Option<PathBuf>,
    /// Their paths from there, with a slash before each.
    loose: Vec<String>,
    packs: Packs,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// An empty file.
    Nowhere,
    Pack {
        number: u16,
        sector: u32,
    },
    /// By its number among them.
    Loose(usize),
}

impl Places {
    /// Makes room for so many files of a store.
    pub(super) fn new(files: usize, loose_dir: Option<PathBuf>) -> Self {
        Self {
            files: Vec::with_capacity(files),
            loose_dir,
            loose: Vec::new(),
            packs: Packs::default(),
        }
    }

    /// Adds the next file.
    ///
    /// # Errors
    /// If it lies where no root can have it from.
    pub(super) fn add(&mut self, location: Option<Location>) -> Result<(), Error> {
        let place = match location {
            None => Place::Nowhere,
            Some(Location::Packed { path, offset }) => Place::Pack {
                number: self.packs.number(&path)?,
                sector: u32::try_from(offset / SECTOR_BYTES).expect("a pack is smaller than 2 TiB"),
            },
            Some(Location::Loose { path }) => {
                self.loose.push(redirect(&path, self.loose_dir.as_deref())?);
                Place::Loose(self.loose.len() - 1)
            }
            Some(other) => {
                let reason = format!("an image cannot name the place {other:?}");
                return Err(Error::new(ErrorKind::Internal, reason));
            }
        };
        self.files.push(place);
        Ok(())
    }

    /// Where an image finds the file with this number.
    pub(super) fn source(&self, number: usize) -> Source<'_> {
        match self.files[number] {
            // An empty file lies nowhere, whatever is said here.
            Place::Nowhere => Source::Redirect(""),
            Place::Pack { number, sector } => Source::Device { number, sector },
            Place::Loose(number) => Source::Redirect(&self.loose[number]),
        }
    }

    /// The path of the file with this number, from the directory of all that lie by themselves, if it is one of them.
    pub(super) fn loose(&self, number: usize) -> Option<&str> {
        match self.files[number] {
            Place::Loose(number) => Some(&self.loose[number]),
            Place::Nowhere | Place::Pack { .. } => None,
        }
    }

    /// The packs, by their number less one.
    pub(super) fn packs(&self) -> &[Arc<Path>] {
        &self.packs.paths
    }
}

/// Gives packs their numbers.
#[derive(Default)]
struct Packs {
    paths: Vec<Arc<Path>>,
    numbers: HashMap<Arc<Path>, u16>,
    /// The one that was asked for last: files of a tree were mostly put together.
    latest: Option<(Arc<Path>, u16)>,
}

impl Packs {
    fn number(&mut self, path: &Arc<Path>) -> Result<u16, Error> {
        if let Some((latest, number)) = &self.latest
            && Arc::ptr_eq(latest, path)
        {
            return Ok(*number);
        }
        let number = match self.numbers.get(path) {
            Some(number) => *number,
            None => {
                let number = u16::try_from(self.paths.len() + 1).map_err(|_| too_many_packs())?;
                self.paths.push(path.clone());
                self.numbers.insert(path.clone(), number);
                number
            }
        };
        self.latest = Some((path.clone(), number));
        Ok(number)
    }
}

fn too_many_packs() -> Error {
    Error::resource_exhausted(format!(
        "the files of an input root lie in more than {} packs",
        u16::MAX
    ))
}

/// What overlayfs is told: the path from the directory, with a slash before it.
fn redirect(path: &Path, loose_dir: Option<&Path>) -> Result<String, Error> {
    let below = loose_dir
        .and_then(|dir| path.strip_prefix(dir).ok())
        .and_then(Path::to_str);
    match below {
        Some(below) => Ok(format!("/{below}")),
        None => Err(Error::new(
            ErrorKind::Internal,
            format!("the store has a file outside its directory: {}", path.display()),
        )),
    }
}
