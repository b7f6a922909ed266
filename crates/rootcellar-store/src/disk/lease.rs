//! Leases: blobs that stay where they are while somebody works with their files.

use std::collections::HashSet;
use std::sync::Arc;

use rootcellar_digest::Digest;

use super::index::Hold;
use super::shared::Shared;
use crate::store::absent_once;
use crate::{Error, ErrorKind, Lease, Leased, Location, Result};

impl Shared {
    /// Leased files are read past the store, so what was not read since the start is hashed first.
    pub(super) async fn lease(self: &Arc<Self>, digests: &[Digest]) -> Result<Leased> {
        let mut named = HashSet::new();
        let is_stored = |digest: &Digest| !digest.is_empty_blob() && named.insert(*digest);
        let digests: Vec<Digest> = digests.iter().copied().filter(is_stored).collect();
        loop {
            for outcome in self.ensure_checked(&digests).await {
                match outcome {
                    Err(error) if error.kind() != ErrorKind::DataLoss => return Err(error),
                    // A damaged blob is missing now.
                    _ => {}
                }
            }
            if let Some(answer) = self.try_lease(&digests) {
                return Ok(answer);
            }
        }
    }

    /// `None` if a blob was put out and in again since it was checked, and has to be looked at once more.
    fn try_lease(self: &Arc<Self>, digests: &[Digest]) -> Option<Leased> {
        let now = self.clock.now();
        let mut index = self.index();
        let missing = absent_once(digests, |digest| index.contains(digest));
        if !missing.is_empty() {
            return Some(Leased::Missing(missing));
        }
        let holds = index.lease(digests, now)?;
        drop(index);
        let shared = self.clone();
        Some(Leased::Held(Lease::new(Held { shared, holds })))
    }

    pub(super) fn locate(&self, digest: Digest) -> Result<Location> {
        if digest.is_empty_blob() || !self.index().contains(digest) {
            return Err(Error::not_found("locate", digest));
        }
        let path = self.loose.path(digest);
        Ok(Location::Loose { path })
    }
}

/// What a lease holds. Dropping it ends the lease.
struct Held {
    shared: Arc<Shared>,
    holds: Vec<Hold>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut index = self.shared.index();
        for hold in self.holds.drain(..) {
            index.end_lease(hold);
        }
    }
}
