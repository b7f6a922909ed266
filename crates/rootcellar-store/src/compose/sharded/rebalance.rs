//! Moving blobs to where they belong since the shards were changed.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use rootcellar_digest::Digest;

use super::shard::patience_for;
use super::{Inner, Sharded};
use crate::compose::transfer::{batches, copy};
use crate::{Error, ErrorKind, Inventory, Result};

/// How far moving blobs is, or how it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebalanced {
    /// Shards that were looked through.
    pub shards: usize,
    /// Blobs that were found on them, one on two shards counted twice.
    pub blobs: u64,
    /// Copies that were made.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs found on shards that they do not belong to. They are not removed: nobody uses them there, so they go when there is need.
    pub misplaced: u64,
    /// Copies that could not be made; each is in the log.
    pub failed: u64,
}

impl Sharded {
    /// Looks through all shards and copies each blob to those of its shards that lack it. It can run while the store is used, by any
    /// number of front ends, and be repeated. `report` is told how far it is.
    ///
    /// # Errors
    /// If a shard cannot tell what it holds, or one does not answer.
    pub async fn rebalance(&self, mut report: impl FnMut(Rebalanced)) -> Result<Rebalanced> {
        let mut done = Rebalanced::default();
        for (number, inventory) in self.inner.inventories()?.into_iter().enumerate() {
            let mut pages = inventory.list();
            while let Some(page) = pages.next().await {
                self.inner
                    .rebalance_page(number, &page?, &mut done, &mut report)
                    .await?;
            }
            done.shards += 1;
            report(done);
        }
        Ok(done)
    }
}

impl Inner {
    fn inventories(&self) -> Result<Vec<&dyn Inventory>> {
        let inventory = |shard: &'_ super::Watched| {
            let reason = format!("shard {shard} cannot tell what it holds");
            Error::new(ErrorKind::InvalidArgument, "rebalance", reason)
        };
        let each = self.shards.iter();
        each.map(|shard| shard.shard.inventory.as_deref().ok_or_else(|| inventory(shard)))
            .collect()
    }

    async fn rebalance_page(
        &self,
        from: usize,
        page: &[Digest],
        done: &mut Rebalanced,
        report: &mut impl FnMut(Rebalanced),
    ) -> Result<()> {
        let mut wanted: HashMap<usize, Vec<Digest>> = HashMap::new();
        for digest in page {
            let shards = self.replicas(digest);
            done.misplaced += u64::from(!shards.contains(&from));
            for shard in shards.into_iter().filter(|shard| *shard != from) {
                wanted.entry(shard).or_default().push(*digest);
            }
        }
        done.blobs += page.len() as u64;
        for (to, digests) in wanted {
            let mut missing = Vec::new();
            for (_, answer) in self.ask_shard(to, &digests).await {
                missing.extend(answer?);
            }
            for batch in batches(&missing) {
                self.copy_batch(from, to, &batch, done).await;
                report(*done);
            }
        }
        report(*done);
        Ok(())
    }

    async fn copy_batch(&self, from: usize, to: usize, batch: &[Digest], done: &mut Rebalanced) {
        let (source, target) = (&self.shards[from], &self.shards[to]);
        let bytes = batch.iter().map(Digest::size_bytes).sum();
        // Both ways.
        let patience = patience_for(self.options.patience, bytes) * 2;
        let copied = copy(source.store(), target.store(), batch, &self.spool);
        for (digest, outcome) in batch.iter().zip(target.call_many("put", patience, batch, copied).await) {
            match outcome {
                Ok(()) => {
                    done.copied += 1;
                    done.bytes += digest.size_bytes();
                }
                // Gone since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%digest, from = %source, to = %target, %error, "a blob could not be copied");
                    done.failed += 1;
                }
            }
        }
    }
}
