//! Where the files of a tree lie in the store.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rootcellar_reapi::{Error, ErrorKind};
use rootcellar_store::Location;

use super::leased::LeasedDirectory;
use crate::erofs::Source;

/// Bytes of a pack between two places that a blob can begin at.
const SECTOR_BYTES: u64 = 512;

/// Files by their numbers among all that a tree mentions, as
/// [`InputTree::mentioned_files`](rootcellar_reapi::InputTree::mentioned_files) names them.
pub(super) struct Places {
    files: Vec<Place>,
    /// The paths of those that lie by themselves, from the directory of all such files, with a slash before each.
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
    /// Where the files of leased directories lie, in their order. The store keeps those that lie by themselves below `loose_dir`.
    ///
    /// # Errors
    /// If one lies where no root can have it from.
    pub(super) fn of(directories: &[Arc<LeasedDirectory>], loose_dir: Option<&Path>) -> Result<Self, Error> {
        let mut places = Self {
            files: Vec::with_capacity(directories.iter().map(|directory| directory.files.len()).sum()),
            loose: Vec::new(),
            packs: Packs::default(),
        };
        for location in directories.iter().flat_map(|directory| &directory.files) {
            let place = match location {
                None => Place::Nowhere,
                Some(Location::Packed { path, offset }) => Place::Pack {
                    number: places.packs.number(path)?,
                    sector: u32::try_from(offset / SECTOR_BYTES).expect("a pack is smaller than 2 TiB"),
                },
                Some(Location::Loose { path }) => {
                    places.loose.push(redirect(path, loose_dir)?);
                    Place::Loose(places.loose.len() - 1)
                }
                Some(other) => {
                    let reason = format!("an image cannot name the place {other:?}");
                    return Err(Error::new(ErrorKind::Internal, reason));
                }
            };
            places.files.push(place);
        }
        Ok(places)
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
