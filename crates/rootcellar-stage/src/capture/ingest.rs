//! Captured content on its way into the store: hashed here, stored many at a time.

use std::fs::{File, Metadata};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction, Hasher};
use rootcellar_reapi::Error;
use rootcellar_store::{BlobStore, BlobStoreExt as _, Spool, Verified};
use tokio::runtime::Handle;

use super::reading;
use crate::beneath::Beneath;

/// Files up to this size are read into memory once; larger ones are hashed first, and copied only if the store lacks them.
const SMALL_FILE_BYTES: u64 = 128 * 1024;
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;
const BATCH_BLOBS_MAX: usize = 1024;
const PIECE_BYTES: usize = 256 * 1024;

/// Takes content, and names it. Blocks: for a thread that may.
pub(super) struct Ingestion {
    store: Arc<dyn BlobStore>,
    spool: Spool,
    function: DigestFunction,
    may_move: bool,
    runtime: Handle,
    batch: Vec<Verified>,
    batch_bytes: u64,
}

impl Ingestion {
    pub(super) fn new(
        store: Arc<dyn BlobStore>,
        spool: Spool,
        function: DigestFunction,
        may_move: bool,
        runtime: Handle,
    ) -> Self {
        Self {
            store,
            spool,
            function,
            may_move,
            runtime,
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    /// Stores the content of the file at `path`. A large one is moved if that is allowed, and copied if not: then a descriptor of it
    /// may be where something still writes.
    pub(super) fn file(&mut self, root: &Beneath, path: &str) -> Result<Digest, Error> {
        let mut file = root.open_file(path).map_err(|error| reading(path, error))?;
        let metadata = file.metadata().map_err(|error| reading(path, error))?;
        let size = metadata.len();
        if size <= SMALL_FILE_BYTES {
            let mut content = Vec::with_capacity(usize::try_from(size).expect("a small file"));
            (&mut file)
                .take(SMALL_FILE_BYTES)
                .read_to_end(&mut content)
                .map_err(|error| reading(path, error))?;
            return self.bytes(content.into());
        }
        if self.may_move && metadata.nlink() == 1 {
            let digest = self.adopt(root, path, &metadata)?;
            if let Some(digest) = digest {
                return Ok(digest);
            }
        }
        let digest = self.hash(&mut file, size).map_err(|error| reading(path, error))?;
        if self.runtime.block_on(self.store.contains(digest))? {
            return Ok(digest);
        }
        file.rewind().map_err(|error| reading(path, error))?;
        let blob = self.spool.copy_file(self.function, &mut file)?;
        let digest = blob.digest();
        self.runtime.block_on(self.store.put(blob))?;
        Ok(digest)
    }

    /// Stores a file that nothing can write to any more, as it is. `None` if it cannot go where the store wants it.
    fn adopt(&mut self, root: &Beneath, path: &str, metadata: &Metadata) -> Result<Option<Digest>, Error> {
        // A sparse file is copied: what it takes on the disk has to be what it counts for.
        if metadata.blocks() * 512 < metadata.len() {
            return Ok(None);
        }
        match self.spool.adopt_file(self.function, |to| root.move_out(path, to)) {
            Ok(blob) => {
                let digest = blob.digest();
                self.runtime.block_on(self.store.put(blob))?;
                Ok(Some(digest))
            }
            // Another filesystem.
            Err(error) if is_cross_device(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
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

    /// Stores what is still waiting.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let outcomes = self.runtime.block_on(self.store.put_many(batch));
        Ok(outcomes.into_iter().collect::<Result<(), _>>()?)
    }

    fn hash(&self, file: &mut File, size: u64) -> std::io::Result<Digest> {
        let mut hasher = Hasher::new(self.function, size);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => hasher.update(&piece[..len]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        hasher.finish().map_err(std::io::Error::other)
    }
}

fn is_cross_device(error: &rootcellar_store::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| source.kind() == std::io::ErrorKind::CrossesDevices)
}
