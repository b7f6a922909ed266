//! Copies that shards still have to get: because they were down, or new, or have lost them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use rootcellar_digest::{Digest, DigestSet};

use super::{Inner, patience_for};
use crate::checksum::seed_of;
use crate::compose::transfer::{batches, ingest, verify};
use crate::io::OsDisk;
use crate::pending::{Pending, Target};
use crate::{ByteRange, ErrorKind, Result, Verified};

/// How often what waits is looked through.
const ROUND: Duration = Duration::from_millis(500);
/// Blobs that a shard is asked for at once.
const TAKEN_MAX: usize = 1000;
const BATCHES_MAX: usize = 4;

/// What is still to be copied, and where to.
#[derive(Debug)]
pub(super) struct Heals {
    /// Guards what waits, by the number of the shard.
    waiting: Mutex<Waiting>,
    list: Option<List>,
    healed: AtomicU64,
    not_noted: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By the number of the shard: what waits in its turn, and all of it.
    shards: Vec<ShardQueue>,
    heals: usize,
    /// What is not on the list yet, though there is one.
    not_listed: Vec<(usize, Digest)>,
}

#[derive(Debug, Default)]
struct ShardQueue {
    turns: VecDeque<Digest>,
    all: DigestSet,
}

impl Waiting {
    fn shard(&mut self, shard: usize) -> &mut ShardQueue {
        if self.shards.len() <= shard {
            self.shards.resize_with(shard + 1, ShardQueue::default);
        }
        &mut self.shards[shard]
    }

    fn contains(&self, shard: usize, digest: &Digest) -> bool {
        self.shards.get(shard).is_some_and(|queue| queue.all.contains(digest))
    }

    fn insert(&mut self, shard: usize, digest: Digest) -> bool {
        let queue = self.shard(shard);
        let is_new = queue.all.insert(digest);
        if is_new {
            queue.turns.push_back(digest);
            self.heals += 1;
        }
        is_new
    }

    fn remove(&mut self, shard: usize, digest: &Digest) {
        if self.shard(shard).all.remove(digest) {
            self.heals -= 1;
        }
    }

    /// The next ones in their turn; if they are not removed they come again after all others.
    fn next(&mut self, shard: usize) -> Vec<Digest> {
        let queue = self.shard(shard);
        let mut taken = Vec::new();
        // What was removed meanwhile is still in the turns.
        while taken.len() < TAKEN_MAX.min(queue.all.len()) {
            let Some(digest) = queue.turns.pop_front() else { break };
            if queue.all.contains(&digest) {
                taken.push(digest);
            }
        }
        queue.turns.extend(taken.iter().copied());
        taken
    }
}

/// The same on disk, by the hash of the shard's name.
#[derive(Debug)]
struct List {
    pending: Arc<Pending>,
    targets: Vec<Target>,
}

impl List {
    fn entries(&self, heals: impl IntoIterator<Item = (usize, Digest)>) -> Vec<(Target, Digest)> {
        heals
            .into_iter()
            .map(|(shard, digest)| (self.targets[shard], digest))
            .collect()
    }
}

impl Heals {
    pub(super) fn in_memory() -> Self {
        Self {
            waiting: Mutex::default(),
            list: None,
            healed: AtomicU64::new(0),
            not_noted: AtomicU64::new(0),
        }
    }

    pub(super) fn on_disk(path: &Path, names: &[&str]) -> Result<Self> {
        let pending = Pending::open(Arc::new(OsDisk), path, false)?;
        let targets: Vec<Target> = names.iter().map(|name| seed_of(name.as_bytes())).collect();
        let mut waiting = Waiting::default();
        for (target, digest) in pending.all() {
            match targets.iter().position(|known| *known == target) {
                Some(shard) => {
                    waiting.insert(shard, digest);
                }
                // That shard is no more.
                None => pending.done(&[(target, digest)])?,
            }
        }
        Ok(Self {
            waiting: Mutex::new(waiting),
            list: Some(List {
                pending: Arc::new(pending),
                targets,
            }),
            ..Self::in_memory()
        })
    }

