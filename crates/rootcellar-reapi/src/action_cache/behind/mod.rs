//! Results that the upstream cache gets later, each after the blobs that it needs.
//!
//! ```text
//!   put ── room? ──> kept here ──> list on disk ──> acknowledged, and served from here
//!                                       │
//!   list <── done ── upstream <── blobs are where upstream looks for them <── writers, again after a pause if that fails
//! ```
//!
//! So whoever else asks the upstream cache never finds a result there before its blobs, and whoever asks here finds it at once. Nothing is
//! dropped: the list survives the process, and when no more may wait, puts wait, and are refused after a while.

mod options;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rootcellar_digest::{Digest, DigestMap};
use rootcellar_store::io::OsDisk;
use rootcellar_store::{BlobStore, Pending, Tiered};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::options::{ResultsBehindOptions, ResultsBehindStatistics};
use super::entry::Entry;
use super::upstream::ActionResults;
use crate::spilled_records::SpilledRecords;
use crate::{Error, ErrorKind, Result, digest_list};

const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A store that may have blobs here before the upstream cache can find them.
#[async_trait]
pub trait UpstreamBlobs: fmt::Debug + Send + Sync + 'static {
    /// Sees to it that the blobs are where the upstream cache looks for them, and waits for that.
    async fn write_out(&self, digests: &[Digest]) -> rootcellar_store::Result<()>;

    /// Whether nobody answered there a moment ago.
    fn is_down(&self) -> bool;

    /// Notes whether somebody answered there.
    fn note_answer(&self, has_answered: bool);
}

#[async_trait]
impl<F: BlobStore + ?Sized> UpstreamBlobs for Tiered<F> {
    async fn write_out(&self, digests: &[Digest]) -> rootcellar_store::Result<()> {
        Self::write_out(self, digests).await
    }

    fn is_down(&self) -> bool {
        self.slow_is_down()
    }

    fn note_answer(&self, has_answered: bool) {
        self.note_slow(has_answered);
    }
}

/// What waits, and who writes it. Dropping it ends the writers.
#[derive(Debug)]
pub(super) struct ResultsBehind {
    queue: Arc<Queue>,
    /// Guards the writers, which end once.
    writers: Mutex<JoinSet<()>>,
}

/// What the writers share.
#[derive(Debug)]
struct Queue {
    /// The results, as they are kept here.
    entries: SpilledRecords,
    upstream: Arc<dyn ActionResults>,
    /// The stores between here and there, the nearest one first.
    blobs: Vec<Arc<dyn UpstreamBlobs>>,
    list: Arc<Pending>,
    patience: Duration,
    room: Arc<Semaphore>,
    /// Guards what waits.
    waiting: Mutex<Waiting>,
    /// Rung when something waits for a writer.
    work: Notify,
    /// The number of the next put.
    next: AtomicU64,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Actions that no writer has.
    queued: VecDeque<Digest>,
    /// Actions whose results wait or are being written.
    actions: DigestMap<Puts>,
}

/// Puts of one action that wait, the latest last. All of them are done when the latest is: it took the others' place.
#[derive(Debug)]
struct Puts {
    since: Instant,
    puts: Vec<(u64, Option<OwnedSemaphorePermit>)>,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
}

impl ResultsBehind {
    /// Reads the list, and begins to write what is on it.
    pub(super) async fn start(
        entries: SpilledRecords,
        upstream: Arc<dyn ActionResults>,
        blobs: Vec<Arc<dyn UpstreamBlobs>>,
        options: &ResultsBehindOptions,
    ) -> Result<Self> {
        let (path, is_synced) = (options.list.clone(), options.is_synced);
        let list = blocking(move || Pending::open(Arc::new(OsDisk), &path, is_synced)).await?;
        let mut listed = list.all();
        listed.sort_unstable_by_key(|(number, _)| *number);
        if !listed.is_empty() {
            tracing::info!(results = listed.len(), %upstream, "action results are still to be written to the upstream cache");
        }
        let mut waiting = Waiting::default();
        for (number, action) in &listed {
            waiting.push(*action, *number, None);
        }
        let queue = Arc::new(Queue {
            next: AtomicU64::new(listed.last().map_or(0, |(number, _)| number + 1)),
            entries,
            upstream,
            blobs,
            list: Arc::new(list),
            patience: options.patience,
            room: Arc::new(Semaphore::new(options.results_max.min(Semaphore::MAX_PERMITS))),
            waiting: Mutex::new(waiting),
            work: Notify::new(),
            counters: Counters::default(),
        });
        let mut writers = JoinSet::new();
        for _ in 0..options.writers.max(1) {
            let queue = queue.clone();
            writers.spawn(async move { queue.keep_writing().await });
        }
        Ok(Self {
            queue,
            writers: Mutex::new(writers),
        })
    }

