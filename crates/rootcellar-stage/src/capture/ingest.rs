//! Captured content on its way into the store: hashed here, stored many at a time.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction, Hasher};
use rootcellar_reapi::Error;
use rootcellar_store::{BlobStore, BlobStoreExt as _, Spool, Verified};
use tokio::runtime::Handle;

use super::reading;

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
    runtime: Handle,
    batch: Vec<Verified>,
    batch_bytes: u64,
}

impl Ingestion {
    pub(super) fn new(store: Arc<dyn BlobStore>, spool: Spool, function: DigestFunction, runtime: Handle) -> Self {
        Self {
            store,
            spool,
            function,
            runtime,
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    /// Stores the content of a file. It is copied, never moved: a descriptor of it may have escaped the sandbox.
    pub(super) fn file(&mut self, path: &str, mut file: File) -> Result<Digest, Error> {
        let size = file.metadata().map_err(|error| reading(path, error))?.len();
        if size <= SMALL_FILE_BYTES {
            let mut content = Vec::with_capacity(usize::try_from(size).expect("a small file"));
            (&mut file)
                .take(SMALL_FILE_BYTES)
                .read_to_end(&mut content)
                .map_err(|error| reading(path, error))?;
            return self.bytes(content.into());
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
