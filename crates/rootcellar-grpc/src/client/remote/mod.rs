//! A server's CAS as a store.
//!
//! Small blobs travel many in a call, as large as the server lets batches be: those of one operation, and, while many calls
//! are under way, of whoever else comes meanwhile. Larger ones travel alone, in pieces, and go on where they broke off. What is read as a whole is hashed before its last piece is handed out. A part of a blob cannot be
//! checked by anybody who does not have the rest: of that, only the length is made sure.

mod announced;
mod batches;
mod cas;
mod gather;
mod inventory;
mod read;
mod write;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use rootcellar_digest::Digest;
use rootcellar_reapi as reapi;
use rootcellar_store::{Blob, BlobStore, ByteRange, Error, ErrorKind, Result, Verified};

use self::announced::Announced;
use self::batches::{Bounds, Indexed, Job, split};
use self::cas::Shared;
use self::read::Reader;
use super::Connection;

/// The blobs of a server of the API (`ContentAddressableStorage` and `ByteStream`). Clones share all they have.
///
/// Damage that is found is reported, and not put right: the server has the blob until it finds out itself.
#[derive(Debug, Clone)]
pub struct Remote {
    connection: Connection,
    limits: RemoteLimits,
    announced: Arc<Announced>,
    traffic: Arc<Traffic>,
    shared: Arc<Shared>,
}

/// How blobs are put into calls. Each value has a default and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteLimits {
    /// Bytes of all the blobs in one batch, 3 MiB: with the digests around them that stays below the 4 MiB that every server
    /// takes. The server's own limit holds where it is smaller.
    pub batch_bytes_max: u64,
    /// Blobs in one batch, 4,096.
    pub batch_blobs_max: usize,
    /// Bytes of a blob that goes into a batch, 256 KiB; for larger ones a call of their own costs nothing that counts.
    pub batched_blob_bytes_max: u64,
    /// Digests in one question for what is missing, 8,192: a message of about a megabyte.
    pub find_missing_max: usize,
    /// Calls of one operation at once, 8: they hide the way to the server, and bound what is in memory.
    pub calls_max: usize,
    /// Calls of a kind at once, of all operations, 32, but for those that are large: what comes meanwhile is gathered, and goes with the
    /// next calls. Fewer would have small blobs wait for one another at servers that look up one after the other what comes in a batch.
    pub shared_calls_max: usize,
}

impl Default for RemoteLimits {
    fn default() -> Self {
        Self {
            batch_bytes_max: 3 << 20,
            batch_blobs_max: 4096,
            batched_blob_bytes_max: 256 << 10,
            find_missing_max: 8192,
            calls_max: 8,
            shared_calls_max: 32,
        }
    }
}

/// Counts bytes of blobs that went over the wire, those of attempts that failed included.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Bytes that were handed to the transport.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that arrived.
    pub fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn count_sent(&self, len: usize) {
        self.sent.fetch_add(len as u64, Ordering::Relaxed);
    }

    fn count_received(&self, len: usize) {
        self.received.fetch_add(len as u64, Ordering::Relaxed);
    }
}

impl Remote {
    /// Makes a store of the CAS at the other end of `connection`.
    pub fn new(connection: Connection) -> Self {
        let limits = RemoteLimits::default();
        Self {
            connection,
            announced: Arc::default(),
            traffic: Arc::default(),
            shared: Shared::new(limits.shared_calls_max),
            limits,
        }
    }

    /// Puts blobs into calls in another way than the default.
    #[must_use]
    pub fn with_limits(self, limits: RemoteLimits) -> Self {
        Self {
            shared: Shared::new(limits.shared_calls_max),
            limits,
            ..self
        }
    }

