//! Blobs spread over several stores, with so many copies of each.
//!
//! ```text
//!   digest ──> rendezvous: its shards, first choice first (rendezvous.rs)
//!
//!   put            all of its shards at once; done if one has it, and the others get it later (heal.rs)
//!   get            one shard after the other, in the middle of a read too (read.rs)
//!   find_missing   all of its shards: each has to know that the blob is used; what one lacks and another has is healed
//! ```
//!
//! A shard that fails is left alone for a while (`shard.rs`). One shard with two copies is a mirror. What a shard holds of others' blobs,
//! after the shards were changed, is moved by [`Sharded::rebalance`].

mod heal;
mod read;
mod rebalance;
mod records;
mod rendezvous;
mod shard;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use rootcellar_digest::{Digest, DigestMap, DigestSet};

use self::heal::Heals;
pub use self::rebalance::Rebalanced;
pub use self::records::{RecordShard, ShardedRecords};
use self::rendezvous::Rendezvous;
pub use self::shard::Shard;
use self::shard::{Watched, patience_for};
use super::tasks::Tasks;
use crate::store::absent_once;
use crate::{Blob, BlobStore, ByteRange, Error, ErrorKind, Result, Spool, Verified};

/// Blobs in one question to a shard, and questions to it at a time.
const ASKED_MAX: usize = 1000;
const QUESTIONS_MAX: usize = 4;

/// How a [`Sharded`] store works. Each value has a default and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardedOptions {
    /// Copies of each blob, each on a shard of its own, 1.
    pub replicas: usize,
    /// Further shards that are asked for a blob that none of its own has, 0. While shards are moved that keep a single copy it takes 1.
    pub look_further: usize,
    /// How long a shard may take to answer, 10 s, and a second more for each mebibyte that is moved.
    pub patience: Duration,
    /// Copies that are noted to be made later, 1,000,000. Of what is beyond, a copy is made when the blob is used again.
    pub heals_max: usize,
}

impl Default for ShardedOptions {
    fn default() -> Self {
        Self {
            replicas: 1,
            look_further: 0,
            patience: Duration::from_secs(10),
            heals_max: 1_000_000,
        }
    }
}

impl ShardedOptions {
    /// Keeps so many copies.
    #[must_use]
    pub fn with_replicas(self, replicas: usize) -> Self {
        Self { replicas, ..self }
    }

    /// Asks so many further shards.
    #[must_use]
    pub fn with_look_further(self, look_further: usize) -> Self {
        Self { look_further, ..self }
    }

    /// Waits so long for an answer.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Notes so many copies.
    #[must_use]
    pub fn with_heals_max(self, heals_max: usize) -> Self {
        Self { heals_max, ..self }
    }
}

/// How the shards are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardedStatistics {
    /// Of each shard its name, whether it failed a moment ago, and how many copies it still has to get.
    pub shards: Vec<ShardStatistics>,
    /// Copies that were made since the start.
    pub healed: u64,
    /// Copies that were not noted, because there were too many.
    pub not_noted: u64,
}

/// How a shard is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatistics {
    /// Its name.
    pub name: String,
    /// Whether it failed a moment ago, and is left alone.
    pub is_down: bool,
    /// Copies that it still has to get.
    pub to_heal: usize,
}

/// A [`BlobStore`] of several, each with a part of the blobs.
///
/// Reads and writes go on as long as one shard of each blob answers. A blob is reported missing if none of its shards that answer has
/// it, so a client may upload again what lies on a shard that is down.
pub struct Sharded {
    inner: Arc<Inner>,
    /// What heals.
    tasks: Tasks,
}

/// What reads that are under way, and healing, hold too.
struct Inner {
    shards: Vec<Watched>,
    places: Rendezvous,
    options: ShardedOptions,
    spool: Spool,
    heals: Heals,
}

impl Sharded {
    /// Spreads blobs over `shards`. What is copied between them goes through `spool`. Runs on a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if names or weights are wrong, or there are fewer shards than copies.
    pub fn new(shards: Vec<Shard>, spool: Spool, options: ShardedOptions) -> Result<Self> {
        Self::start(shards, spool, options, Heals::in_memory())
    }

    /// As [`new`](Self::new); which copies are still to be made is noted in the file `list`, and survives the process.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if the list cannot be read or written.
    pub fn with_list(shards: Vec<Shard>, spool: Spool, options: ShardedOptions, list: &Path) -> Result<Self> {
        let names: Vec<&str> = shards.iter().map(|shard| shard.name.as_str()).collect();
        let heals = Heals::on_disk(list, &names)?;
        Self::start(shards, spool, options, heals)
    }

