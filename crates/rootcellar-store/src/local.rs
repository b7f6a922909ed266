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

    /// Takes a lease for each of `groups`, or none at all, and shows to `see` where each blob lies, group by group in the order in which
    /// they were added; `None` for the empty blob, which lies nowhere.
    async fn lease_each(&self, groups: &LeaseGroups<'_>, see: &mut SeeLocation<'_>) -> Result<Leased<Vec<Lease>>>;

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

/// Blobs to be leased together, in groups that are let go one by one. They stay where they are: whoever stages a tree has a hundred
/// thousand digests.
#[derive(Debug, Clone, Default)]
pub struct LeaseGroups<'a> {
    digests: Vec<&'a Digest>,
    /// Where in `digests` each group ends, and the next one begins.
    ends: Vec<usize>,
}

impl<'a> LeaseGroups<'a> {
    /// Adds a group. A blob may be in several, and in one more than once.
    pub fn add(&mut self, group: impl IntoIterator<Item = &'a Digest>) {
        self.digests.extend(group);
        self.ends.push(self.digests.len());
    }

    /// The digests of all groups.
    pub fn digests(&self) -> &[&'a Digest] {
        &self.digests
    }

    /// Where in the digests each group ends, and the next one begins.
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }
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

/// The answer to a request for a lease, or for several.
#[derive(Debug)]
pub enum Leased<T = Lease> {
    /// All blobs are present, and stay so while this is held.
    Held(T),
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
