//! Whole trees of Directories: reading one out of a store, checking it, and passing it on.
//!
//! ```text
//!   InputTree   every distinct Directory of a tree in memory, checked as a whole: what staging and capture work on
//!   TreePages   a tree on its way out as GetTree sends it, page by page
//!   message     the Tree message, in which outputs of actions travel
//! ```
//!
//! A tree is a DAG, and is treated as one throughout: work and memory are for distinct directories, never for paths.

mod fetch;
mod graph;
mod known;
mod limits;
pub mod message;
mod page_token;
mod pages;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rootcellar_digest::{Digest, Secret};
use rootcellar_store::BlobStore;

pub use self::graph::TreeDirectory;
use self::graph::{Found, Graph};
pub use self::known::KnownDirectories;
pub use self::limits::{Extent, TreeLimits};
pub use self::message::DecodedTree;
pub use self::pages::{PageLimits, TreePage, TreePages};
use crate::directory::{Directory, Node};
use crate::{Error, RelPath, Result};

/// An input root, or another tree of Directories, all of which are here, valid, and within limits.
#[derive(Debug, Clone)]
pub struct InputTree {
    graph: Graph,
    extent: Extent,
    /// Every file once, found out when it is first asked.
    files: OnceLock<Vec<Digest>>,
}

impl InputTree {
    /// Reads the tree under `root` and makes sure that its files are in the store, too.
    ///
    /// # Errors
    /// [`Error::missing_blobs`] with every directory and every file known to be missing;
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if something in it is no valid Directory or the tree goes past
    /// `limits`; what the store says if it cannot answer.
    pub async fn load(store: &dyn BlobStore, root: Digest, limits: &TreeLimits) -> Result<Self> {
        let tree = Self::load_directories(store, root, limits).await?;
        let missing = store.find_missing(tree.files()).await?;
        if missing.is_empty() {
            Ok(tree)
        } else {
            Err(Error::missing_blobs(missing))
        }
    }

    /// Reads the tree under `root` and does not ask for its files: for a caller that takes a lease on [`Self::closure`], or asks
    /// for more blobs in the same call.
    ///
    /// # Errors
    /// As [`Self::load`]; files are looked for only if a directory is missing anyway.
    pub async fn load_directories(store: &dyn BlobStore, root: Digest, limits: &TreeLimits) -> Result<Self> {
        Self::load_unknown(store, root, limits, None).await
    }

    /// Reads the tree under `root` as [`Self::load_directories`] does, but for the directories that are `known`; the others are then.
    /// A known one may be missing: the caller takes a lease on all of them.
    ///
    /// # Errors
    /// As [`Self::load_directories`].
    pub async fn load_unknown(
        store: &dyn BlobStore,
        root: Digest,
        limits: &TreeLimits,
        known: Option<&KnownDirectories>,
    ) -> Result<Self> {
        let (found, mut missing) = fetch::fetch(store, root, limits, known).await?;
        if missing.is_empty() {
            return Self::assemble(found, limits);
        }
        let files = distinct_files(found.directories());
        missing.extend(store.find_missing(&files).await?);
        Err(Error::missing_blobs(missing))
    }

    /// Makes a tree of encoded directories. What cannot be reached from `root` is dropped.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if a directory that is referred to is not among them, or is no
    /// valid Directory in canonical order, or the tree goes past `limits`.
    ///
    /// # Panics
    /// In debug builds, if a directory is not named by the hash of its bytes.
    pub fn from_encoded(root: Digest, mut directories: HashMap<Digest, Bytes>, limits: &TreeLimits) -> Result<Self> {
        limits.check_directories(directories.len())?;
        let mut found = Found::new(root);
        let mut next = vec![root];
        let mut number = 0;
        while let Some(digest) = next.get(number).copied() {
            let encoded = directories.remove(&digest).ok_or_else(|| absent(&digest))?;
            debug_assert_eq!(
                digest,
                Digest::of(digest.function(), &encoded),
                "a directory is named by its bytes"
            );
            limits.check_directory_bytes(digest.size_bytes())?;
            let directory = Arc::new(fetch::read_sorted(digest, encoded)?);
            found.take(number, directory, &mut next);
            number += 1;
        }
        Self::assemble(found, limits)
    }