    fn start(shards: Vec<Shard>, spool: Spool, options: ShardedOptions, heals: Heals) -> Result<Self> {
        let places = Rendezvous::new(shards.iter().map(|shard| (shard.name.as_str(), shard.weight)))?;
        let weighted = shards.iter().filter(|shard| shard.weight > 0.0).count();
        if options.replicas == 0 || options.replicas > weighted {
            let reason = format!(
                "{} copies on {weighted} shards: it takes a shard for each copy",
                options.replicas
            );
            return Err(Error::new(ErrorKind::InvalidArgument, "shard", reason));
        }
        let inner = Arc::new(Inner {
            shards: shards.into_iter().map(Watched::new).collect(),
            places,
            options,
            spool,
            heals,
        });
        let (tasks, healing) = (Tasks::default(), inner.clone());
        tasks.spawn(async move { healing.keep_healing().await });
        Ok(Self { inner, tasks })
    }

    /// Ends healing. What is still to be healed stays on the list, if there is one.
    pub async fn close(&self) {
        self.tasks.end().await;
    }

    /// How the shards are.
    pub fn statistics(&self) -> ShardedStatistics {
        self.inner.statistics()
    }
}

impl Inner {
    fn statistics(&self) -> ShardedStatistics {
        let shards = self.shards.iter().enumerate().map(|(number, shard)| ShardStatistics {
            name: shard.shard.name.clone(),
            is_down: shard.is_down(),
            to_heal: self.heals.waiting(number),
        });
        ShardedStatistics {
            shards: shards.collect(),
            healed: self.heals.healed(),
            not_noted: self.heals.not_noted(),
        }
    }

    /// The shards that should have a blob.
    fn replicas(&self, digest: &Digest) -> Vec<usize> {
        self.places.of_blob(digest, self.options.replicas)
    }

    /// Of a blob's shards those that are worth asking: those that did not just fail, or all if all did.
    fn worth_asking(&self, mut shards: Vec<usize>) -> Vec<usize> {
        if shards.iter().any(|shard| !self.shards[*shard].is_down()) {
            shards.retain(|shard| !self.shards[*shard].is_down());
        }
        shards
    }

    /// Shards that may have a blob which its own do not have: from an earlier division, or because they are being emptied.
    fn further(&self, digest: &Digest) -> Vec<usize> {
        let wider = self.options.replicas + self.options.look_further;
        let mut further = self.places.of_blob(digest, wider).split_off(self.options.replicas);
        let emptied = self
            .shards
            .iter()
            .enumerate()
            .filter(|(_, shard)| shard.shard.weight == 0.0);
        further.extend(emptied.map(|(number, _)| number));
        further
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let asked = absent_once(digests, |_| false);
        let own = self
            .ask(&asked, |digest| self.worth_asking(self.replicas(digest)))
            .await;
        for (shard, digest) in &own.lacking {
            if own.found.contains(digest) {
                self.heals.note(*shard, *digest, self.options.heals_max);
            }
        }
        own.check(&asked)?;
        let missing: Vec<Digest> = asked.into_iter().filter(|digest| !own.found.contains(digest)).collect();
        self.find_further(missing).await
    }

    /// Those that no other shard has either.
    async fn find_further(&self, missing: Vec<Digest>) -> Result<Vec<Digest>> {
        let elsewhere = self.ask(&missing, |digest| self.further(digest)).await;
        for digest in &elsewhere.found {
            for shard in self.replicas(digest) {
                self.heals.note(shard, *digest, self.options.heals_max);
            }
        }
        Ok(missing
            .into_iter()
            .filter(|digest| !elsewhere.found.contains(digest))
            .collect())
    }

    /// Asks shards for blobs.
    async fn ask(&self, digests: &[Digest], of: impl Fn(&Digest) -> Vec<usize>) -> Answers {
        let mut questions: HashMap<usize, Vec<Digest>> = HashMap::new();
        for digest in digests {
            for shard in of(digest) {
                questions.entry(shard).or_default().push(*digest);
            }
        }
        let asked = questions
            .into_iter()
            .map(async |(number, digests)| (number, self.ask_shard(number, &digests).await));
        let mut answers = Answers::default();
        for (shard, answered) in join_all(asked).await {
            for (digests, answer) in answered {
                answers.add(shard, digests, answer);
            }
        }
        answers
    }

    /// Asks a shard for blobs, some at a time: it has the same time for each part, however many there are.
    async fn ask_shard(&self, number: usize, digests: &[Digest]) -> Vec<(Vec<Digest>, Result<Vec<Digest>>)> {
        let shard = &self.shards[number];
        let parts = digests.chunks(ASKED_MAX).map(<[Digest]>::to_vec);
        let ask = |digests: Vec<Digest>| async move {
            let question = shard.store().find_missing(&digests);
            let answer = shard.call("find missing", self.options.patience, question).await;
            (digests, answer)
        };
        stream::iter(parts.collect::<Vec<_>>())
            .map(ask)
            .buffer_unordered(QUESTIONS_MAX)
            .collect()
            .await
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(blobs.len());
        let mut puts: HashMap<usize, Vec<(usize, Verified)>> = HashMap::new();
        for (place, blob) in blobs.into_iter().enumerate() {
            let digest = blob.digest();
            outcomes.push(Outcome::new(digest));
            if digest.is_empty_blob() {
                outcomes[place].is_stored = true;
                continue;
            }
            let replicas = self.replicas(&digest);
            let asked = self.worth_asking(replicas.clone());
            outcomes[place].lacking = replicas.into_iter().filter(|shard| !asked.contains(shard)).collect();
            for shard in asked {
                puts.entry(shard).or_default().push((place, blob.clone()));
            }
        }
        let put = puts
            .into_iter()
            .map(async |(shard, blobs)| (shard, self.put_to(shard, blobs).await));
        for (shard, stored) in join_all(put).await {
            for (place, stored) in stored {
                outcomes[place].add(shard, stored);
            }
        }
        outcomes.into_iter().map(|outcome| self.conclude(outcome)).collect()
    }

