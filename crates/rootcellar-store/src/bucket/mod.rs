//! Blobs and records in a bucket of an object store: S3 and what speaks its protocol, Google Cloud Storage, Azure, or a directory.
//!
//! ```text
//!   <prefix>/cas/sha256/5f/5f16...-1234     the blob of 1234 bytes with that hash
//!   <prefix>/records/<kind>/<hash>          a record (records.rs)
//!   <prefix>/touched/...                    for a moment, while an object is made young again (touch.rs)
//! ```
//!
//! An object is the blob itself, or the blob compressed (`frames.rs`). Which of both is told by its length: what has the length of the blob
//! is the blob. Objects appear whole or not at all, and any number of servers may use one bucket. No request asks for a condition, since
//! some services ignore them: two puts of one blob write the same bytes.
//!
//! **Lifetime.** The bucket is never listed and never cleaned by this store: let a lifecycle rule of the bucket remove what is older than
//! some days. An object's age counts from its last put; [`BucketOptions::touch_after`] has what is in use made young again.

mod frames;
mod get;
mod names;
mod put;
mod records;
mod requests;
mod single_flight;
mod suspects;
mod touch;
mod turns;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use object_store::ObjectStore;
use object_store::path::Path;
use rootcellar_digest::Digest;

use self::names::Names;
use self::put::UploadMemory;
pub use self::records::BucketRecords;
pub use self::requests::RequestCounts;
use self::requests::Requests;
use self::single_flight::SingleFlight;
use self::suspects::Suspects;
use self::touch::Touches;
use self::turns::Turns;
use crate::compose::{Presence, PresenceOptions};
use crate::store::absent_once;
use crate::{Blob, BlobStore, ByteRange, Clock, Error, ErrorKind, Inventory, Result, Verified};

/// How a bucket is used. Each value has a default and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BucketOptions {
    /// What is remembered of objects, so that they need not be asked for: for an hour, of 500,000 objects. A lifecycle rule has to leave
    /// objects alone for much longer than that after they were last put, and nobody else may remove any: what one server found, others
    /// who share the bucket rely on for that time.
    pub presence: PresenceOptions,
    /// Requests under way, 64. Services answer some thousands a second, in 10 to 50 ms each.
    pub requests_max: usize,
    /// Bytes that wait in memory to be sent, 128 MiB.
    pub upload_bytes_max: u32,
    /// Larger blobs are sent in parts, 32 MiB; the parts have half of that.
    pub single_put_bytes_max: u32,
    /// The level of zstd by which blobs are compressed that become smaller by that; `None` compresses nothing. What is compressed is read
    /// whatever is said here.
    pub zstd_level: Option<i32>,
    /// An object in use that is older is made young again; `None` does not. Choose a third of what the lifecycle rule says: it costs
    /// two copies within the bucket, and no transfer.
    pub touch_after: Option<Duration>,
}

impl Default for BucketOptions {
    fn default() -> Self {
        Self {
            presence: PresenceOptions::default().with_ttl(Duration::from_hours(1)),
            requests_max: 64,
            upload_bytes_max: 128 << 20,
            single_put_bytes_max: 32 << 20,
            zstd_level: None,
            touch_after: None,
        }
    }
}

impl BucketOptions {
    /// Remembers what is present in this way.
    #[must_use]
    pub fn with_presence(self, presence: PresenceOptions) -> Self {
        Self { presence, ..self }
    }

    /// Makes so many requests at a time.
    #[must_use]
    pub fn with_requests_max(self, requests_max: usize) -> Self {
        Self { requests_max, ..self }
    }

    /// Sends larger blobs in parts.
    #[must_use]
    pub fn with_single_put_bytes_max(self, single_put_bytes_max: u32) -> Self {
        Self {
            single_put_bytes_max,
            ..self
        }
    }

    /// Compresses blobs.
    #[must_use]
    pub fn with_zstd_level(self, zstd_level: Option<i32>) -> Self {
        Self { zstd_level, ..self }
    }

    /// Makes objects young again that are in use and older.
    #[must_use]
    pub fn with_touch_after(self, touch_after: Option<Duration>) -> Self {
        Self { touch_after, ..self }
    }
}

/// A [`BlobStore`] in a bucket.
///
/// Blobs that are read as a whole are hashed; of a part, which nobody can hash, the length is made sure. An object that turns out to be damaged
/// is removed. It has no bound: that is the bucket's.
#[derive(Clone)]
pub struct Bucket {
    inner: Arc<Inner>,
}

/// What requests in the background hold too.
struct Inner {
    requests: Arc<Requests>,
    names: Names,
    options: BucketOptions,
    clock: Arc<dyn Clock>,
    known: Presence<Known>,
    suspects: Suspects,
    /// Blobs that were looked for and not found, so that nobody who found them earlier is relied on.
    missed: Presence<()>,
    reads: SingleFlight<Bytes>,
    puts: SingleFlight<()>,
    upload_memory: UploadMemory,
    touches: Touches,
    turns: Turns,
}