    /// Ends the writers. What waits stays on the list.
    pub(super) async fn close(&self) {
        let mut writers = std::mem::take(&mut *self.writers.lock().unwrap_or_else(PoisonError::into_inner));
        writers.shutdown().await;
    }

    /// Whether a result of the action waits: what the upstream cache says of the action is older.
    pub(super) fn holds(&self, action: &Digest) -> bool {
        self.queue.waiting().actions.contains_key(action)
    }

    /// Whether the upstream cache cannot be reached at the moment.
    pub(super) fn is_down(&self) -> bool {
        self.queue.blobs.iter().any(|blobs| blobs.is_down())
    }

    /// Notes how the upstream cache answered.
    pub(super) fn note<T>(&self, outcome: &Result<T>) {
        self.queue.note(outcome);
    }

    /// Room for one more result.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if there was none for a while.
    pub(super) async fn room(&self) -> Result<OwnedSemaphorePermit> {
        let queue = &self.queue;
        match tokio::time::timeout(queue.patience, queue.room.clone().acquire_owned()).await {
            Ok(room) => Ok(room.expect("nobody closes it")),
            Err(_) => {
                queue.counters.refused.fetch_add(1, Ordering::Relaxed);
                let waiting = queue.waiting().actions.len();
                let reason = format!(
                    "{waiting} action results wait to be written to {}, and more may not: it is slow, or does not answer",
                    queue.upstream
                );
                Err(Error::new(ErrorKind::Unavailable, reason))
            }
        }
    }

    /// Has the result of an action written that was kept here just now.
    pub(super) async fn put(&self, action: Digest, room: OwnedSemaphorePermit) -> Result<()> {
        let queue = self.queue.clone();
        // As a task: whoever waits for this may go away, and what is listed has to be queued too.
        let enlist = async move {
            let number = queue.next.fetch_add(1, Ordering::Relaxed);
            let list = queue.list.clone();
            blocking(move || list.add(&[(number, action)])).await?;
            queue.waiting().push(action, number, Some(room));
            queue.work.notify_one();
            Ok(())
        };
        tokio::spawn(enlist)
            .await
            .expect("the list does not panic, and the runtime outlives its tasks")
    }

    pub(super) fn statistics(&self) -> ResultsBehindStatistics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let waiting = self.queue.waiting();
        let oldest = waiting.actions.values().map(|puts| puts.since).min();
        let counters = &self.queue.counters;
        ResultsBehindStatistics {
            results: waiting.actions.len(),
            oldest: oldest.map_or(Duration::ZERO, |since| since.elapsed()),
            written: load(&counters.written),
            failures: load(&counters.failures),
            refused: load(&counters.refused),
            lost: load(&counters.lost),
        }
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note<T>(&self, outcome: &Result<T>) {
        let is_unavailable = |error: &Error| error.kind() == ErrorKind::Unavailable;
        if let Some(nearest_to_it) = self.blobs.last() {
            nearest_to_it.note_answer(!outcome.as_ref().is_err_and(is_unavailable));
        }
    }

