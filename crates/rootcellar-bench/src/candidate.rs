//! What is measured: anything that keeps blobs.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rootcellar_digest::Digest;
use rootcellar_store::layout::LayoutKind;
use rootcellar_store::{BlobStore as _, ByteRange, DiskOptions, DiskStore, SystemClock, Verified};
use tokio::runtime::Runtime;

/// A store that is open. Whatever goes wrong is a panic: a benchmark that went wrong means nothing.
pub trait Candidate: Send + Sync {
    /// Stores a batch.
    fn put_many(&self, blobs: Vec<Verified>);

    /// Reads each blob by itself, whole and checked, and tells the sum of their sizes.
    fn get_each(&self, digests: &[Digest]) -> u64;

    /// Tells how many of a batch are missing.
    fn find_missing(&self, digests: &[Digest]) -> usize;

    /// Bytes of memory that its index takes, if it can tell.
    fn index_bytes(&self) -> Option<u64> {
        None
    }

    /// Bytes that were written once more to make room, if it can tell.
    fn moved_bytes(&self) -> Option<u64> {
        None
    }

    /// Ends in good order.
    fn close(self: Box<Self>);
}

/// A kind of store.
pub trait CandidateKind: fmt::Debug + Send + Sync {
    /// Its name in tables.
    fn name(&self) -> String;

    /// Opens a store in a directory, or makes one.
    fn open(&self, dir: &Path) -> Box<dyn Candidate>;

    /// Opens a store that keeps `bytes_max` at the most, and lets go of what was used longest ago; `None` if it cannot.
    fn open_bounded(&self, _dir: &Path, _bytes_max: u64) -> Option<Box<dyn Candidate>> {
        None
    }
}

/// The engine of this project over one of its layouts, or over yours.
#[derive(Debug, Clone)]
pub struct DiskCandidate {
    /// The store's settings, the layout among them.
    pub options: DiskOptions,
}

impl DiskCandidate {
    /// The engine with its default settings over a layout. It does not scrub meanwhile.
    pub fn new(layout: Arc<dyn LayoutKind>) -> Self {
        Self {
            options: DiskOptions {
                layout,
                scrub: None,
                ..DiskOptions::default()
            },
        }
    }
}

impl CandidateKind for DiskCandidate {
    fn name(&self) -> String {
        self.options.layout.name().to_owned()
    }

    fn open(&self, dir: &Path) -> Box<dyn Candidate> {
        Box::new(OpenDisk::open(dir, &self.options))
    }

    fn open_bounded(&self, dir: &Path, bytes_max: u64) -> Option<Box<dyn Candidate>> {
        let options = DiskOptions {
            bytes_max,
            ..self.options.clone()
        };
        Some(Box::new(OpenDisk::open(dir, &options)))
    }
}

/// A store on disk, and the runtime that it runs on.
#[derive(Debug)]
pub(crate) struct OpenDisk {
    pub(crate) store: Arc<DiskStore>,
    pub(crate) runtime: Runtime,
}

impl OpenDisk {
    pub(crate) fn open(dir: &Path, options: &DiskOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .expect("a runtime starts");
        let store = runtime
            .block_on(DiskStore::open(dir, options.clone(), Arc::new(SystemClock)))
            .expect("the store opens");
        Self {
            store: Arc::new(store),
            runtime,
        }
    }

    pub(crate) fn put(&self, blob: Verified) {
        self.runtime.block_on(self.store.put(blob)).expect("the blob is stored");
    }
}

impl Candidate for OpenDisk {
    fn put_many(&self, blobs: Vec<Verified>) {
        for outcome in self.runtime.block_on(self.store.put_many(blobs)) {
            outcome.expect("the blob is stored");
        }
    }

    fn get_each(&self, digests: &[Digest]) -> u64 {
        self.runtime.block_on(async {
            let mut bytes = 0;
            for digest in digests {
                let blob = self
                    .store
                    .get(*digest, ByteRange::ALL)
                    .await
                    .expect("the blob is there");
                bytes += blob.into_bytes().await.expect("the blob is whole").len() as u64;
            }
            bytes
        })
    }

    fn find_missing(&self, digests: &[Digest]) -> usize {
        let missing = self.runtime.block_on(self.store.find_missing(digests));
        missing.expect("the store answers").len()
    }

    fn index_bytes(&self) -> Option<u64> {
        Some(self.store.statistics().index_bytes)
    }

    fn moved_bytes(&self) -> Option<u64> {
        Some(self.store.statistics().counters.moved_bytes)
    }

    fn close(self: Box<Self>) {
        self.runtime.block_on(self.store.close()).expect("the store closes");
    }
}
