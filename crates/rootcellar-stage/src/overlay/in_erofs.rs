//! A tree as an EROFS image over the store's own files: the lower layer for a server that may mount.
//!
//! ```text
//!   Directories ──walk──> erofs::Tree ──encode──> a file without a name ──mount──> a lower layer
//!                             ▲
//!   files of the tree ──> where each lies: a pack is a device, another file is named by its path
//! ```

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rootcellar_digest::Digest;
use rootcellar_reapi::{Error, InputTree};
use rustix::fs::{CWD, Mode, OFlags};

use super::mounts;
use super::places::Places;
use crate::attributes::Attributes;
use crate::erofs::{self, ON_DEVICE_BYTES_MAX, Source, Tree};
use crate::write::io_error;

/// Makes and mounts the image of a tree, all of whose files are under a lease. Tells its size, too. Blocks.
pub(super) fn mount(
    places: &Places,
    tree: &InputTree,
    hidden: &[&'static str],
    dir: &Path,
) -> Result<(OwnedFd, u64), Error> {
    let encoded = erofs::encode(plant(tree, places, hidden)?);
    let mount = mount_encoded(&encoded, places.packs(), dir)?;
    Ok((mount, encoded.len() as u64))
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
    erofs::Attributes {
        mode: u16::try_from(attributes.mode).expect("permission bits"),
        mtime: attributes.mtime.tv_sec,
        mtime_nanos: u32::try_from(attributes.mtime.tv_nsec).expect("less than a second"),
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
