//! After a crash: files that no log speaks of.
//!
//! A process can be killed between making a blob's file and writing its entry, and a power cut can lose the entry and keep the
//! file. Such a file is no blob, and nobody was told that it is one; but it takes room that nobody counts. So the start after a
//! crash looks at the names in all directories, in the background, and removes what is not known.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use rootcellar_digest::{Digest, DigestFunction};

use super::name::parse;
use crate::io::Open;
use crate::layout::{Ground, Place, Region};

/// What is left to be swept.
#[derive(Debug)]
pub(super) enum Sweep {
    /// Nothing has been looked at yet. Files made since the start are noted.
    Waiting(HashSet<PathBuf>),
    Dirs {
        left: Vec<(DigestFunction, PathBuf)>,
        made: HashSet<PathBuf>,
    },
    Done,
}

impl Sweep {
    pub(super) fn new(is_needed: bool) -> Self {
        if is_needed {
            Self::Waiting(HashSet::new())
        } else {
            Self::Done
        }
    }

    /// Says that a file is being made. It need not have its size yet.
    pub(super) fn note(&mut self, path: &Path) {
        match self {
            Self::Waiting(made) | Self::Dirs { made, .. } => {
                made.insert(path.to_owned());
            }
            Self::Done => {}
        }
    }

    /// Looks at one directory, and has `remove` remove files from it. Tells whether there are more.
    pub(super) fn step(
        &mut self,
        ground: &Ground,
        root: &Path,
        is_live: &dyn Fn(&Digest, Place) -> bool,
        remove: impl Fn(&Path, &[PathBuf]) -> io::Result<()>,
    ) -> io::Result<bool> {
        match self {
            Self::Done => return Ok(false),
            Self::Waiting(made) => {
                *self = Self::Dirs {
                    left: dirs(ground, root)?,
                    made: std::mem::take(made),
                };
            }
            Self::Dirs { left, made } => match left.pop() {
                Some((function, dir)) => {
                    let is_known = |digest: &Digest, number| {
                        let place = Place::new(Region::ALONE, number);
                        place.is_some_and(|place| is_live(digest, place))
                    };
                    let swept =
                        orphans(ground, function, &dir, made, is_known).and_then(|orphans| remove(&dir, &orphans));
                    if let Err(error) = swept {
                        // Once more, when the others were looked at.
                        left.insert(0, (function, dir));
                        return Err(error);
                    }
                }
                None => *self = Self::Done,
            },
        }
        Ok(true)
    }
}

fn dirs(ground: &Ground, root: &Path) -> io::Result<Vec<(DigestFunction, PathBuf)>> {
    let mut dirs = Vec::new();
    for function in ground.disk.list(root)? {
        let Some(known) = function.name.parse().ok().filter(|_| function.is_dir) else {
            continue;
        };
        let of_function = root.join(function.name);
        let fans = ground.disk.list(&of_function)?;
        dirs.extend(fans.into_iter().map(|fan| (known, of_function.join(fan.name))));
    }
    // In one order, so that what happens can be repeated.
    dirs.sort_unstable_by(|(_, a), (_, b)| b.cmp(a));
    Ok(dirs)
}

/// The files in a directory that no log speaks of, and that were not made since.
fn orphans(
    ground: &Ground,
    function: DigestFunction,
    dir: &Path,
    made: &HashSet<PathBuf>,
    is_known: impl Fn(&Digest, u32) -> bool,
) -> io::Result<Vec<PathBuf>> {
    let fan = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut orphans = Vec::new();
    for file in ground.disk.list(dir)? {
        let path = dir.join(&file.name);
        if made.contains(&path) {
            continue;
        }
        let size = ground.disk.open(&path, Open::Read)?.size()?;
        match parse(function, &fan, &file.name, size) {
            Some((digest, number)) if is_known(&digest, number) => {}
            Some((digest, _)) => {
                tracing::info!(%digest, "removing the file of a blob that was not stored to the end");
                orphans.push(path);
            }
            None => tracing::warn!(path = %path.display(), "leaving alone what is no blob's file"),
        }
    }
    Ok(orphans)
}
