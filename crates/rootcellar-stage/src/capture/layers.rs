//! A root as its action left it: what the action changed, over the tree that it was given.
//!
//! ```text
//!   upper   a directory of the host: everything that the action made or changed
//!   lower   Directories of the input tree, in memory: what it left alone. A copied root has none, and is all upper.
//! ```
//!
//! What the upper directory says, in the words of overlayfs:
//!
//! | upper has | the root has |
//! |---|---|
//! | nothing of that name | what the lower one has |
//! | a character device 0:0 (a *whiteout*) | nothing |
//! | a directory that is marked opaque | that directory, and nothing of the lower one below it |
//! | another directory, over a lower directory | both, merged by these rules |
//! | anything else | just that |
//!
//! That something is there does not say that it was changed: opening a file for writing is enough to bring it up.

use std::collections::VecDeque;

use rootcellar_digest::Digest;
use rootcellar_reapi::tree::TreeDirectory;
use rootcellar_reapi::{Error, Node};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::lower::Lower;
use super::{reading, utf8};
use crate::attributes::Attributes;
use crate::beneath::{Beneath, file_type, join};

/// As many links as the kernel follows (`path_resolution(7)`).
const LINKS_MAX: u32 = 40;

/// Both layers of a root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layers<'a> {
    pub(super) upper: &'a Beneath,
    pub(super) lower: Option<&'a Lower>,
    /// The attribute of directories of the upper layer that hide what is below them.
    pub(super) opaque: &'static str,
}

/// A directory of the root.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    /// From the root, without links.
    pub(super) path: String,
    /// Whether the upper layer has it.
    pub(super) is_upper: bool,
    pub(super) lower: Option<&'a TreeDirectory>,
    pub(super) attributes: Attributes,
}

/// Something in the root.
#[derive(Debug, Clone)]
pub(super) enum Found<'a> {
    Directory(Place<'a>),
    File(Content, Attributes),
    Link(String, Attributes),
    /// A socket, a FIFO or a device.
    Special,
}

/// What a file holds.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// What is at this path of the upper layer.
    Upper(String),
    /// What was staged: it was not changed.
    Staged(Digest),
}

impl<'a> Layers<'a> {
    pub(super) fn root(&self) -> Result<Place<'a>, Error> {
        let stat = self.upper.stat("").map_err(|error| reading("", error))?;
        Ok(Place {
            path: String::new(),
            is_upper: true,
            lower: self.lower.map(Lower::root),
            attributes: Attributes::of_stat(&stat),
        })
    }

    /// What is at a path. Links on the way lead where they lead for a process whose root this is; one at the end is followed if
    /// that is wanted.
    pub(super) fn find(&self, path: &str, follow: bool) -> Result<Option<Found<'a>>, Error> {
        let mut way = vec![self.root()?];
        let mut names: VecDeque<String> = path.split('/').map(str::to_owned).collect();
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    if way.len() > 1 {
                        way.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let is_last = names.is_empty();
            let at = way.last().expect("the root stays");
            match self.look_up(at, &name)? {
                Some(Found::Directory(place)) => way.push(place),
                Some(Found::Link(target, _)) if follow || !is_last => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Ok(None);
                    }
                    if target.starts_with('/') {
                        way.truncate(1);
                    }
                    for name in target.rsplit('/') {
                        names.push_front(name.to_owned());
                    }
                }
                found => return Ok(found.filter(|_| is_last)),
            }
        }
        Ok(way.pop().map(Found::Directory))
    }

    /// What a directory has under a name.
    pub(super) fn look_up(&self, at: &Place<'a>, name: &str) -> Result<Option<Found<'a>>, Error> {
        if !at.is_upper {
            return Ok(self.look_below(at, name));
        }
        let path = join(&at.path, name);
        let stat = match self.upper.stat(&path) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(self.look_below(at, name)),
            Err(error) => return Err(reading(&path, error)),
        };
        let attributes = Attributes::of_stat(&stat);
        Ok(Some(match file_type(&stat) {
            FileType::Directory => Found::Directory(Place {
                lower: self.merged_with(at, name, &path)?,
                is_upper: true,
                attributes,
                path,
            }),
            FileType::RegularFile => Found::File(Content::Upper(path), attributes),
            FileType::Symlink => {
                let target = self.upper.read_link(&path).map_err(|error| reading(&path, error))?;
                Found::Link(utf8(&path, target)?, attributes)
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => return Ok(None),
            _ => Found::Special,
        }))
    }

    /// What the lower layer has under a name.
    pub(super) fn look_below(&self, at: &Place<'a>, name: &str) -> Option<Found<'a>> {
        let (lower, directory) = (self.lower?, at.lower?);
        Some(match directory.directory.child(name)? {
            Node::Directory(node) => {
                let directory = lower.directory(&node.digest);
                Found::Directory(Place {
                    path: join(&at.path, name),
                    is_upper: false,
                    lower: Some(directory),
                    attributes: Attributes::of_directory(directory.directory.properties()),
                })
            }
            Node::File(node) => Found::File(
                Content::Staged(node.digest),
                Attributes::of_file(&node.properties, node.is_executable),
            ),
            Node::Symlink(node) => Found::Link(node.target.clone(), Attributes::of_link(&node.properties)),
        })
    }

    /// The lower directory that shows through the upper one at `path`.
    fn merged_with(&self, at: &Place<'a>, name: &str, path: &str) -> Result<Option<&'a TreeDirectory>, Error> {
        let (Some(lower), Some(directory)) = (self.lower, at.lower) else {
            return Ok(None);
        };
        let Some(Node::Directory(node)) = directory.directory.child(name) else {
            return Ok(None);
        };
        let is_opaque = self
            .upper
            .is_marked(path, self.opaque)
            .map_err(|error| reading(path, error))?;
        Ok((!is_opaque).then(|| lower.directory(&node.digest)))
    }
}
