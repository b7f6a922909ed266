//! A tree as the DAG that it is: each distinct Directory once, parents before children.
//!
//! Everything here is a loop over distinct directories. Nothing calls itself, so that no depth overflows a stack, and nothing
//! goes along paths, of which a DAG of thirty directories can have 2^30.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestMap, Secret};

use super::Extent;
use crate::directory::Directory;
use crate::{Error, Result};

/// A Directory of a tree: its name, its bytes, and what they mean.
#[derive(Debug, Clone)]
pub struct TreeDirectory {
    /// Its digest.
    pub digest: Digest,
    /// The message as it was stored.
    pub encoded: Bytes,
    /// The message as it was read.
    pub directory: Directory,
}

/// Directories in topological order, the root first.
#[derive(Debug, Clone)]
pub(super) struct Graph {
    directories: Vec<Arc<TreeDirectory>>,
    ids: DigestMap<usize>,
}

impl Graph {
    /// Orders what can be reached from `root` and drops the rest. The order follows from the tree alone.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if a directory that is referred to is not among those `found`, or if the tree contains itself, which
    /// no one can make as long as hashes cannot be chosen.
    pub(super) fn sort(root: Digest, found: DigestMap<Arc<TreeDirectory>>) -> Result<Self> {
        let mut parents = count_parents(root, &found)?;
        let reachable = parents.len();
        let mut found = found;
        let mut graph = Self {
            directories: Vec::with_capacity(reachable),
            ids: DigestMap::with_capacity_and_hasher(reachable, Secret::default()),
        };
        let mut ready: VecDeque<Digest> = parents
            .get(&root)
            .filter(|count| **count == 0)
            .map(|_| root)
            .into_iter()
            .collect();
        while let Some(digest) = ready.pop_front() {
            let next = found
                .remove(&digest)
                .expect("a directory is ready once, and was counted because it was found");
            for child in next.directory.directories() {
                let left = parents
                    .get_mut(&child.digest)
                    .expect("every reachable directory was counted");
                *left -= 1;
                if *left == 0 {
                    ready.push_back(child.digest);
                }
            }
            graph.ids.insert(digest, graph.directories.len());
            graph.directories.push(next);
        }
        if graph.directories.len() < reachable {
            return Err(Error::invalid_argument(format!("the tree {root} contains itself")));
        }
        Ok(graph)
    }

    /// How far the tree reaches below its root.
    pub(super) fn measure(&self) -> Extent {
        let mut extents = vec![Extent::default(); self.directories.len()];
        for (id, TreeDirectory { directory, .. }) in
            self.directories.iter().map(|directory| &**directory).enumerate().rev()
        {
            let mut extent = Extent::default();
            for file in directory.files() {
                extent.add_leaf(file.name.as_str().len());
            }
            for symlink in directory.symlinks() {
                extent.add_leaf(symlink.name.as_str().len());
            }
            for child in directory.directories() {
                extent.add_directory(child.name.as_str().len(), &extents[self.ids[&child.digest]]);
            }
            extents[id] = extent;
        }
        extents[0]
    }

    pub(super) fn directories(&self) -> &[Arc<TreeDirectory>] {
        &self.directories
    }

    pub(super) fn position(&self, digest: &Digest) -> Option<usize> {
        self.ids.get(digest).copied()
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&TreeDirectory> {
        self.ids.get(digest).map(|id| &*self.directories[*id])
    }
}

/// How often each directory that can be reached is referred to.
fn count_parents(root: Digest, found: &DigestMap<Arc<TreeDirectory>>) -> Result<DigestMap<usize>> {
    let mut parents = DigestMap::from_iter([(root, 0)]);
    let mut pending = vec![root];
    while let Some(digest) = pending.pop() {
        let directory = found.get(&digest).ok_or_else(|| absent(&digest))?;
        for child in directory.directory.directories() {
            match parents.entry(child.digest) {
                Entry::Occupied(mut count) => *count.get_mut() += 1,
                Entry::Vacant(count) => {
                    count.insert(1);
                    pending.push(child.digest);
                }
            }
        }
    }
    Ok(parents)
}

fn absent(digest: &Digest) -> Error {
    Error::invalid_argument(format!(
        "the tree does not hold the directory {digest} that it refers to"
    ))
}
