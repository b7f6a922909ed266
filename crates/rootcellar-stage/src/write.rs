//! Writing a tree of a store into an empty directory, file by file.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use rootcellar_digest::{Digest, Secret};
use rootcellar_reapi::{Error, InputTree};
use rootcellar_store::{BlobStore, ByteRange};
use rustix::fs::XattrFlags;

use crate::Owner;
use crate::beneath::Beneath;
use crate::plan::{self, Entry, Node};

/// Files up to this size are fetched many at a time, and held in memory while they are.
const SMALL_FILE_BYTES: u64 = 64 * 1024;
pub(crate) const PAGE_BYTES: u64 = 4096;
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;
const BATCH_FILES_MAX: usize = 512;

/// Writes `tree` into the empty directory at `path`, as the calling user's, with modes, times and links as staged roots have
/// them.
///
/// # Errors
/// Missing blobs, and whatever the store or the filesystem met. What was written by then stays.
pub async fn write_tree(store: Arc<dyn BlobStore>, tree: &InputTree, path: &Path) -> Result<(), Error> {
    let root = Beneath::open(path).map_err(|error| staging(&path.display().to_string(), error))?;
    let writer = Writer::new(store, Arc::new(root), tree, Owner::current());
    writer.write_content().await?;
    writer.finish_directories().await
}

/// A tree on its way into a directory.
pub(crate) struct Writer {
    store: Arc<dyn BlobStore>,
    root: Arc<Beneath>,
    entries: Arc<Vec<Entry>>,
    owner: Owner,
    /// Files whose bytes are found elsewhere.
    redirects: Arc<HashMap<Digest, String, Secret>>,
}

/// What files take.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) entries: u64,
    /// Those of them that lie elsewhere.
    pub(crate) elsewhere: u64,
    pub(crate) pages: u64,
}

impl Writer {
    pub(crate) fn new(store: Arc<dyn BlobStore>, root: Arc<Beneath>, tree: &InputTree, owner: Owner) -> Self {
        Self {
            store,
            root,
            entries: Arc::new(plan::entries(tree)),
            owner,
            redirects: Arc::default(),
        }
    }

    /// Has files lie elsewhere: by digest, at these paths of an overlay's data-only layer.
    pub(crate) fn redirecting(self, redirects: HashMap<Digest, String, Secret>) -> Self {
        Self {
            redirects: Arc::new(redirects),
            ..self
        }
    }

    /// How much a tree takes as files, without the bytes of those that lie `elsewhere`.
    pub(crate) fn sizes(tree: &InputTree, elsewhere: impl Fn(&Digest) -> bool) -> Sizes {
        let mut sizes = Sizes::default();
        for entry in plan::entries(tree) {
            sizes.entries += 1;
            match entry.node {
                Node::File(digest) if elsewhere(&digest) => sizes.elsewhere += 1,
                Node::File(digest) => sizes.pages += digest.size_bytes().div_ceil(PAGE_BYTES),
                Node::Directory | Node::Link { .. } => sizes.pages += 1,
            }
        }
        sizes
    }

    /// Makes everything. Directories are still open to all of us, and bear the time of now.
    pub(crate) async fn write_content(&self) -> Result<(), Error> {
        let (root, entries, owner) = (self.root.clone(), self.entries.clone(), self.owner);
        let redirects = self.redirects.clone();
        blocking(move || {
            make_skeleton(&root, &entries, owner)?;
            let redirected = entries.iter().filter_map(|entry| match entry.node {
                Node::File(digest) => Some((entry, digest, redirects.get(&digest)?)),
                _ => None,
            });
            for (entry, digest, path) in redirected {
                let file = make_file(&root, entry, owner)?;
                redirect(&file, digest.size_bytes(), path).map_err(|error| staging(&entry.path, error))?;
                finish_file(&root, entry)?;
            }
            Ok(())
        })
        .await?;
        let mut batch = Batch::default();
        for (index, entry) in self.entries.iter().enumerate() {
            let Node::File(digest) = entry.node else {
                continue;
            };
            if self.redirects.contains_key(&digest) {
                continue;
            }
            if digest.size_bytes() > SMALL_FILE_BYTES {
                self.write_large_file(entry, digest).await?;
                continue;
            }
            if batch.is_full_for(digest) {
                self.write_batch(std::mem::take(&mut batch)).await?;
            }
            batch.push(index, digest);
        }
        self.write_batch(batch).await
    }