    async fn put_to(&self, number: usize, blobs: Vec<(usize, Verified)>) -> Vec<(usize, Result<()>)> {
        let shard = &self.shards[number];
        let (places, mut blobs): (Vec<usize>, Vec<Verified>) = blobs.into_iter().unzip();
        let digests: Vec<Digest> = blobs.iter().map(Verified::digest).collect();
        let bytes = digests.iter().map(Digest::size_bytes).sum();
        let patience = patience_for(self.options.patience, bytes);
        let put = async {
            match blobs.len() {
                1 => vec![shard.store().put(blobs.remove(0)).await],
                _ => shard.store().put_many(blobs).await,
            }
        };
        let outcomes = shard.call_many("put", patience, &digests, put).await;
        places.into_iter().zip(outcomes).collect()
    }

    /// A put has succeeded if one shard has the blob; the others are to get it.
    fn conclude(&self, outcome: Outcome) -> Result<()> {
        if !outcome.is_stored {
            let none = || Error::new(ErrorKind::Unavailable, "put", "no shard was asked").on(outcome.digest);
            return Err(outcome.error.unwrap_or_else(none));
        }
        for shard in outcome.lacking {
            self.heals.note(shard, outcome.digest, self.options.heals_max);
        }
        Ok(())
    }
}

/// What shards said about blobs.
#[derive(Debug, Default)]
struct Answers {
    found: DigestSet,
    /// Blobs that a shard says it does not have.
    lacking: Vec<(usize, Digest)>,
    /// How many shards of a blob did not answer, and why the last of them did not.
    silent: DigestMap<Arc<Error>>,
}

impl Answers {
    fn add(&mut self, shard: usize, digests: Vec<Digest>, answer: Result<Vec<Digest>>) {
        match answer {
            Ok(missing) => {
                let missing: DigestSet = missing.into_iter().collect();
                for digest in digests {
                    if missing.contains(&digest) {
                        self.lacking.push((shard, digest));
                    } else {
                        self.found.insert(digest);
                    }
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                self.silent
                    .extend(digests.into_iter().map(|digest| (digest, error.clone())));
            }
        }
    }

    /// # Errors
    /// If of some blob no shard answered.
    fn check(&self, digests: &[Digest]) -> Result<()> {
        if self.silent.is_empty() {
            return Ok(());
        }
        let answered: DigestSet = self.lacking.iter().map(|(_, digest)| *digest).collect();
        let is_open = |digest: &&Digest| !self.found.contains(digest) && !answered.contains(digest);
        match digests.iter().find(is_open).and_then(|digest| self.silent.get(digest)) {
            Some(error) => Err(error.again()),
            None => Ok(()),
        }
    }
}

/// How a put of one blob goes.
#[derive(Debug)]
struct Outcome {
    digest: Digest,
    is_stored: bool,
    lacking: Vec<usize>,
    error: Option<Error>,
}

impl Outcome {
    fn new(digest: Digest) -> Self {
        Self {
            digest,
            is_stored: false,
            lacking: Vec::new(),
            error: None,
        }
    }

    fn add(&mut self, shard: usize, stored: Result<()>) {
        match stored {
            Ok(()) => self.is_stored = true,
            Err(error) => {
                self.lacking.push(shard);
                self.error = Some(error);
            }
        }
    }
}

#[async_trait]
impl BlobStore for Sharded {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.inner.find_missing(digests).await
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        self.inner.clone().get(digest, range, None).await
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        self.inner.put_many(vec![blob]).await.remove(0)
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        self.inner.get_many(digests, None).await
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        self.inner.put_many(blobs).await
    }
}

impl fmt::Display for Sharded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.inner.options.replicas {
            1 => f.write_str("sharded(")?,
            replicas => write!(f, "sharded({replicas} copies on ")?,
        }
        for (number, shard) in self.inner.shards.iter().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            write!(f, "{separator}{shard}")?;
            if shard.shard.weight != 1.0 {
                write!(f, " weight {}", shard.shard.weight)?;
            }
        }
        f.write_str(")")
    }
}

impl fmt::Debug for Sharded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharded")
            .field("statistics", &self.statistics())
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}
