//! Records spread over several stores of records, with so many copies of each.
//!
//! ```text
//!   value as it is kept:   written, microseconds since 1970: u64, little-endian    value...
//! ```
//!
//! A write goes to all shards of its key and is done when one has it. A read asks all of them and takes the value that was written last,
//! and shards that have an older one, or none, get it. So a shard that was away does not bring an old value back, as long as one that was
//! not is asked too. A removal that a shard missed is undone by the next read: records are removed where they mean nothing any more, and are
//! then removed again.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::rendezvous::Rendezvous;
use crate::compose::health::{Health, has_answered};
use crate::compose::tasks::Tasks;
use crate::{Clock, Error, ErrorKind, Record, RecordKind, Records, Result};

/// Copies that are made at a time. Others are made when the record is read again.
const HEALS_MAX: usize = 64;

/// A store of records that holds a part of them.
#[derive(Debug, Clone)]
pub struct RecordShard {
    /// By which it draws its records.
    pub name: String,
    /// Its share, against the others'.
    pub weight: f64,
    /// The store.
    pub records: Arc<dyn Records>,
}

/// [`Records`] of several stores, each with a part of them.
#[derive(Debug)]
pub struct ShardedRecords {
    shards: Vec<(RecordShard, Health)>,
    places: Rendezvous,
    replicas: usize,
    patience: Duration,
    clock: Arc<dyn Clock>,
    /// Copies that are being made.
    tasks: Tasks,
}

impl ShardedRecords {
    /// Spreads records over `shards`, with so many copies of each. A shard may take `patience` to answer.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if names or weights are wrong, or there are fewer shards than copies.
    pub fn new(shards: Vec<RecordShard>, replicas: usize, patience: Duration, clock: Arc<dyn Clock>) -> Result<Self> {
        let places = Rendezvous::new(shards.iter().map(|shard| (shard.name.as_str(), shard.weight)))?;
        let weighted = shards.iter().filter(|shard| shard.weight > 0.0).count();
        if replicas == 0 || replicas > weighted {
            let reason = format!("{replicas} copies on {weighted} shards: it takes a shard for each copy");
            return Err(Error::new(ErrorKind::InvalidArgument, "shard", reason));
        }
        Ok(Self {
            shards: shards.into_iter().map(|shard| (shard, Health::default())).collect(),
            places,
            replicas,
            patience,
            clock,
            tasks: Tasks::default(),
        })
    }

    /// The shards of a record that are worth asking: those that did not just fail, or all if all did.
    fn shards_of(&self, kind: RecordKind, key: &[u8]) -> Vec<&(RecordShard, Health)> {
        let key = [kind.0.as_bytes(), &[0], key].concat();
        let chosen = self.places.of_key(&key, self.replicas);
        let mut shards: Vec<_> = chosen.into_iter().map(|shard| &self.shards[shard]).collect();
        if shards.iter().any(|(_, health)| !health.is_down()) {
            shards.retain(|(_, health)| !health.is_down());
        }
        shards
    }

    async fn call<T>(
        &self,
        (shard, health): &(RecordShard, Health),
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let outcome = match timeout(self.patience, call).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let reason = format!("{} did not answer within {:?}", shard.name, self.patience);
                Err(Error::new(ErrorKind::Unavailable, "record", reason))
            }
        };
        health.note(&shard.records, has_answered(&outcome));
        outcome
    }

    /// Brings a value to shards that lack it, in the background. If that fails, the next read does it again.
    fn heal(&self, shards: Vec<Arc<dyn Records>>, kind: RecordKind, key: &[u8], newest: &Record) {
        for records in shards {
            if self.tasks.running() >= HEALS_MAX {
                return;
            }
            let patience = self.patience;
            let (key, newest) = (key.to_owned(), newest.clone());
            self.tasks.spawn(async move {
                let put = timeout(patience, records.put(kind, &key, newest)).await;
                if !matches!(put, Ok(Ok(()))) {
                    tracing::debug!(store = %records, "a record could not be copied");
                }
            });
        }
    }
}

/// Whether all failed; then with the last error.
fn one_at_least<T>(outcomes: Vec<Result<T>>) -> Result<()> {
    let mut last = None;
    for outcome in outcomes {
        match outcome {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::new(ErrorKind::Internal, "record", "a record has a shard at least")))
}

fn stamped(record: &Record, now: SystemTime) -> Record {
    let micros = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let stamp = u64::try_from(micros).unwrap_or(u64::MAX).to_le_bytes();
    Record {
        value: [&stamp[..], &record.value].concat().into(),
        expires: record.expires,
    }
}

/// When a value was written; what is no value of ours is older than all.
fn stamp(record: &Record) -> Option<u64> {
    record.value.clone().try_get_u64_le().ok()
}

#[async_trait]
impl Records for ShardedRecords {
    async fn get(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Record>> {
        let asked = self.shards_of(kind, key).into_iter().map(async |shard| {
            let answer = self.call(shard, shard.0.records.get(kind, key)).await;
            (&shard.0, answer)
        });
        let (mut answers, mut errors) = (Vec::new(), Vec::new());
        for (shard, answer) in join_all(asked).await {
            match answer {
                Ok(found) => answers.push((shard, found)),
                Err(error) => errors.push(Err::<(), _>(error)),
            }
        }
        if answers.is_empty() {
            one_at_least(errors)?;
        }
        let newest = answers
            .iter()
            .filter_map(|(_, found)| found.as_ref())
            .max_by_key(|record| stamp(record))
            .cloned();
        let Some(newest) = newest.filter(|newest| stamp(newest).is_some()) else {
            return Ok(None);
        };
        let lacks = |found: &Option<Record>| found.as_ref().is_none_or(|record| stamp(record) < stamp(&newest));
        let lacking = answers.iter().filter(|(_, found)| lacks(found));
        self.heal(
            lacking.map(|(shard, _)| shard.records.clone()).collect(),
            kind,
            key,
            &newest,
        );
        let mut value: Bytes = newest.value.clone();
        value.advance(size_of::<u64>());
        Ok(Some(Record {
            value,
            expires: newest.expires,
        }))
    }

    async fn put(&self, kind: RecordKind, key: &[u8], record: Record) -> Result<()> {
        let record = stamped(&record, self.clock.now());
        let puts = self.shards_of(kind, key).into_iter().map(async |shard| {
            let put = shard.0.records.put(kind, key, record.clone());
            self.call(shard, put).await
        });
        one_at_least(join_all(puts).await)
    }

    async fn remove(&self, kind: RecordKind, key: &[u8]) -> Result<()> {
        let removals = self.shards_of(kind, key).into_iter().map(async |shard| {
            let removal = shard.0.records.remove(kind, key);
            self.call(shard, removal).await
        });
        one_at_least(join_all(removals).await)
    }
}

impl fmt::Display for ShardedRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sharded records({} copies on ", self.replicas)?;
        for (number, (shard, _)) in self.shards.iter().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            write!(f, "{separator}{} {}", shard.name, shard.records)?;
        }
        f.write_str(")")
    }
}