/// What is known of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    size: u64,
    modified: SystemTime,
}

impl Bucket {
    /// Keeps blobs in `objects`, below `prefix`, which may be empty. `objects` should make requests again that fail for the moment.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the prefix is no path.
    pub fn new(
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        options: BucketOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let prefix = Path::parse(prefix).map_err(|error| {
            Error::new(ErrorKind::InvalidArgument, "open", format!("prefix {prefix:?}")).caused_by(error)
        })?;
        let inner = Inner {
            requests: Arc::new(Requests::new(objects, options.requests_max)),
            names: Names::new(prefix),
            known: Presence::new(options.presence.clone()),
            suspects: Suspects::default(),
            missed: Presence::new(options.presence.clone()),
            reads: SingleFlight::default(),
            puts: SingleFlight::default(),
            upload_memory: UploadMemory::new(options.upload_bytes_max),
            touches: Touches::default(),
            turns: Turns::default(),
            options,
            clock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes one harmless request, so that what is wrong with the address or the credentials is told at once.
    ///
    /// # Errors
    /// What the service says.
    pub async fn check(&self) -> Result<()> {
        let name = self.inner.names.probe();
        match self.inner.requests.head(&name).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The requests that were made so far.
    pub fn requests(&self) -> RequestCounts {
        self.inner.requests.counts()
    }

    /// The records of the same bucket.
    pub fn records(&self) -> BucketRecords {
        BucketRecords::new(self.inner.clone())
    }
}

impl Inner {
    /// What is known of a blob's object that was found not too long ago.
    fn known(&self, digest: &Digest) -> Option<Known> {
        self.known.get(digest, self.clock.now())
    }

    fn note(&self, digest: Digest, known: Known) {
        self.missed.forget(&digest);
        self.known.note(digest, self.clock.now(), known);
    }

    /// Notes that a blob is not there.
    fn note_missed(&self, digest: Digest) {
        self.known.forget(&digest);
        self.missed.note(digest, self.clock.now(), ());
    }

    /// Says whether a blob is there, and asks if that is not known. It is a use.
    async fn is_present(self: &Arc<Self>, digest: Digest) -> Result<bool> {
        if self.is_condemned(digest).await? {
            return Ok(false);
        }
        if let Some(known) = self.known(&digest) {
            self.touch(digest, known);
            return Ok(true);
        }
        match self.requests.head(&self.names.blob(&digest)).await {
            Ok(known) => {
                self.note(digest, known);
                self.touch(digest, known);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.note_missed(digest);
                Ok(false)
            }
            Err(error) => Err(error.on(digest)),
        }
    }
}

#[async_trait]
impl BlobStore for Bucket {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let asked = absent_once(digests, |_| false);
        let ask = |digest: Digest| async move { (digest, self.inner.is_present(digest).await) };
        let mut answers = stream::iter(asked.clone())
            .map(ask)
            .buffer_unordered(self.inner.options.requests_max);
        let mut present = HashSet::new();
        while let Some((digest, answer)) = answers.next().await {
            if answer? {
                present.insert(digest);
            }
        }
        Ok(asked.into_iter().filter(|digest| !present.contains(digest)).collect())
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        self.inner.get(digest, range).await
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        self.inner.put(blob).await
    }

    /// Objects stay for longer than it is remembered that they are there, whoever remembers.
    fn has_kept_since(&self, digests: &[Digest], when: SystemTime) -> bool {
        let now = self.inner.clock.now();
        let age = now.duration_since(when).unwrap_or_default();
        let is_missed = |digest: &Digest| self.inner.missed.get(digest, now).is_some();
        age < self.inner.options.presence.ttl && !digests.iter().any(is_missed)
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let read = |digest: Digest| async move { self.inner.get(digest, ByteRange::ALL).await?.into_bytes().await };
        let reads = stream::iter(digests.to_vec()).map(read);
        reads.buffered(self.inner.options.requests_max).collect().await
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let puts = stream::iter(blobs).map(|blob| self.inner.put(blob));
        puts.buffered(self.inner.options.requests_max).collect().await
    }
}

impl Inventory for Bucket {
    fn list(&self) -> BoxStream<'static, Result<Vec<Digest>>> {
        let inner = self.inner.clone();
        let listed = inner.requests.list(&inner.names.blobs());
        let pages = listed.chunks(1000).map(move |page| {
            let named = page.into_iter().map(|name| Ok(inner.names.digest(&name?)));
            named.filter_map(Result::transpose).collect()
        });
        pages.boxed()
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucket({}", self.inner.requests)?;
        if !self.inner.names.prefix().is_root() {
            write!(f, "/{}", self.inner.names.prefix())?;
        }
        if let Some(level) = self.inner.options.zstd_level {
            write!(f, ", zstd {level}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("objects", &self.inner.requests.to_string())
            .field("requests", &self.requests())
            .field("known", &self.inner.known.len())
            .finish_non_exhaustive()
    }
}
