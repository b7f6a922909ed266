//! Captured content on its way into the store: hashed here, stored many at a time.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_reapi::Error;
use rootcellar_store::{BlobStore, BlobStoreExt as _, HashedFile, Spool, Verified};
use rustix::io::Errno;
use tokio::runtime::Handle;

use super::reading;
use crate::beneath::Beneath;

/// Files up to this size are read into memory once; larger ones are hashed first, and copied only if the store lacks them.
const SMALL_FILE_BYTES: u64 = 128 * 1024;
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;
const BATCH_BLOBS_MAX: usize = 1024;

/// Takes content, and names it. Blocks: for a thread that may.
pub(super) struct Ingestion {
    root: Arc<Beneath>,
    store: Arc<dyn BlobStore>,
    spool: Spool,
    function: DigestFunction,
    /// Whether files may be moved out of the root.
    may_move: bool,
    runtime: Handle,
    batch: Vec<Verified>,
    batch_bytes: u64,
    /// The large files so far.
    large: HashMap<String, Digest>,
    /// Those of them that the store lacks, and that are to be moved.
    moves: Vec<(String, HashedFile)>,
}

impl Ingestion {
    pub(super) fn new(
        root: Arc<Beneath>,
        store: Arc<dyn BlobStore>,
        spool: Spool,
        function: DigestFunction,
        may_move: bool,
    ) -> Self {
        Self {
            root,
            store,
            spool,
            function,
            may_move,
            runtime: Handle::current(),
            batch: Vec::new(),
            batch_bytes: 0,
            large: HashMap::new(),
            moves: Vec::new(),
        }
    }

    /// Stores the content of the file at `path`. A large one is moved in the end if that is allowed, and copied if not: then a
    /// descriptor of it may be where something still writes.
    pub(super) fn file(&mut self, path: &str) -> Result<Digest, Error> {
        let failed = |error: Errno| reading(path, error);
        let file = self.root.open_file(path).map_err(failed)?;
        let metadata = file.metadata().map_err(|error| reading(path, error))?;
        if metadata.len() <= SMALL_FILE_BYTES {
            let mut content = Vec::with_capacity(usize::try_from(metadata.len()).expect("a small file"));
            (&file)
                .take(SMALL_FILE_BYTES)
                .read_to_end(&mut content)
                .map_err(|error| reading(path, error))?;
            return self.bytes(content.into());
        }
        // An output can lie in another one.
        if let Some(digest) = self.large.get(path) {
            return Ok(*digest);
        }
        let hashed = HashedFile::of(self.function, &file)?;
        let mut digest = hashed.digest();
        if !self.runtime.block_on(self.store.contains(digest))? {
            if self.may_move && is_movable(&metadata) {
                self.moves.push((path.to_owned(), hashed));
            } else {
                digest = self.copy(path)?;
            }
        }
        self.large.insert(path.to_owned(), digest);
        Ok(digest)
    }

    /// Stores a copy. The file may be another one by now, or have other content: what is copied is hashed again.
    fn copy(&mut self, path: &str) -> Result<Digest, Error> {
        let mut file = self.root.open_file(path).map_err(|error| reading(path, error))?;
        let blob = self.spool.copy_file(self.function, &mut file)?;
        let digest = blob.digest();
        self.runtime.block_on(self.store.put(blob))?;
        Ok(digest)
    }

    /// Moves files into the store that nothing can write to any more.
    fn make_moves(&mut self) -> Result<(), Error> {
        for (path, hashed) in std::mem::take(&mut self.moves) {
            match self.spool.adopt(&hashed, |to| self.root.move_out(&path, to)) {
                Ok(blob) => self.runtime.block_on(self.store.put(blob))?,
                // The store is on another filesystem, or the file is where one of the same content was captured before.
                Err(error) if is_cross_device(&error) => drop(self.copy(&path)?),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Stores bytes.
    pub(super) fn bytes(&mut self, content: Bytes) -> Result<Digest, Error> {
        let blob = Verified::of(self.function, content);
        let digest = blob.digest();
        if self.batch.len() == BATCH_BLOBS_MAX || self.batch_bytes + digest.size_bytes() > BATCH_BYTES_MAX {
            self.flush()?;
        }
        self.batch_bytes += digest.size_bytes();
        self.batch.push(blob);
        Ok(digest)
    }

    /// The digest that [`bytes`](Self::bytes) would give, with nothing stored.
    pub(super) fn digest(&self, content: &[u8]) -> Digest {
        Digest::of(self.function, content)
    }

    /// Stores what is still waiting. Files that are moved are gone from the root after this.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.make_moves()?;
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let outcomes = self.runtime.block_on(self.store.put_many(batch));
        Ok(outcomes.into_iter().collect::<Result<(), _>>()?)
    }
}

/// Whether a file can become a blob as it is: it has no other name, and takes as much of the disk as it counts for.
fn is_movable(metadata: &Metadata) -> bool {
    metadata.nlink() == 1 && metadata.blocks() * 512 >= metadata.len()
}

fn is_cross_device(error: &rootcellar_store::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| source.kind() == std::io::ErrorKind::CrossesDevices)
}
