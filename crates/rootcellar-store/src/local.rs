//! A store whose blobs lie on this machine: what staging is built on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use rootcellar_digest::Digest;

use crate::{BlobStore, Result, Spool};

/// A [`BlobStore`] that can say where a blob lies, and keep it there.
#[async_trait]
pub trait LocalStore: BlobStore {
    /// Takes a lease on all of `digests`, or on none: the digests that are missing are the answer then.
    ///
    /// Until the lease is dropped, none of its blobs is evicted or moved. Duplicates are fine.
    async fn lease(&self, digests: &[Digest]) -> Result<Leased>;

    /// Takes a lease as [`lease`](Self::lease) does, and when it is held, shows to `see` where each blob lies, in the order of
    /// `digests`; `None` for the empty blob, which lies nowhere.
    ///
    /// Takes references, and shows one place after the other: whoever stages a tree has a hundred thousand of them.
    async fn lease_and_locate(&self, digests: &[&Digest], see: &mut SeeLocation<'_>) -> Result<Leased>;

    /// Where a leased blob lies. Without a lease the answer can be wrong a moment later.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the blob is not present, the empty blob included.
    fn locate(&self, digest: Digest) -> Result<Location>;

    /// The directory below which every [`Location::Loose`] lies, and nothing of anybody else's; `None` if no blob lies so.
    fn loose_dir(&self) -> Option<PathBuf>;

    /// Where content is ingested from which this store can publish without copying.
    fn spool(&self) -> &Spool;

    /// Asks `holder` to let go of leases when they are in the way of making room. It is forgotten when it is gone.
    fn on_shortage(&self, holder: Weak<dyn LeaseHolder>);
}

/// Is shown where blobs lie.
pub type SeeLocation<'a> = dyn FnMut(Option<Location>) + Send + 'a;

/// Keeps leases that it could do without, such as those of roots that might be staged again.
pub trait LeaseHolder: Send + Sync {
    /// Drops leases that nobody is using, and says whether there were any. Called on a thread of the store, which waits for it.
    fn let_go(&self, shortage: Shortage) -> bool;
}

/// How much a store is in need of room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// It is about to evict, as a store that is full does all the time: what was not used for a while is better let go.
    Usual,
    /// Nothing is left to evict, and somebody waits for room.
    Full,
}

/// The answer to a request for a lease.
#[derive(Debug)]
pub enum Leased {
    /// All blobs are present, and stay so while this is held.
    Held(Lease),
    /// These are not present, each named once; no lease was taken.
    Missing(Vec<Digest>),
}

/// Keeps blobs from being evicted until it is dropped.
pub struct Lease(#[expect(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>);

impl Lease {
    /// Wraps whatever ends the lease when it is dropped.
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        Self(Box::new(guard))
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

/// The place of a stored blob.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A file of its own, which holds the blob and nothing else. It is never written again.
    Loose {
        /// The file's path.
        path: Arc<Path>,
    },
    /// A part of a file that holds other blobs too. Behind the blob, up to the next multiple of 512 bytes, it is zero. The file may
    /// grow, and what is in it is never written again.
    Packed {
        /// The file's path: the same one for all blobs in it, mostly.
        path: Arc<Path>,
        /// The blob's first byte: a multiple of 512.
        offset: u64,
    },
}