    /// Gives the directories their modes and times, which making things in them would have changed.
    pub(crate) async fn finish_directories(&self) -> Result<(), Error> {
        let (root, entries) = (self.root.clone(), self.entries.clone());
        blocking(move || {
            for entry in entries.iter().rev() {
                if entry.node == Node::Directory {
                    root.set_attributes(&entry.path, entry.attributes)
                        .map_err(|error| staging(&entry.path, error))?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn write_batch(&self, batch: Batch) -> Result<(), Error> {
        let contents: Vec<Bytes> = self
            .store
            .get_many(&batch.digests)
            .await
            .into_iter()
            .collect::<Result<_, _>>()?;
        let (root, entries, owner) = (self.root.clone(), self.entries.clone(), self.owner);
        blocking(move || {
            for (index, content) in batch.indexes.into_iter().zip(contents) {
                let entry = &entries[index];
                let mut file = make_file(&root, entry, owner)?;
                file.write_all(&content).map_err(|error| staging(&entry.path, error))?;
                finish_file(&root, entry)?;
            }
            Ok(())
        })
        .await
    }

    async fn write_large_file(&self, entry: &Entry, digest: Digest) -> Result<(), Error> {
        let mut file = make_file(&self.root, entry, self.owner)?;
        let mut pieces = self.store.get(digest, ByteRange::ALL).await?.into_stream();
        while let Some(piece) = pieces.next().await {
            let (piece, path) = (piece?, entry.path.clone());
            file = blocking(move || match file.write_all(&piece) {
                Ok(()) => Ok(file),
                Err(error) => Err(staging(&path, error)),
            })
            .await?;
        }
        finish_file(&self.root, entry)
    }
}

/// Small files that are fetched together.
#[derive(Default)]
struct Batch {
    indexes: Vec<usize>,
    digests: Vec<Digest>,
    bytes: u64,
}

impl Batch {
    fn is_full_for(&self, next: Digest) -> bool {
        self.indexes.len() == BATCH_FILES_MAX || self.bytes + next.size_bytes() > BATCH_BYTES_MAX
    }

    fn push(&mut self, index: usize, digest: Digest) {
        self.indexes.push(index);
        self.digests.push(digest);
        self.bytes += digest.size_bytes();
    }
}

/// Makes the directories and the links.
fn make_skeleton(root: &Beneath, entries: &[Entry], owner: Owner) -> Result<(), Error> {
    for entry in entries {
        match &entry.node {
            // The root was made with the staging directory.
            Node::Directory if entry.path.is_empty() => {}
            Node::Directory => root
                .make_dir(&entry.path)
                .map_err(|error| staging(&entry.path, error))?,
            Node::Link { target } => {
                root.make_link(&entry.path, target)
                    .map_err(|error| staging(&entry.path, error))?;
                root.set_mtime(&entry.path, entry.attributes.mtime)
                    .map_err(|error| staging(&entry.path, error))?;
            }
            Node::File(_) => continue,
        }
        root.own(&entry.path, owner)
            .map_err(|error| staging(&entry.path, error))?;
    }
    Ok(())
}

fn make_file(root: &Beneath, entry: &Entry, owner: Owner) -> Result<std::fs::File, Error> {
    let file = root
        .make_file(&entry.path)
        .map_err(|error| staging(&entry.path, error))?;
    root.own(&entry.path, owner)
        .map_err(|error| staging(&entry.path, error))?;
    Ok(file)
}

/// Makes an empty file one whose bytes overlayfs finds elsewhere.
pub(crate) fn redirect(file: &std::fs::File, size: u64, path: &str) -> rustix::io::Result<()> {
    rustix::fs::ftruncate(file, size)?;
    rustix::fs::fsetxattr(file, "user.overlay.metacopy", b"", XattrFlags::empty())?;
    rustix::fs::fsetxattr(file, "user.overlay.redirect", path.as_bytes(), XattrFlags::empty())
}

fn finish_file(root: &Beneath, entry: &Entry) -> Result<(), Error> {
    root.set_attributes(&entry.path, entry.attributes)
        .map_err(|error| staging(&entry.path, error))
}

/// The error of a filesystem that would not do something at `path`.
pub(crate) fn staging(path: &str, error: impl Into<io::Error>) -> Error {
    io_error(format!("{path:?}"), error)
}

/// The error of a filesystem that would not do `what`: out of space is told apart from the rest.
pub(crate) fn io_error(what: impl Into<String>, error: impl Into<io::Error>) -> Error {
    rootcellar_store::Error::io("stage", what, error.into()).into()
}

/// Runs what blocks on the threads that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .expect("staging does not panic, and the runtime outlives its tasks")
}
