//! A store whose lanes take their steps when a test says so.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::Digest;

use super::core::Engine;
use super::lanes::{Lane, Next, Steps as _, Waker};
use super::options::DiskOptions;
use super::put::Submitted;
use super::statistics::DiskStatistics;
use crate::{Clock, Error, ErrorKind, Lease, Result, Verified};

/// A store on disk without threads and without a runtime: nothing happens in it but what the test asks for, in the order in which it
/// asks. For simulations.
#[derive(Debug)]
pub struct SteppedStore {
    engine: Arc<Engine>,
}

/// A put that waits for the commit lane.
#[derive(Debug)]
pub struct SteppedPut {
    /// What is put.
    pub digests: Vec<Digest>,
    submitted: Submitted,
}

impl SteppedPut {
    /// One outcome for each digest, once the commit has taken place.
    pub fn outcomes(&mut self) -> Option<Vec<Result<()>>> {
        self.submitted.try_wait()
    }
}

/// Nobody has to be woken who is asked all the time.
#[derive(Debug)]
struct Awake;

impl Waker for Awake {
    fn wake(&self, _lane: Lane) {}
}

impl SteppedStore {
    /// Opens the store in `dir`, as [`DiskStore::open`](crate::DiskStore::open) does.
    ///
    /// # Errors
    /// Those of [`DiskStore::open`](crate::DiskStore::open).
    pub fn open(dir: &Path, options: &DiskOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let engine = Engine::open_in(dir, options, clock, Arc::new(Awake))?;
        Ok(Self { engine })
    }

    /// Takes one step of a lane.
    pub fn step(&self, lane: Lane) -> Next {
        self.engine.step(lane)
    }

    /// Begins to put blobs.
    ///
    /// # Errors
    /// What keeps a large one from being spooled.
    pub fn put(&self, blobs: Vec<Verified>) -> Result<SteppedPut> {
        let digests = blobs.iter().map(Verified::digest).collect();
        let is_large = |blob: &Verified| blob.digest().size_bytes() > self.engine.facts.file_above_bytes;
        let ready = |blob: Verified| match is_large(&blob) {
            true => self.spool(&blob),
            false => Ok(blob),
        };
        let ready = blobs.into_iter().map(ready).collect::<Result<Vec<Verified>>>()?;
        let submitted = self.engine.submit(ready);
        Ok(SteppedPut { digests, submitted })
    }

    /// Brings a blob into a spool file, whatever its size.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] if there is no room, for which nobody here can wait; I/O errors.
    pub fn spool(&self, blob: &Verified) -> Result<Verified> {
        if self.engine.budget.room() < blob.digest().size_bytes() {
            return Err(Error::new(ErrorKind::Exhausted, "ingest", "there is no room now").on(blob.digest()));
        }
        self.engine.spool_content(blob)
    }

    /// Whether a blob is present. No use of it.
    pub fn contains(&self, digest: &Digest) -> bool {
        digest.is_empty_blob() || self.engine.index.get(digest).is_some()
    }

    /// Notes a use of a blob if it is present, and tells whether it is.
    pub fn touch(&self, digest: &Digest) -> bool {
        self.engine.touch_entry(digest, self.engine.tick()).is_some()
    }

    /// Reads a blob, checked as every first read is.
    ///
    /// # Errors
    /// As reading a [`DiskStore`](crate::DiskStore).
    pub fn read(&self, digest: Digest) -> Result<Bytes> {
        if !self.contains(&digest) {
            return Err(Error::not_found("get", digest));
        }
        self.engine.check_first(digest)?;
        self.engine.read_whole(digest)
    }

    /// Leases blobs that were read or put, if all are present.
    pub fn lease(&self, digests: &[Digest]) -> Option<Lease> {
        self.engine.lease_now(digests)
    }

    /// What the store tells about itself.
    pub fn statistics(&self) -> DiskStatistics {
        self.engine.statistics()
    }

    /// Whether something that a power cut has left is not settled.
    pub fn is_in_doubt(&self) -> bool {
        !self.engine.doubtful().regions.is_empty()
    }

    /// Ends in good order, as [`DiskStore::close`](crate::DiskStore::close) does.
    ///
    /// # Errors
    /// That of the sync.
    pub fn close(self) -> Result<()> {
        self.engine.shut();
        self.engine.close()
    }
}
