//! How large a tree may be, and how large one is.

use crate::directory::Directory;
use crate::{Error, PATH_BYTES_MAX, Result};

/// Bounds on one tree. A client could otherwise name any amount of work with a few kilobytes.
///
/// A tree that goes past one is an `INVALID_ARGUMENT`, since trying again cannot help; the message names limit and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeLimits {
    /// Paths below the root: what staging has to make. Counted once for every way that leads to a node, so that a small DAG
    /// with many paths counts as what it is.
    pub entries_max: u64,
    /// Distinct Directory messages: what has to be fetched.
    pub directories_max: u64,
    /// Bytes in one Directory message. A directory of 100,000 files has about ten million.
    pub directory_bytes_max: u64,
    /// Directories on the way from the root to the deepest one.
    pub depth_max: u64,
    /// Bytes in the longest path from the root.
    pub path_bytes_max: u64,
    /// Bytes in all names and targets of links, each counted once for every way that leads there: what a staged root takes beside the
    /// content of its files.
    pub text_bytes_max: u64,
}

/// The depth follows from the longest path, in which a level takes two bytes at least; the numbers are several times what
/// whole-system roots hold.
impl Default for TreeLimits {
    fn default() -> Self {
        Self {
            entries_max: 4_000_000,
            directories_max: 500_000,
            directory_bytes_max: 32 << 20,
            depth_max: PATH_BYTES_MAX as u64 / 2 + 1,
            path_bytes_max: PATH_BYTES_MAX as u64,
            text_bytes_max: 256 << 20,
        }
    }
}

impl TreeLimits {
    pub(super) fn check(&self, extent: &Extent) -> Result<()> {
        self.check_entries(extent.entries)?;
        within("depth_max", extent.depth, self.depth_max)?;
        within("path_bytes_max", extent.path_bytes, self.path_bytes_max)?;
        within("text_bytes_max", extent.text_bytes, self.text_bytes_max)
    }

    pub(super) fn check_entries(&self, entries: u64) -> Result<()> {
        within("entries_max", entries, self.entries_max)
    }

    pub(super) fn check_directories(&self, directories: usize) -> Result<()> {
        within("directories_max", directories as u64, self.directories_max)
    }

    pub(super) fn check_depth(&self, depth: u64) -> Result<()> {
        within("depth_max", depth, self.depth_max)
    }

    pub(super) fn check_directory_bytes(&self, bytes: u64) -> Result<()> {
        within("directory_bytes_max", bytes, self.directory_bytes_max)
    }
}

fn within(limit: &str, value: u64, max: u64) -> Result<()> {
    if value <= max {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "the tree is too large: {value} is past the limit {limit} = {max}"
    )))
}

/// How far a tree reaches below one directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Paths, each counted once for every way that leads there; stops at the largest number.
    pub entries: u64,
    /// Directories on the longest way down; a directory without directories has none.
    pub depth: u64,
    /// Bytes in the longest path, of names and the slashes between them.
    pub path_bytes: u64,
    /// Bytes in names and in targets of links, each counted once for every way that leads there; stops at the largest number.
    pub text_bytes: u64,
}

impl Extent {
    /// Counts the children that are no directories.
    pub(super) fn of_leaves(directory: &Directory) -> Self {
        Self {
            entries: (directory.files().len() + directory.symlinks().len()) as u64,
            depth: 0,
            path_bytes: directory.longest_leaf_name() as u64,
            text_bytes: directory.leaf_text_bytes() as u64,
        }
    }

    /// Counts a directory and all below it.
    pub(super) fn add_directory(&mut self, name_bytes: usize, below: &Self) {
        self.entries = self.entries.saturating_add(below.entries).saturating_add(1);
        self.path_bytes = self.path_bytes.max(name_bytes as u64);
        let text_bytes = below.text_bytes.saturating_add(name_bytes as u64);
        self.text_bytes = self.text_bytes.saturating_add(text_bytes);
        self.depth = self.depth.max(below.depth.saturating_add(1));
        if below.path_bytes > 0 {
            let path_bytes = (name_bytes as u64 + 1).saturating_add(below.path_bytes);
            self.path_bytes = self.path_bytes.max(path_bytes);
        }
    }
}
