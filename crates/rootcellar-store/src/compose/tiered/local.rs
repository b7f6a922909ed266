//! A store of two as one whose blobs lie on this machine: a lease brings what is missing.

use std::path::PathBuf;
use std::sync::Weak;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _};
use rootcellar_digest::{Digest, DigestSet};

use super::Tiered;
use crate::compose::transfer::{batches, copy};
use crate::{
    Error, ErrorKind, Lease, LeaseGroups, LeaseHolder, Leased, LocalStore, Location, Result, SeeLocation, Spool,
};

/// What was brought can be evicted again before it is leased, by others who bring something. More often than this, there is no room.
const ROUNDS_MAX: usize = 4;
/// Batches that are brought at a time.
const BATCHES_MAX: usize = 8;

impl Tiered<dyn LocalStore> {
    /// Brings blobs into the fast store; those that the slow one lacks are the answer.
    async fn bring(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let mut brought = stream::iter(batches(digests))
            .map(|batch| self.bring_batch(batch))
            .buffer_unordered(BATCHES_MAX);
        let mut absent = DigestSet::default();
        while let Some((batch, outcomes)) = brought.next().await {
            for (digest, outcome) in batch.into_iter().zip(outcomes) {
                match outcome {
                    Ok(()) => self.uses.note([digest].into_iter()),
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        absent.insert(digest);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(digests
            .iter()
            .copied()
            .filter(|digest| absent.contains(digest))
            .collect())
    }

    async fn bring_batch(&self, batch: Vec<Digest>) -> (Vec<Digest>, Vec<Result<()>>) {
        let outcomes = copy(&*self.slow, &*self.fast, &batch, &self.spool).await;
        (batch, outcomes)
    }

    /// Brings what a lease lacks. Says what cannot be had, and then the lease cannot either.
    async fn bring_for_lease(&self, missing: Vec<Digest>, round: usize) -> Result<Option<Vec<Digest>>> {
        if round == ROUNDS_MAX {
            let reason = format!(
                "{} blobs were brought and evicted again {ROUNDS_MAX} times: {} is too small for what is leased at once",
                missing.len(),
                self.fast
            );
            return Err(Error::new(ErrorKind::Exhausted, "lease", reason));
        }
        let absent = self.bring(&missing).await?;
        Ok((!absent.is_empty()).then_some(absent))
    }
}

#[async_trait]
impl LocalStore for Tiered<dyn LocalStore> {
    async fn lease(&self, digests: &[Digest]) -> Result<Leased> {
        for round in 0.. {
            match self.fast.lease(digests).await? {
                Leased::Held(lease) => {
                    self.pass_uses_on(digests.to_vec());
                    return Ok(Leased::Held(lease));
                }
                Leased::Missing(missing) => {
                    if let Some(absent) = self.bring_for_lease(missing, round).await? {
                        return Ok(Leased::Missing(absent));
                    }
                }
            }
        }
        unreachable!("the rounds are bounded")
    }

    async fn lease_each(&self, groups: &LeaseGroups<'_>, see: &mut SeeLocation<'_>) -> Result<Leased<Vec<Lease>>> {
        for round in 0.. {
            match self.fast.lease_each(groups, see).await? {
                Leased::Held(leases) => {
                    self.pass_uses_on(groups.digests().iter().map(|digest| **digest).collect());
                    return Ok(Leased::Held(leases));
                }
                Leased::Missing(missing) => {
                    if let Some(absent) = self.bring_for_lease(missing, round).await? {
                        return Ok(Leased::Missing(absent));
                    }
                }
            }
        }
        unreachable!("the rounds are bounded")
    }

    fn locate(&self, digest: Digest) -> Result<Location> {
        self.fast.locate(digest)
    }

    fn loose_dir(&self) -> Option<PathBuf> {
        self.fast.loose_dir()
    }

    fn spool(&self) -> &Spool {
        self.fast.spool()
    }

    fn on_shortage(&self, holder: Weak<dyn LeaseHolder>) {
        self.fast.on_shortage(holder);
    }
}
