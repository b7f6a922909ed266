//! A tree as an EROFS image over the store's own files: the lower layer for a server that may mount.
//!
//! ```text
//!   Directories ──walk──> erofs::Tree ──encode──> a file without a name ──mount──> a lower layer
//!                             ▲
//!   files of the tree ──> where each lies: a pack is a device, another file is named by its path
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rootcellar_digest::Digest;
use rootcellar_reapi::{Error, ErrorKind, InputTree};
use rootcellar_store::Location;
use rustix::fs::{CWD, Mode, OFlags};

use super::{mounts, redirect};
use crate::attributes::Attributes;
use crate::erofs::{self, ON_DEVICE_BYTES_MAX, Source, Tree};
use crate::write::io_error;

/// Bytes of a pack between two places that a blob can begin at.
const SECTOR_BYTES: u64 = 512;

/// Makes and mounts the image of a tree, all of whose files are under a lease. Tells its size, too. Blocks.
pub(super) fn mount(
    places: &Places,
    tree: &InputTree,
    hidden: &[&'static str],
    dir: &Path,
) -> Result<(OwnedFd, u64), Error> {
    let encoded = erofs::encode(plant(tree, places, hidden)?);
    let mount = mount_encoded(&encoded, &places.packs, dir)?;
    Ok((mount, encoded.len() as u64))
}

/// Where the files of a tree lie.
pub(super) struct Places {
    /// As [`InputTree::mentioned_files`] names them.
    files: Vec<Place>,
    /// The paths of those that lie by themselves, from the directory of all such files.
    loose: Vec<String>,
    /// The packs among them, by their number less one.
    packs: Vec<Arc<Path>>,
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
    pub(super) fn of(locations: &[Option<Location>], loose_dir: Option<&Path>) -> Result<Self, Error> {
        let mut files = Vec::with_capacity(locations.len());
        let (mut packs, mut loose) = (Packs::default(), Vec::new());
        for location in locations {
            files.push(match location {
                None => Place::Nowhere,
                Some(Location::Packed { path, offset }) => Place::Pack {
                    number: packs.number(path)?,
                    sector: u32::try_from(offset / SECTOR_BYTES).expect("a pack is smaller than 2 TiB"),
                },
                Some(Location::Loose { path }) => {
                    loose.push(redirect(path, loose_dir)?);
                    Place::Loose(loose.len() - 1)
                }
                Some(other) => {
                    let reason = format!("an image cannot name the place {other:?}");
                    return Err(Error::new(ErrorKind::Internal, reason));
                }
            });
        }
        Ok(Self {
            files,
            loose,
            packs: packs.paths,
        })
    }

    fn source(&self, number: usize) -> Source<'_> {
        match self.files[number] {
            // An empty file lies nowhere, whatever is said here.
            Place::Nowhere => Source::Redirect(""),
            Place::Pack { number, sector } => Source::Device { number, sector },
            Place::Loose(number) => Source::Redirect(&self.loose[number]),
        }
    }
}

fn too_many_packs() -> Error {
    Error::resource_exhausted(format!(
        "the files of an input root lie in more than {} packs",
        u16::MAX
    ))
}

fn too_large(digest: &Digest) -> Error {
    Error::resource_exhausted(format!(
        "the file {digest} lies in a pack, of which files of at most {ON_DEVICE_BYTES_MAX} bytes can be staged"
    ))
}

/// The tree as the image shows it.
fn plant<'a>(tree: &'a InputTree, places: &'a Places, made: &[&'static str]) -> Result<Tree<'a>, Error> {
    // Where the files of each directory begin among all that are mentioned.
    let mut next = 0;
    let begins = tree.directories().iter().map(|directory| {
        let begin = next;
        next += directory.directory.files().len();
        begin
    });
    let begins: Vec<usize> = begins.collect();
    let mut planted = Tree::new(attributes(Attributes::of_directory(tree.root().properties())));
    for name in made {
        planted.add_directory(Tree::ROOT, name, attributes(Attributes::of_made_directory()));
    }
    let mut pending = vec![(Tree::ROOT, 0)];
    while let Some((number, position)) = pending.pop() {
        let directory = &tree.directories()[position].directory;
        planted.reserve(number, directory.len());
        for (file, mentioned) in directory.files().iter().zip(begins[position]..) {
            let look = Attributes::of_file(&file.properties, file.is_executable);
            let (size, source) = (file.digest.size_bytes(), places.source(mentioned));
            if size > ON_DEVICE_BYTES_MAX && matches!(source, Source::Device { .. }) {
                return Err(too_large(&file.digest));
            }
            planted.add_file(number, file.name.as_str(), attributes(look), size, source);
        }
        for link in directory.symlinks() {
            let look = Attributes::of_link(&link.properties);
            planted.add_link(number, link.name.as_str(), attributes(look), &link.target);
        }
        for (node, position) in directory.directories().iter().zip(tree.children(position)) {
            let look = Attributes::of_directory(tree.directories()[*position].directory.properties());
            let child = planted.add_directory(number, node.name.as_str(), attributes(look));
            pending.push((child, *position));
        }
    }
    Ok(planted)
}

pub(super) fn attributes(attributes: Attributes) -> erofs::Attributes {
    let nanos = u32::try_from(attributes.mtime.tv_nsec).expect("less than a second");
    erofs::Attributes {
        mode: u16::try_from(attributes.mode).expect("permission bits"),
        mtime: (attributes.mtime.tv_sec, nanos),
    }
}

fn mount_encoded(encoded: &[u8], packs: &[Arc<Path>], dir: &Path) -> Result<OwnedFd, Error> {
    let write = || {
        let mut image = tempfile::tempfile_in(dir)?;
        image.write_all(encoded)?;
        Ok::<File, std::io::Error>(image)
    };
    let image = write().map_err(|error| io_error("writing an image", error))?;
    let open = |path: &Arc<Path>| {
        rustix::fs::openat(CWD, &**path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| io_error(format!("opening the pack {}", path.display()), error))
    };
    let packs: Vec<OwnedFd> = packs.iter().map(open).collect::<Result<_, _>>()?;
    mounts::mount_image(&image, &packs).map_err(|error| io_error("mounting an image", error))
}