    fn waiting_all(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a shard has to get a blob. On the list it is a moment later: what a killed process did not list is healed when it is
    /// used again.
    pub(super) fn note(&self, shard: usize, digest: Digest, max: usize) {
        let mut waiting = self.waiting_all();
        if waiting.heals >= max && !waiting.contains(shard, &digest) {
            self.not_noted.fetch_add(1, Ordering::Relaxed);
        } else if waiting.insert(shard, digest) && self.list.is_some() {
            waiting.not_listed.push((shard, digest));
        }
    }

    pub(super) fn waiting(&self, shard: usize) -> usize {
        self.waiting_all().shard(shard).all.len()
    }

    pub(super) fn healed(&self) -> u64 {
        self.healed.load(Ordering::Relaxed)
    }

    pub(super) fn not_noted(&self) -> u64 {
        self.not_noted.load(Ordering::Relaxed)
    }

    fn take(&self, shard: usize) -> Vec<Digest> {
        self.waiting_all().next(shard)
    }

    async fn done(&self, shard: usize, digests: &[Digest]) -> Result<()> {
        {
            let mut waiting = self.waiting_all();
            for digest in digests {
                waiting.remove(shard, digest);
            }
        }
        let done = digests.iter().map(|digest| (shard, *digest));
        self.write_list(done, |pending, done| pending.done(&done)).await
    }

    async fn list_new(&self) -> Result<()> {
        let new = {
            let mut waiting = self.waiting_all();
            let mut new = std::mem::take(&mut waiting.not_listed);
            // Some may be done already.
            new.retain(|(shard, digest)| waiting.contains(*shard, digest));
            new
        };
        self.write_list(new, |pending, new| pending.add(&new)).await
    }

    async fn write_list(
        &self,
        heals: impl IntoIterator<Item = (usize, Digest)>,
        write: impl FnOnce(Arc<Pending>, Vec<(Target, Digest)>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let Some(list) = &self.list else { return Ok(()) };
        let (pending, entries) = (list.pending.clone(), list.entries(heals));
        if entries.is_empty() {
            return Ok(());
        }
        tokio::task::spawn_blocking(move || write(pending, entries))
            .await
            .expect("the list does not panic, and the runtime outlives its tasks")
    }
}

impl Inner {
    /// Looks through what waits, again and again.
    pub(super) async fn keep_healing(self: Arc<Self>) {
        loop {
            tokio::time::sleep(ROUND).await;
            if let Err(error) = self.heals.list_new().await {
                tracing::error!(%error, "copies that are still to be made are not noted on disk");
            }
            for (shard, watched) in self.shards.iter().enumerate() {
                if watched.is_down() {
                    continue;
                }
                if let Err(error) = self.heal(shard).await {
                    tracing::debug!(shard = %watched, %error, "copies wait");
                }
            }
        }
    }

    /// Brings a shard what it lacks, until one round brings nothing.
    async fn heal(self: &Arc<Self>, shard: usize) -> Result<()> {
        loop {
            let wanted = self.heals.take(shard);
            if wanted.is_empty() {
                return Ok(());
            }
            let watched = &self.shards[shard];
            let question = watched.store().find_missing(&wanted);
            let missing = watched.call("find missing", self.options.patience, question).await?;
            let lacking: DigestSet = missing.iter().copied().collect();
            let present: Vec<Digest> = wanted.into_iter().filter(|digest| !lacking.contains(digest)).collect();
            self.heals.done(shard, &present).await?;
            let healed_before = self.heals.healed();
            let copied = stream::iter(batches(&missing))
                .map(|batch| self.clone().heal_batch(shard, batch))
                .buffer_unordered(BATCHES_MAX);
            // One that cannot be made now does not keep the others from being made.
            let outcomes: Vec<Result<()>> = copied.collect().await;
            if present.is_empty() && self.heals.healed() == healed_before {
                return outcomes.into_iter().collect();
            }
        }
    }

    async fn heal_batch(self: Arc<Self>, shard: usize, batch: Vec<Digest>) -> Result<()> {
        let contents = self.contents(shard, &batch).await;
        let (mut blobs, mut done, mut failure) = (Vec::new(), Vec::new(), None);
        for (digest, content) in batch.into_iter().zip(contents) {
            match content {
                Ok(blob) => blobs.push(blob),
                // No shard has it any more: there is nothing to heal.
                Err(error) if error.kind() == ErrorKind::NotFound => done.push(digest),
                Err(error) => failure = Some(error),
            }
        }
        let digests: Vec<Digest> = blobs.iter().map(Verified::digest).collect();
        let bytes = digests.iter().map(Digest::size_bytes).sum();
        let watched = &self.shards[shard];
        let patience = patience_for(self.options.patience, bytes);
        let put = watched.store().put_many(blobs);
        for (digest, outcome) in digests
            .iter()
            .zip(watched.call_many("put", patience, &digests, put).await)
        {
            match outcome {
                Ok(()) => {
                    self.heals.healed.fetch_add(1, Ordering::Relaxed);
                    done.push(*digest);
                }
                Err(error) => failure = Some(error),
            }
        }
        self.heals.done(shard, &done).await?;
        failure.map_or(Ok(()), Err)
    }

    /// Contents from the other shards.
    async fn contents(self: &Arc<Self>, without: usize, batch: &[Digest]) -> Vec<Result<Verified>> {
        if let [one] = batch {
            return vec![self.content(without, *one).await];
        }
        let contents = self.get_many(batch, Some(without)).await;
        batch
            .iter()
            .zip(contents)
            .map(|(digest, content)| verify(*digest, content))
            .collect()
    }

    async fn content(self: &Arc<Self>, without: usize, digest: Digest) -> Result<Verified> {
        let blob = self.clone().get(digest, ByteRange::ALL, Some(without)).await?;
        ingest(blob, &self.spool).await
    }
}
