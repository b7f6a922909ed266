//! The first read of a blob after a start hashes all of it, before a byte is handed out.
//!
//! The blob is claimed meanwhile: others who need it wait for the outcome, and nobody evicts it. What is damaged is dropped,
//! and absent from then on. What was put since the start needs no check.

use std::io;
use std::sync::Arc;

use rootcellar_digest::Digest;

use super::check::{Check, check};
use super::index::{ClaimEnd, Claimed};
use super::shared::Shared;
use crate::{Error, ErrorKind, Result};

impl Shared {
    /// Hashes those of `digests` that were neither put nor read since the start: one outcome for each. Damaged ones are
    /// absent then. Absent ones are no error here.
    pub(super) async fn ensure_checked(self: &Arc<Self>, digests: &[Digest]) -> Vec<Result<()>> {
        let mut outcomes: Vec<Result<()>> = digests.iter().map(|_| Ok(())).collect();
        let mut items: Vec<usize> = (0..digests.len()).collect();
        while !items.is_empty() {
            let (claims, theirs) = self.claim_unchecked(digests, &items);
            if !claims.items.is_empty() {
                let checked = self.hop(move |shared| shared.check_batch(&claims.items)).await;
                for (at, outcome) in checked {
                    outcomes[at] = outcome;
                }
            }
            items = Vec::with_capacity(theirs.len());
            for (at, mut end) in theirs {
                // An error says that the claim ended, which is what is waited for.
                let _ended = end.changed().await;
                items.push(at);
            }
        }
        outcomes
    }

    fn claim_unchecked(self: &Arc<Self>, digests: &[Digest], items: &[usize]) -> (CheckClaims, Vec<(usize, ClaimEnd)>) {
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        let mut index = self.index();
        for at in items.iter().copied() {
            match index.claim_unchecked(digests[at]) {
                Claimed::Done => {}
                Claimed::Mine => mine.push((at, digests[at])),
                Claimed::Theirs(end) => theirs.push((at, end)),
            }
        }
        drop(index);
        let claims = CheckClaims {
            shared: self.clone(),
            items: mine,
        };
        (claims, theirs)
    }

    fn check_batch(&self, items: &[(usize, Digest)]) -> Vec<(usize, Result<()>)> {
        let check = |(at, digest): &(usize, Digest)| (*at, self.check_one(*digest));
        items.iter().map(check).collect()
    }

    /// Hashes a blob that the caller has claimed.
    fn check_one(&self, digest: Digest) -> Result<()> {
        let outcome = self.loose.open(digest).and_then(|file| check(digest, &file));
        let reason = match outcome {
            Ok(Check::Whole) => {
                self.index().set_checked(digest);
                return Ok(());
            }
            Ok(Check::Damaged(reason)) => reason,
            Err(error) if error.kind() == io::ErrorKind::NotFound => "the file is gone".to_owned(),
            Err(error) => return Err(Error::io("get", "checking the blob's file", error).on(digest)),
        };
        tracing::error!(%digest, reason, "dropping a damaged blob");
        let mut index = self.index();
        index.counters.damaged_blobs += 1;
        index.remove(digest);
        drop(index);
        if let Err(error) = self.loose.remove(digest) {
            tracing::error!(%digest, %error, "a damaged blob's file stays");
        }
        Err(Error::new(ErrorKind::DataLoss, "get", reason).on(digest))
    }

    /// Looks again at a blob that could not be read, while nobody puts or removes it, and drops it if it is damaged.
    pub(super) fn recheck(&self, digest: Digest) {
        let claimed = self.index().claim_present(digest);
        if let Claimed::Mine = claimed {
            // The reader has an error of its own; this one is in the log.
            let _outcome = self.check_one(digest);
            self.index().release(digest);
        }
    }
}

/// Blobs that this caller checks. Dropping it ends the claims.
struct CheckClaims {
    shared: Arc<Shared>,
    items: Vec<(usize, Digest)>,
}

impl Drop for CheckClaims {
    fn drop(&mut self) {
        let mut index = self.shared.index();
        for (_, digest) in &self.items {
            index.release(*digest);
        }
    }
}