    /// What went over the wire so far.
    pub fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }

    /// The bounds of a batch: the server's and our own.
    async fn bounds(&self) -> Result<Bounds, Arc<reapi::Error>> {
        let announced = self.announced.batch_bytes(&self.connection).await?;
        let own = self.limits.batch_bytes_max;
        let bytes_max = if announced == 0 { own } else { own.min(announced) };
        Ok(Bounds {
            bytes_max,
            items_max: self.limits.batch_blobs_max,
            item_bytes_max: self.limits.batched_blob_bytes_max.min(bytes_max),
        })
    }

    /// Does `jobs` a few at a time, and brings the outcomes of their `count` items into the order of the request.
    async fn run<T, R, F>(&self, count: usize, jobs: Vec<Job<T>>, job: impl FnMut(Job<T>) -> F) -> Vec<R>
    where
        F: Future<Output = Vec<Indexed<R>>>,
    {
        let mut outcomes: Vec<Option<R>> = std::iter::repeat_with(|| None).take(count).collect();
        let mut done = stream::iter(jobs).map(job).buffer_unordered(self.limits.calls_max);
        while let Some(finished) = done.next().await {
            for (index, outcome) in finished {
                outcomes[index] = Some(outcome);
            }
        }
        let every = outcomes.into_iter();
        every
            .map(|outcome| outcome.expect("each item is in one job, and each job tells of all its items"))
            .collect()
    }

    async fn get_job(&self, job: Job<Digest>, bounds: &Bounds) -> Vec<Indexed<Result<Bytes>>> {
        match job {
            Job::Alone((index, digest)) => vec![(index, self.get_alone(digest).await)],
            Job::Batch(items) => self.read_batch(items, bounds).await,
        }
    }

    async fn put_job(&self, job: Job<Verified>, bounds: &Bounds) -> Vec<Indexed<Result<()>>> {
        match job {
            Job::Alone((index, blob)) => vec![(index, self.write(&blob).await)],
            Job::Batch(items) => self.update_batch(items, bounds).await,
        }
    }

    /// Reads a whole blob with a call of its own.
    async fn get_alone(&self, digest: Digest) -> Result<Bytes> {
        let reader = Reader::new(self.clone(), digest, 0..digest.size_bytes());
        reader.open().await?.into_bytes().await
    }

    /// Reads a whole blob with others that are read at this time, if it is small. `None` if it has to be read alone: that is left to servers
    /// that do not say what they take, or do not do it.
    async fn get_with_others(&self, digest: Digest) -> Result<Option<Bytes>> {
        if digest.size_bytes() > self.limits.batched_blob_bytes_max {
            return Ok(None);
        }
        let bounds = match self.bounds().await {
            Ok(bounds) => bounds,
            Err(error) if error.kind() == reapi::ErrorKind::Unavailable => {
                return Err(self.error("get", digest, &error));
            }
            Err(_) => return Ok(None),
        };
        if digest.size_bytes() > bounds.item_bytes_max {
            return Ok(None);
        }
        self.read_one(digest, &bounds).await
    }

    fn error(&self, operation: &'static str, digest: Digest, error: &reapi::Error) -> Error {
        match error.kind() {
            // The server's own words would only name the blob again.
            reapi::ErrorKind::NotFound => self.absent(operation, digest),
            other => Error::new(kind(other), operation, error.to_string()).on(digest),
        }
    }

    fn absent(&self, operation: &'static str, digest: Digest) -> Error {
        let reason = format!("{self} has no such blob");
        Error::new(ErrorKind::NotFound, operation, reason).on(digest)
    }

    /// The error of a server that does not keep to the protocol.
    fn confused(&self, operation: &'static str, digest: Digest, reason: &str) -> Error {
        Error::new(ErrorKind::Internal, operation, format!("{self}: {reason}")).on(digest)
    }
}

#[async_trait]
impl BlobStore for Remote {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let mut seen = HashSet::new();
        let asked = digests.iter().copied();
        let asked: Vec<Digest> = asked
            .filter(|digest| !digest.is_empty_blob() && seen.insert(*digest))
            .collect();
        let bounds = Bounds {
            items_max: self.limits.find_missing_max,
            ..Bounds::NONE
        };
        let jobs = split(asked.iter().copied(), |digest| *digest, &bounds);
        let is_missing = self
            .run(asked.len(), jobs, |job| self.find_missing_job(job, &bounds))
            .await;
        let answers = asked.into_iter().zip(is_missing);
        answers
            .filter_map(|(digest, answer)| match answer {
                Ok(true) => Some(Ok(digest)),
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            })
            .collect()
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        let range = range.resolve(digest)?;
        if range.is_empty() {
            // A read without a limit reads everything: there is no way to ask for nothing.
            if !self.find_missing(&[digest]).await?.is_empty() {
                return Err(self.absent("get", digest));
            }
            return Ok(Blob::from_bytes(digest, range, Bytes::new()));
        }
        if range == (0..digest.size_bytes())
            && let Some(whole) = self.get_with_others(digest).await?
        {
            return Ok(Blob::from_bytes(digest, range, whole));
        }
        Reader::new(self.clone(), digest, range).open().await
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        let mut outcomes = self.put_many(vec![blob]).await;
        outcomes.pop().expect("one outcome for one blob")
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let bounds = match self.bounds().await {
            Ok(bounds) => bounds,
            Err(error) => {
                return digests
                    .iter()
                    .map(|digest| Err(self.error("get", *digest, &error)))
                    .collect();
            }
        };
        let jobs = split(digests.iter().copied(), |digest| *digest, &bounds);
        self.run(digests.len(), jobs, |job| self.get_job(job, &bounds)).await
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let bounds = match self.bounds().await {
            Ok(bounds) => bounds,
            Err(error) => {
                return blobs
                    .iter()
                    .map(|blob| Err(self.error("put", blob.digest(), &error)))
                    .collect();
            }
        };
        let count = blobs.len();
        let jobs = split(blobs, Verified::digest, &bounds);
        self.run(count, jobs, |job| self.put_job(job, &bounds)).await
    }
}

/// Writes `remote`, and where it is.
impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remote {}", self.connection)
    }
}

/// What a user of a store can do about an error of a server.
pub(super) fn kind(kind: reapi::ErrorKind) -> ErrorKind {
    use reapi::ErrorKind as Api;
    match kind {
        Api::NotFound => ErrorKind::NotFound,
        Api::InvalidArgument => ErrorKind::InvalidArgument,
        Api::OutOfRange => ErrorKind::OutOfRange,
        Api::ResourceExhausted => ErrorKind::Exhausted,
        Api::DataLoss => ErrorKind::DataLoss,
        Api::Unavailable | Api::DeadlineExceeded | Api::Aborted | Api::Cancelled => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}
