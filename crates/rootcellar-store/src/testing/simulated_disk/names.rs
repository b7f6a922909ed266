//! The names on a simulated disk, and what becomes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    pub(super) files: BTreeMap<PathBuf, u64>,
    pub(super) dirs: BTreeSet<PathBuf>,
}

/// Something that happened to a name.
#[derive(Debug, Clone)]
pub(super) enum Change {
    MakeDir(PathBuf),
    /// The name now means this file.
    Put(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Change {
    /// Whether it is durable once `dir` is synced.
    pub(super) fn is_in(&self, dir: &Path) -> bool {
        let (Self::MakeDir(path) | Self::Put(path, _) | Self::Rename(_, path) | Self::Remove(path)) = self;
        path.parent() == Some(dir)
    }
}

impl Names {
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::MakeDir(path) => {
                self.dirs.insert(path.clone());
            }
            Change::Put(path, file) => {
                self.files.insert(path.clone(), *file);
            }
            Change::Rename(from, to) => {
                // It may be that the name never got to the disk.
                if let Some(file) = self.files.remove(from) {
                    self.files.insert(to.clone(), file);
                }
            }
            Change::Remove(path) => {
                self.files.remove(path);
            }
        }
    }

    /// Drops names in directories that are not there.
    pub(super) fn prune(&mut self) {
        let dirs = self.dirs.clone();
        let is_reachable = |path: &Path| {
            path.ancestors()
                .skip(1)
                .all(|dir| dir.parent().is_none() || dirs.contains(dir))
        };
        self.files.retain(|path, _| is_reachable(path));
        self.dirs.retain(|path| is_reachable(path));
    }
}
