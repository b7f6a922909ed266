//! A store on disk: one engine over any layout.
//!
//! ```text
//!   put ──> queue ──> commit lane ──> layout.write ──[sync]──> index ──> acknowledged           put.rs, commit.rs
//!   get ──> index ──> layout.open ──> what is cached at once, else off the runtime              get.rs, first_read.rs
//!
//!   commit lane     writes, and syncs if that is promised                                       commit.rs
//!   sync lane       syncs in intervals                                                          sync.rs
//!   upkeep lane     makes room, checks what is doubtful, writes uses down, scrubs               upkeep.rs, reclaim/, ...
//!
//! <dir>/FORMAT, lock, closed, failed.*   whose directory it is, and how the last process ended   home.rs
//! <dir>/uses                             when blobs were used                                    uses.rs
//! <dir>/tmp/                             what is arriving; emptied at the start                  start.rs
//! <dir>/...                              the layout's                                            layout/
//! ```
//!
//! The index is in memory (`index/`); a start makes it of the layout's logs (`start.rs`). What each step promises about crashes is in
//! `docs/format.md`.

pub(crate) mod check;
mod commit;
mod core;
mod doubtful;
mod first_read;
mod get;
pub(crate) mod home;
pub(crate) mod index;
pub(crate) mod lanes;
mod lease;
mod options;
mod put;
mod recency;
mod reclaim;
mod scrub;
mod start;
mod statistics;
#[cfg(feature = "testing")]
pub(crate) mod stepped;
mod sync;
mod upkeep;
mod uses;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use rootcellar_digest::Digest;

use self::core::Engine;
use self::lanes::{Bells, Lane, Threads, Waker as _};
pub use self::options::{DiskOptions, Durability, Scrub, WhenFull};
pub use self::statistics::{Counters, DiskStatistics, ScrubProgress};
use crate::layout::StoreId;
use crate::{
    Blob, BlobStore, ByteRange, Clock, Inventory, Kept, Lease, LeaseGroups, LeaseHolder, Leased, LocalStore, Location,
    Mark, Result, SeeLocation, Spool, Verified,
};

/// A [`LocalStore`] in a directory.
///
/// What an acknowledged put has survived is chosen by [`Durability`]. Whatever is chosen, a blob that is reported present is
/// whole. The first read of a blob after a start hashes it, unless it was put since; later reads of a packed blob of up to 64 KiB compare
/// its checksum. A file stays open for each pack, some thousand in a store that is full of small blobs: see that the process may have
/// so many.
///
/// After a sync has failed the store refuses all puts with [`ErrorKind::Internal`](crate::ErrorKind::Internal) until it is
/// opened again: nobody knows any more what the disk has. Reads go on. If it is opened again before the machine is started anew, it
/// gives up what no earlier sync had covered.
///
/// [Close](Self::close) it to end. Dropping it blocks until the steps under way have ended, and is to the next start what a kill
/// is.
pub struct DiskStore {
    engine: Arc<Engine>,
    threads: Arc<Threads>,
}

impl DiskStore {
    /// Opens the store in `dir`, or makes one if `dir` is empty or absent. Runs on a tokio runtime.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if another process uses it;
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the directory is something else's, or has another version or
    /// layout; I/O errors.
    pub async fn open(dir: impl Into<PathBuf>, options: DiskOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let dir = dir.into();
        let open = move || {
            let bells = Arc::new(Bells::default());
            let engine = Engine::open_in(&dir, &options, clock, bells.clone())?;
            let need = bells.clone();
            engine.budget.on_need(move || need.wake(Lane::Upkeep));
            let threads = Arc::new(Threads::start(&engine, bells)?);
            Ok(Self { engine, threads })
        };
        tokio::task::spawn_blocking(open)
            .await
            .expect("opening does not panic, and the runtime outlives its tasks")
    }

    /// The name of the layout of the store in `dir`; `None` if there is no store yet. Blocks.
    ///
    /// # Errors
    /// I/O errors.
    pub fn layout_of(dir: &Path) -> Result<Option<String>> {
        home::layout_of(&crate::io::OsDisk, dir)
    }

    /// Ends the store in good order: what was put is synced, and the next start trusts it. Puts are refused from then on.
    ///
    /// # Errors
    /// That of the sync; the next start then looks at what was put lately, as after a crash.
    pub async fn close(&self) -> Result<()> {
        let threads = self.threads.clone();
        let close = move |engine: &Arc<Engine>| {
            engine.shut();
            threads.stop();
            engine.close()
        };
        self.engine.hop(close).await
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.engine.home.path()
    }

    /// The random name that the store was given when it was made.
    pub fn id(&self) -> StoreId {
        self.engine.home.id()
    }

    /// How much there is, and what happened since the store was opened.
    pub fn statistics(&self) -> DiskStatistics {
        self.engine.statistics()
    }
}

#[async_trait]
impl BlobStore for DiskStore {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        Ok(self.engine.absent(digests))
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        self.engine.get(digest, range).await
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        let mut outcomes = self.engine.put_many(vec![blob]).await;
        outcomes.pop().expect("one outcome for each blob")
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        self.engine.get_many(digests).await
    }

    async fn get_many_into(&self, digests: &[Digest], buffers: &mut [&mut [u8]]) -> Vec<Result<()>> {
        self.engine.get_many_into(digests, buffers).await
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        self.engine.put_many(blobs).await
    }

    fn mark(&self) -> Option<Mark> {
        Some(self.engine.mark())
    }

    fn has_kept(&self, mark: Mark) -> Kept {
        self.engine.has_kept(mark)
    }
}

#[async_trait]
impl LocalStore for DiskStore {
    async fn lease(&self, digests: &[Digest]) -> Result<Leased> {
        self.engine.lease(digests).await
    }

    async fn lease_each(&self, groups: &LeaseGroups<'_>, see: &mut SeeLocation<'_>) -> Result<Leased<Vec<Lease>>> {
        self.engine.lease_each(groups, see).await
    }

    fn locate(&self, digest: Digest) -> Result<Location> {
        self.engine.locate(digest)
    }

    fn loose_dir(&self) -> Option<PathBuf> {
        self.engine.layout.alone_dir()
    }

    fn spool(&self) -> &Spool {
        &self.engine.spool
    }

    fn on_shortage(&self, holder: Weak<dyn LeaseHolder>) {
        self.engine.lease_holders().push(holder);
    }
}

impl Inventory for DiskStore {
    fn list(&self) -> BoxStream<'static, Result<Vec<Digest>>> {
        let engine = self.engine.clone();
        let shards: Vec<_> = engine.index.shards().collect();
        let page = move |shard| {
            let mut digests = Vec::new();
            engine.index.scan_shard(shard, |seen| digests.push(seen.digest));
            Ok(digests)
        };
        stream::iter(shards).map(page).boxed()
    }
}

impl fmt::Display for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk({}, {})", self.dir().display(), self.engine.layout)
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore")
            .field("dir", &self.dir())
            .field("id", &self.id())
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}
