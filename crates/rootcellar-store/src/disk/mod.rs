//! A store on disk.
//!
//! ```text
//! <dir>/FORMAT                                       version, layout, id                          home.rs
//! <dir>/lock                                         one process at a time                        home.rs
//! <dir>/sync-mark                                    up to when the disk has everything           mark.rs
//! <dir>/loose/<function>/ab/<hash>-<size>            blobs, 0444, never replaced                  loose.rs
//! <dir>/tmp/                                         what is arriving; emptied at the start
//! ```
//!
//! A put waits for its turn (`index.rs`: one put of a blob at a time), makes room, writes, syncs if so chosen, publishes with
//! `link(2)` and only then enters the index (`put.rs`, `publish.rs`). The index is in memory; a start rebuilds it from the files
//! (`recover.rs`). A blob's first read after a start hashes it (`first_read.rs`). A thread writes uses to the files' times and syncs
//! in intervals (`keeper.rs`, `sync.rs`). Everything that blocks runs on the runtime's threads for that, a bounded number at a time.
//!
//! What each step promises about crashes is argued in `docs/design/0001-loose-layout.md`.

mod check;
mod first_read;
mod get;
mod home;
mod index;
mod keeper;
mod lease;
mod loose;
mod mark;
mod options;
mod publish;
mod put;
mod recover;
mod shared;
mod statistics;
mod sync;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rootcellar_digest::Digest;

use self::keeper::Keeper;
pub use self::options::{DiskOptions, Durability, WhenFull};
use self::shared::Shared;
pub use self::statistics::DiskStatistics;
use crate::store::absent_once;
use crate::{Blob, BlobStore, ByteRange, Clock, Leased, LocalStore, Location, Result, Spool, Verified};

/// A [`LocalStore`] in a directory of a filesystem that has hard links.
///
/// What an acknowledged put has survived is chosen by [`Durability`]. Whatever is chosen, a blob that is reported present is
/// whole. The first read of a blob after a start hashes it, unless it was put since; later reads do not hash it again.
///
/// After a sync has failed the store refuses all puts with [`ErrorKind::Internal`](crate::ErrorKind::Internal) until it is
/// opened again: nobody knows any more what the disk has. Reads go on.
///
/// [Close](Self::close) it to end. Dropping it blocks until a sync under way has ended, and is to the next start what a kill is.
pub struct DiskStore {
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
}

impl DiskStore {
    /// Opens the store in `dir`, or makes one if `dir` is empty or absent. Runs on a tokio runtime.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if another process uses it;
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the directory is something else's, or a later version's;
    /// I/O errors.
    pub async fn open(dir: impl Into<PathBuf>, options: DiskOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let dir = dir.into();
        let open = move || {
            let durability = options.durability;
            let shared = Arc::new(Shared::open(&dir, options, clock)?);
            shared.trim();
            let keeper = Arc::new(Keeper::start(shared.clone(), durability)?);
            Ok(Self { shared, keeper })
        };
        tokio::task::spawn_blocking(open)
            .await
            .expect("opening does not panic, and the runtime outlives its tasks")
    }

    /// Ends the store in good order: what was put is synced, and the next start trusts it. Puts are refused from then on.
    ///
    /// # Errors
    /// That of the sync; the next start then looks at what was put lately, as after a crash.
    pub async fn close(&self) -> Result<()> {
        let keeper = self.keeper.clone();
        let close = move |shared: &Shared| {
            keeper.stop();
            shared.close()
        };
        self.shared.hop(close).await
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.shared.home.path()
    }

    /// The random name that the store was given when it was made.
    pub fn id(&self) -> &str {
        self.shared.home.id()
    }

    /// How much there is, and what happened since the store was opened.
    pub fn statistics(&self) -> DiskStatistics {
        self.shared.statistics()
    }
}

#[async_trait]
impl BlobStore for DiskStore {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let now = self.shared.clock.now();
        let mut index = self.shared.index();
        Ok(absent_once(digests, |digest| index.touch(digest, now)))
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        self.shared.get(digest, range).await
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        let mut outcomes = self.shared.put_many(vec![blob]).await;
        outcomes.pop().expect("one outcome for each blob")
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        self.shared.get_many(digests).await
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        self.shared.put_many(blobs).await
    }
}

#[async_trait]
impl LocalStore for DiskStore {
    async fn lease(&self, digests: &[Digest]) -> Result<Leased> {
        self.shared.lease(digests).await
    }

    fn locate(&self, digest: Digest) -> Result<Location> {
        self.shared.locate(digest)
    }

    fn spool(&self) -> &Spool {
        &self.shared.spool
    }
}

impl fmt::Display for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk({}, loose)", self.dir().display())
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