    async fn keep_writing(&self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let mut work = pin!(self.work.notified());
            work.as_mut().enable();
            let Some((action, number)) = self.waiting().take() else {
                work.await;
                continue;
            };
            match self.write(action).await {
                Ok(outcome) => {
                    self.count(action, outcome);
                    self.done(action, number).await;
                    pause = PAUSE_FIRST;
                }
                Err(error) => {
                    tracing::debug!(%action, %error, upstream = %self.upstream, "an action result could not be written, and waits");
                    self.counters.failures.fetch_add(1, Ordering::Relaxed);
                    self.waiting().queued.push_back(action);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Writes the result of an action as it is kept here now.
    async fn write(&self, action: Digest) -> Result<Outcome> {
        use rootcellar_store::ErrorKind as Store;
        let found = self.entries.get(&digest_list::key(action)).await?;
        let Some(entry) = found.and_then(|found| Entry::decode(found.value)) else {
            return Ok(Outcome::Lost("it is not kept here any more".to_owned()));
        };
        for blobs in &self.blobs {
            match blobs.write_out(&entry.closure).await {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), Store::NotFound | Store::DataLoss) => {
                    return Ok(Outcome::Lost(error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let outcome = self.upstream.put(action, entry.result).await;
        self.note(&outcome);
        match outcome {
            Ok(()) => Ok(Outcome::Written),
            Err(error) if is_final(error.kind()) => Ok(Outcome::Lost(error.to_string())),
            Err(error) => Err(error),
        }
    }

    fn count(&self, action: Digest, outcome: Outcome) {
        match outcome {
            Outcome::Written => self.counters.written.fetch_add(1, Ordering::Relaxed),
            Outcome::Lost(reason) => {
                tracing::error!(%action, reason, upstream = %self.upstream, "an action result will not be written to the upstream cache");
                self.counters.lost.fetch_add(1, Ordering::Relaxed)
            }
        };
    }

    /// Lets go of all puts of an action up to `number`.
    async fn done(&self, action: Digest, number: u64) {
        let done = self.waiting().done(&action, number);
        let (list, entries) = (
            self.list.clone(),
            done.iter().map(|(number, _room)| (*number, action)).collect::<Vec<_>>(),
        );
        if let Err(error) = blocking(move || list.done(&entries)).await {
            tracing::warn!(%action, %error, "an action result that was written will be written again after the next start");
        }
    }
}

/// What became of a result.
#[derive(Debug)]
enum Outcome {
    Written,
    /// It never will be, for this reason.
    Lost(String),
}

/// Whether the upstream cache would say the same again.
fn is_final(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidArgument | ErrorKind::PermissionDenied | ErrorKind::Unimplemented
    )
}

impl Waiting {
    fn push(&mut self, action: Digest, number: u64, room: Option<OwnedSemaphorePermit>) {
        let queued = &mut self.queued;
        let puts = self.actions.entry(action).or_insert_with(|| {
            queued.push_back(action);
            Puts {
                since: Instant::now(),
                puts: Vec::new(),
            }
        });
        puts.puts.push((number, room));
    }

    /// What a writer writes next: an action, and the number of its latest put.
    fn take(&mut self) -> Option<(Digest, u64)> {
        let action = self.queued.pop_front()?;
        let latest = self.actions[&action].puts.iter().map(|(number, _)| *number).max();
        Some((action, latest.expect("an action waits as long as a put of it does")))
    }

    /// Takes out the puts up to `number`. If there are others, the action is queued again.
    fn done(&mut self, action: &Digest, number: u64) -> Vec<(u64, Option<OwnedSemaphorePermit>)> {
        let Some(puts) = self.actions.get_mut(action) else {
            return Vec::new();
        };
        let (done, later): (Vec<_>, Vec<_>) = std::mem::take(&mut puts.puts)
            .into_iter()
            .partition(|put| put.0 <= number);
        if later.is_empty() {
            self.actions.remove(action);
        } else {
            puts.puts = later;
            self.queued.push_back(*action);
        }
        done
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> rootcellar_store::Result<T> + Send + 'static) -> Result<T> {
    let outcome = tokio::task::spawn_blocking(work).await;
    Ok(outcome.expect("the list does not panic, and the runtime outlives its tasks")?)
}
