//! Closures: all blobs that have to be there for a result or an asset to be worth anything.
//!
//! A closure is gathered once, when the thing is stored, by walking its trees. It is kept with the thing as a plain list, so that
//! all later questions are one `find_missing`, which keeps the blobs alive as well.

use std::collections::HashMap;

use rootcellar_digest::Digest;
use rootcellar_store::BlobStore;

use crate::tree::{InputTree, TreeLimits, message};
use crate::{Error, Result, message_blob};

/// Bounds on one closure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosureLimits {
    /// Blobs in a closure, counted again for each output or reference that they belong to: a few kilobytes of result could
    /// otherwise name the same large tree a thousand times.
    pub digests_max: usize,
    /// Bytes in a Tree message.
    pub tree_bytes_max: u64,
    /// Bounds on each tree.
    pub tree: TreeLimits,
}

/// Several times what a whole system with its sources has.
impl Default for ClosureLimits {
    fn default() -> Self {
        Self {
            digests_max: 1_000_000,
            tree_bytes_max: 64 << 20,
            tree: TreeLimits::default(),
        }
    }
}

/// Trees that may turn out to be incomplete before the rest is no longer looked at.
const INCOMPLETE_TREES_MAX: usize = 64;

/// Gathers a closure and notes what of it is missing.
#[derive(Debug)]
pub(crate) struct Gathering<'a> {
    store: &'a dyn BlobStore,
    limits: &'a ClosureLimits,
    digests: Vec<Digest>,
    missing: Vec<Digest>,
    incomplete_trees: usize,
    /// What was walked already, and what was found there.
    trees: HashMap<Digest, Option<WalkedTree>>,
    roots: HashMap<Digest, bool>,
}

/// What is known of a Tree message after it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WalkedTree {
    /// The digest of its topmost directory.
    pub(crate) root: Digest,
    /// Whether it has the form that `OutputDirectory.is_topologically_sorted` promises.
    pub(crate) is_topologically_sorted: bool,
}

impl<'a> Gathering<'a> {
    pub(crate) fn new(store: &'a dyn BlobStore, limits: &'a ClosureLimits) -> Self {
        Self {
            store,
            limits,
            digests: Vec::new(),
            missing: Vec::new(),
            incomplete_trees: 0,
            trees: HashMap::new(),
            roots: HashMap::new(),
        }
    }

    /// Adds single blobs.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` if there are too many.
    pub(crate) fn add(&mut self, digests: impl IntoIterator<Item = Digest>) -> Result<()> {
        for digest in digests {
            if self.digests.len() >= self.limits.digests_max {
                return Err(Error::resource_exhausted(format!(
                    "it needs more than {} blobs, the limit digests_max",
                    self.limits.digests_max
                )));
            }
            self.digests.push(digest);
        }
        Ok(())
    }

    /// Adds a Tree message and the files in it; `None` if the message is missing.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it is no Tree, or incomplete in itself, or too large.
    pub(crate) async fn add_tree(&mut self, digest: Digest) -> Result<Option<WalkedTree>> {
        if let Some(walked) = self.trees.get(&digest) {
            return Ok(*walked);
        }
        let walked = self.walk_tree(digest).await?;
        self.trees.insert(digest, walked);
        Ok(walked)
    }

    async fn walk_tree(&mut self, digest: Digest) -> Result<Option<WalkedTree>> {
        const WHAT: &str = "tree";
        self.add([digest])?;
        let Some(encoded) = message_blob::read_bytes(self.store, digest, WHAT, self.limits.tree_bytes_max).await?
        else {
            self.missing.push(digest);
            return Ok(None);
        };
        let decoded = message::decode(digest.function(), &encoded, &self.limits.tree)
            .map_err(|error| error.about(format_args!("{WHAT} {digest}")))?;
        self.add(decoded.tree.files().iter().copied())?;
        Ok(Some(WalkedTree {
            root: decoded.tree.root_digest(),
            is_topologically_sorted: decoded.is_topologically_sorted,
        }))
    }

    /// Adds the directory `root` and all below it; says whether all directories are there.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if something in it is no valid Directory, or it is too large.
    pub(crate) async fn add_directory(&mut self, root: Digest) -> Result<bool> {
        if let Some(is_complete) = self.roots.get(&root) {
            return Ok(*is_complete);
        }
        let is_complete = self.walk_directory(root).await?;
        self.roots.insert(root, is_complete);
        Ok(is_complete)
    }

    async fn walk_directory(&mut self, root: Digest) -> Result<bool> {
        if self.incomplete_trees >= INCOMPLETE_TREES_MAX {
            return Ok(false);
        }
        match InputTree::load_directories(self.store, root, &self.limits.tree).await {
            Ok(tree) => self.add(tree.closure()).map(|()| true),
            Err(error) if !error.missing().is_empty() => {
                self.incomplete_trees += 1;
                self.missing.extend(error.missing());
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The closure, each digest once and the empty blob not at all, with all of it present.
    ///
    /// # Errors
    /// [`Error::missing_blobs`] with all that is known to be missing.
    pub(crate) async fn complete(self) -> Result<Vec<Digest>> {
        let (digests, missing) = self.present().await?;
        if missing.is_empty() {
            Ok(digests)
        } else {
            Err(Error::missing_blobs(missing))
        }
    }

    /// What is present of the closure, and what is missing.
    pub(crate) async fn present(mut self) -> Result<(Vec<Digest>, Vec<Digest>)> {
        settle(&mut self.digests);
        let mut missing = self.missing;
        missing.extend(self.store.find_missing(&self.digests).await?);
        settle(&mut missing);
        self.digests.retain(|digest| missing.binary_search(digest).is_err());
        Ok((self.digests, missing))
    }
}

/// Makes a list a set, without the blob that is always there.
fn settle(digests: &mut Vec<Digest>) {
    digests.sort_unstable();
    digests.dedup();
    digests.retain(|digest| !digest.is_empty_blob());
}

/// Whether all blobs of a closure are still there. Counts as a use of each.
pub(crate) async fn is_complete(store: &dyn BlobStore, closure: &[Digest]) -> Result<bool> {
    Ok(store.find_missing(closure).await?.is_empty())
}