    /// Orders and measures directories, of which none is missing.
    fn assemble(found: Found, limits: &TreeLimits) -> Result<Self> {
        let graph = Graph::sort(found)?;
        let extent = graph.measure();
        limits.check(&extent)?;
        Ok(Self {
            graph,
            extent,
            files: OnceLock::new(),
        })
    }

    /// The root's digest.
    pub fn root_digest(&self) -> Digest {
        self.directories()[0].digest
    }

    /// The root.
    pub fn root(&self) -> &Directory {
        &self.directories()[0].directory
    }

    /// Every distinct directory once: the root first, parents before children, in an order that follows from the tree alone.
    pub fn directories(&self) -> &[Arc<TreeDirectory>] {
        self.graph.directories()
    }

    /// A directory of this tree, by digest.
    pub fn directory(&self, digest: &Digest) -> Option<&TreeDirectory> {
        self.graph.get(digest)
    }

    /// Where in [`directories`](Self::directories) those stand that the one at this position refers to, in the order of its
    /// [`DirectoryNode`](crate::DirectoryNode)s.
    pub fn children(&self, position: usize) -> &[usize] {
        self.graph.children(position)
    }

    /// The digests of all files as they are mentioned, directory by directory in the order of [`directories`](Self::directories).
    pub fn mentioned_files(&self) -> impl Iterator<Item = &Digest> {
        let files = self
            .directories()
            .iter()
            .flat_map(|directory| directory.directory.files());
        files.map(|file| &file.digest)
    }

    /// The directory that a [`DirectoryNode`](crate::DirectoryNode) of this tree means.
    ///
    /// # Panics
    /// If `digest` comes from elsewhere and is not in this tree.
    pub fn child(&self, digest: &Digest) -> &Directory {
        let found = self
            .graph
            .get(digest)
            .expect("a tree holds every directory that it refers to");
        &found.directory
    }

    /// The directory at a path. Symlinks are not followed.
    pub fn directory_at(&self, path: &RelPath) -> Option<&TreeDirectory> {
        let step = |at: &TreeDirectory, name| match at.directory.child(name)? {
            Node::Directory(node) => self.directory(&node.digest),
            _ => None,
        };
        path.components().try_fold(&*self.directories()[0], step)
    }

    /// The node at a path, which is not the root. Symlinks are not followed.
    pub fn node_at(&self, path: &RelPath) -> Option<Node<'_>> {
        let parent = self.directory_at(&path.parent()?)?;
        parent.directory.child(path.file_name()?)
    }

    /// How many paths there are, how deep and how long.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The digests of all files, each once, in the order of first mention.
    pub fn files(&self) -> &[Digest] {
        self.files.get_or_init(|| distinct_files(self.directories()))
    }

    /// The digests of all directories and files, each once: everything that has to be stored for this tree.
    pub fn closure(&self) -> Vec<Digest> {
        let directories = self.directories().iter().map(|directory| directory.digest);
        let files = self.files().iter().copied();
        let mut closure = Vec::with_capacity(self.directories().len() + self.files().len());
        closure.extend(directories.chain(files.filter(|file| self.graph.get(file).is_none())));
        closure
    }
}

fn absent(digest: &Digest) -> Error {
    Error::invalid_argument(format!(
        "the tree does not hold the directory {digest} that it refers to"
    ))
}

fn distinct_files<'a>(directories: impl IntoIterator<Item = &'a Arc<TreeDirectory>>) -> Vec<Digest> {
    // By reference: a digest takes ten times as much.
    let mut seen: HashSet<&Digest, Secret> = HashSet::default();
    let files = directories
        .into_iter()
        .flat_map(|directory| directory.directory.files());
    files
        .map(|file| &file.digest)
        .filter(|digest| seen.insert(digest))
        .copied()
        .collect()
}
