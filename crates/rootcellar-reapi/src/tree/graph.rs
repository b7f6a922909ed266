//! A tree as the DAG that it is: each distinct Directory once, parents before children.
//!
//! Everything here is a loop over distinct directories. Nothing calls itself, so that no depth overflows a stack, and nothing
//! goes along paths, of which a DAG of thirty directories can have 2^30.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestMap};

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

/// Directories that are found from a root on. Each has a number, in the order of first mention.
#[derive(Debug)]
pub(super) struct Found {
    numbers: DigestMap<usize>,
    directories: Vec<Option<FoundDirectory>>,
    /// What they refer to.
    children: Vec<usize>,
}

#[derive(Debug)]
struct FoundDirectory {
    directory: Arc<TreeDirectory>,
    /// Where in `Found::children` its children are, as it names them.
    children: Range<usize>,
}

impl Found {
    /// Mentions the root.
    pub(super) fn new(root: Digest) -> Self {
        Self {
            numbers: DigestMap::from_iter([(root, 0)]),
            directories: vec![None],
            children: Vec::new(),
        }
    }

    /// How many were mentioned.
    pub(super) fn mentioned(&self) -> usize {
        self.directories.len()
    }

    /// Takes the directory with this number, and adds what nobody mentioned before to `next`.
    pub(super) fn take(&mut self, number: usize, directory: Arc<TreeDirectory>, next: &mut Vec<Digest>) {
        let begin = self.children.len();
        for child in directory.directory.directories() {
            let number = *self.numbers.entry(child.digest).or_insert_with(|| {
                next.push(child.digest);
                self.directories.push(None);
                self.directories.len() - 1
            });
            self.children.push(number);
        }
        let children = begin..self.children.len();
        self.directories[number] = Some(FoundDirectory { directory, children });
    }

    /// Those that are here.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Arc<TreeDirectory>> {
        self.directories.iter().flatten().map(|found| &found.directory)
    }
}

/// Directories in topological order, the root first.
#[derive(Debug, Clone)]
pub(super) struct Graph {
    directories: Vec<Arc<TreeDirectory>>,
    positions: DigestMap<usize>,
    /// The positions of what the first one refers to, as it names them, then those of the next one.
    children: Vec<usize>,
    /// Where in `children` those of each begin; and where all end.
    children_from: Vec<usize>,
}

impl Graph {
    /// Orders directories, of which none is missing. The order follows from the tree alone.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if the tree contains itself, which no one can make as long as hashes cannot be chosen.
    pub(super) fn sort(found: Found) -> Result<Self> {
        let mentioned = found.mentioned();
        let mut parents = vec![0_usize; mentioned];
        found.children.iter().for_each(|child| parents[*child] += 1);
        let mut graph = Self {
            directories: Vec::with_capacity(mentioned),
            positions: found.numbers,
            children: Vec::with_capacity(found.children.len()),
            children_from: Vec::with_capacity(mentioned + 1),
        };
        let mut positions = vec![0; mentioned];
        let mut ready = VecDeque::new();
        if parents[0] == 0 {
            ready.push_back(0);
        }
        let mut directories = found.directories;
        while let Some(number) = ready.pop_front() {
            let next = directories[number]
                .take()
                .expect("none is missing, and each is ready once");
            let children = &found.children[next.children];
            positions[number] = graph.directories.len();
            graph.directories.push(next.directory);
            graph.children_from.push(graph.children.len());
            graph.children.extend_from_slice(children);
            for child in children {
                parents[*child] -= 1;
                if parents[*child] == 0 {
                    ready.push_back(*child);
                }
            }
        }
        if graph.directories.len() < mentioned {
            return Err(Error::invalid_argument("the tree contains itself"));
        }
        graph.children_from.push(graph.children.len());
        let numbers = graph.children.iter_mut().chain(graph.positions.values_mut());
        numbers.for_each(|number| *number = positions[*number]);
        Ok(graph)
    }

    /// How far the tree reaches below its root.
    pub(super) fn measure(&self) -> Extent {
        let mut extents = vec![Extent::default(); self.directories.len()];
        for (position, TreeDirectory { directory, .. }) in
            self.directories.iter().map(|directory| &**directory).enumerate().rev()
        {
            let mut extent = Extent::of_leaves(directory);
            for (node, child) in directory.directories().iter().zip(self.children(position)) {
                extent.add_directory(node.name.as_str().len(), &extents[*child]);
            }
            extents[position] = extent;
        }
        extents[0]
    }

    /// The positions of what the one at this position refers to, as it names them.
    pub(super) fn children(&self, position: usize) -> &[usize] {
        &self.children[self.children_from[position]..self.children_from[position + 1]]
    }

    pub(super) fn directories(&self) -> &[Arc<TreeDirectory>] {
        &self.directories
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&TreeDirectory> {
        self.positions.get(digest).map(|position| &*self.directories[*position])
    }
}
