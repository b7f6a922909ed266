//! Results that the upstream cache gets later, each after the blobs that it needs.
//!
//! ```text
//!   put ── room? ──> kept here ──> list on disk ──> acknowledged, and served from here
//!                                       │
//!   list <── done ── upstream <── its blobs are where upstream looks for them <── writers, again later if that fails
//! ```
//!
//! So whoever else asks the upstream cache never finds a result there before its blobs, and whoever asks here finds it at once. Nothing is
//! dropped: the list survives the process, and when no more may wait, puts wait, and are refused after a while.

mod options;
mod queue;
#[cfg(test)]
mod tests;

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rootcellar_digest::{Digest, DigestMap};
use rootcellar_store::io::OsDisk;
use rootcellar_store::{BlobStore, Pending, Tiered};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

pub use self::options::{ResultsBehindOptions, ResultsBehindStatistics};
use self::queue::{Queue, Room};
use super::entry::Entry;
use super::upstream::ActionResults;
use crate::spilled_records::{RECORD_BYTES_MAX, SpilledRecords};
use crate::{Error, ErrorKind, Result, digest_list};

/// How often the upstream cache may call a result invalid until that is believed: for half a minute.
const REFUSALS_MAX: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A unit of the semaphore that counts bytes.
const BYTES_UNIT: usize = 1024;

/// A store on the way to where the upstream cache looks for blobs.
#[async_trait]
pub trait UpstreamBlobs: fmt::Debug + Send + Sync + 'static {
    /// Sees to it that blobs that are here are there too, or with the next such store on the way. Tells which ones are in neither place.
    async fn write_out(&self, digests: &[Digest]) -> rootcellar_store::Result<Vec<Digest>>;

    /// Whether a blob is here.
    async fn is_here(&self, digest: Digest) -> rootcellar_store::Result<bool>;

    /// Whether nobody answered there the last time.
    fn is_failing(&self) -> bool;

    /// Whether somebody there is to be asked: while nobody answers, by one caller now and then, who notes how it went.
    fn may_be_asked(&self) -> bool;

    /// Notes whether somebody answered there.
    fn note_answer(&self, has_answered: bool);
}

#[async_trait]
impl<F: BlobStore + ?Sized> UpstreamBlobs for Tiered<F> {
    async fn write_out(&self, digests: &[Digest]) -> rootcellar_store::Result<Vec<Digest>> {
        Self::write_out(self, digests).await
    }

    async fn is_here(&self, digest: Digest) -> rootcellar_store::Result<bool> {
        self.fast_has(digest).await
    }

    fn is_failing(&self) -> bool {
        self.slow_is_failing()
    }

    fn may_be_asked(&self) -> bool {
        self.slow_may_be_asked()
    }

    fn note_answer(&self, has_answered: bool) {
        self.note_slow(has_answered);
    }
}

/// What waits, and who writes it. Dropping it ends the writers.
#[derive(Debug)]
pub(super) struct ResultsBehind {
    shared: Arc<Shared>,
    /// Guards the writers, which end once.
    writers: Mutex<JoinSet<()>>,
}

/// What the writers share.
#[derive(Debug)]
struct Shared {
    /// The results, as they are kept here.
    entries: SpilledRecords,
    upstream: Arc<dyn ActionResults>,
    /// The stores between here and there, the nearest one first.
    blobs: Vec<Arc<dyn UpstreamBlobs>>,
    list: Arc<Pending>,
    patience: Duration,
    room_results: Arc<Semaphore>,
    room_bytes: Arc<Semaphore>,
    /// Guards what waits.
    queue: Mutex<Queue>,
    /// Rung when something waits for a writer.
    work: Notify,
    /// The number of the next put.
    next: AtomicU64,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
}

/// What became of a result that was to be written.
#[derive(Debug)]
enum Outcome {
    Written,
    /// It never will be, for this reason.
    Lost(String),
    /// There is something about it that may be otherwise later.
    Later(Error),
    /// So the upstream cache says, or who keeps its blobs. It is believed when it says so again and again.
    Invalid(Error),
    /// Nobody answers there.
    Unavailable(Error),
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
        let listed = list.all();
        let units = usize::try_from(options.bytes_max).unwrap_or(usize::MAX) / BYTES_UNIT;
        let shared = Arc::new(Shared {
            next: AtomicU64::new(listed.iter().map(|(number, _)| number + 1).max().unwrap_or(0)),
            entries,
            upstream,
            blobs,
            list: Arc::new(list),
            patience: options.patience,
            room_results: Arc::new(Semaphore::new(options.results_max.clamp(1, Semaphore::MAX_PERMITS))),
            room_bytes: Arc::new(Semaphore::new(
                units.clamp(units_of(RECORD_BYTES_MAX) as usize, Semaphore::MAX_PERMITS),
            )),
            queue: Mutex::default(),
            work: Notify::new(),
            counters: Counters::default(),
        });
        shared.resume(listed).await?;
        let mut writers = JoinSet::new();
        for _ in 0..options.writers.max(1) {
            let shared = shared.clone();
            writers.spawn(async move { shared.keep_writing().await });
        }
        let list = shared.list.clone();
        writers.spawn(async move { list.keep_synced().await });
        Ok(Self {
            shared,
            writers: Mutex::new(writers),
        })
    }

    /// Ends the writers. What waits stays on the list.
    pub(super) async fn close(&self) {
        let mut writers = std::mem::take(&mut *self.writers.lock().unwrap_or_else(PoisonError::into_inner));
        writers.shutdown().await;
        let list = self.shared.list.clone();
        if let Err(error) = blocking(move || list.sync()).await {
            tracing::warn!(%error, "the list of action results that wait could not be synced");
        }
    }

    /// Whether a result of the action waits: what the upstream cache says of the action is older.
    pub(super) fn holds(&self, action: &Digest) -> bool {
        self.shared.queue().holds(action)
    }

    /// Whether the upstream cache is to be asked: while it does not answer, by one caller now and then, who notes how it went.
    pub(super) fn may_be_asked(&self) -> bool {
        self.shared.blobs.iter().all(|blobs| blobs.may_be_asked())
    }

    /// Whether reading a blob asks nobody who does not answer at the moment.
    pub(super) async fn can_be_read(&self, digest: Digest) -> Result<bool> {
        for blobs in &self.shared.blobs {
            if blobs.is_here(digest).await? {
                return Ok(true);
            }
            if blobs.is_failing() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Notes how the upstream cache answered.
    pub(super) fn note<T>(&self, outcome: &Result<T>) {
        self.shared.note(outcome);
    }

    /// Room for one more result.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if there was none for a while.
    pub(super) async fn room(&self) -> Result<Room> {
        let shared = &self.shared;
        let take = async {
            let result = shared.room_results.clone().acquire_owned().await;
            let bytes = shared
                .room_bytes
                .clone()
                .acquire_many_owned(units_of(RECORD_BYTES_MAX))
                .await;
            Room::new(result.expect("nobody closes it"), bytes.expect("nobody closes it"))
        };
        if let Ok(room) = tokio::time::timeout(shared.patience, take).await {
            return Ok(room);
        }
        shared.counters.refused.fetch_add(1, Ordering::Relaxed);
        // Results that are refused again and again must not keep out all others: one of them goes for each put.
        let clogging = shared.queue().take_clogging();
        if let Some((action, number)) = clogging {
            shared.lost(action, "it was refused too often");
            shared.strike_out(vec![(number, action)]).await?;
        }
        let (waiting, why) = {
            let queue = shared.queue();
            let why = queue.last_failure.as_ref();
            let why = why.map_or("it is slow".to_owned(), |failure| {
                format!("the last failure was {failure:?}")
            });
            (queue.len(), why)
        };
        let reason = format!(
            "{waiting} action results wait to be written to {}, and more may not: {why}",
            shared.upstream
        );
        Err(Error::new(ErrorKind::Unavailable, reason))
    }

    /// Has the result of an action written that was kept here just now, in a record of `record_bytes`.
    pub(super) async fn put(&self, action: Digest, mut room: Room, record_bytes: usize) -> Result<()> {
        room.shrink_to(units_of(record_bytes));
        let shared = self.shared.clone();
        // As a task: whoever waits for this may go away, and what is listed has to be queued too.
        let enlisted = tokio::spawn(async move { shared.enlist(action, room).await }).await;
        enlisted.expect("the list does not panic, and the runtime outlives its tasks")
    }

    pub(super) fn statistics(&self) -> ResultsBehindStatistics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (queue, counters) = (self.shared.queue(), &self.shared.counters);
        ResultsBehindStatistics {
            results: queue.len(),
            oldest: queue.oldest().map_or(Duration::ZERO, |since| since.elapsed()),
            written: load(&counters.written),
            failures: load(&counters.failures),
            refused: load(&counters.refused),
            lost: load(&counters.lost),
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what an earlier process left.
    async fn resume(&self, listed: Vec<(u64, Digest)>) -> Result<()> {
        if listed.is_empty() {
            return Ok(());
        }
        tracing::info!(results = listed.len(), upstream = %self.upstream, "action results are still to be written to the upstream cache");
        let mut latest: DigestMap<u64> = DigestMap::default();
        for (number, action) in &listed {
            let known = latest.entry(*action).or_insert(*number);
            *known = (*known).max(*number);
        }
        let older: Vec<(u64, Digest)> = listed
            .iter()
            .copied()
            .filter(|(number, action)| latest[action] != *number)
            .collect();
        for (action, number) in latest {
            let record = self.entries.get_record(&digest_list::key(action)).await?;
            let units = units_of(record.map_or(0, |record| record.len()));
            // As far as there is room: if more may wait than before, what comes has to wait for it all.
            let bytes = self.room_bytes.clone().try_acquire_many_owned(units).ok();
            let room = self.room_results.clone().try_acquire_owned().ok().zip(bytes);
            let room = room.map(|(result, bytes)| Room::new(result, bytes));
            self.queue().push(action, number, room);
        }
        self.strike_out(older).await
    }

    /// Lists a put on disk, and has it written in place of an earlier one.
    async fn enlist(&self, action: Digest, room: Room) -> Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let list = self.list.clone();
        blocking(move || list.add(&[(number, action)])).await?;
        let replaced = self.queue().push(action, number, Some(room));
        self.work.notify_one();
        let replaced = replaced.map(|number| (number, action));
        if let Err(error) = self.strike_out(replaced.into_iter().collect()).await {
            tracing::warn!(%action, %error, "an action result that was replaced is listed still, and written twice after the next start");
        }
        Ok(())
    }

    async fn strike_out(&self, done: Vec<(u64, Digest)>) -> Result<()> {
        let list = self.list.clone();
        match done.is_empty() {
            true => Ok(()),
            false => blocking(move || list.done(&done)).await,
        }
    }

    fn note<T>(&self, outcome: &Result<T>) {
        let has_answered = !outcome.as_ref().is_err_and(|error| is_no_answer(error.kind()));
        for (further, blobs) in self.blobs.iter().rev().enumerate() {
            // That nobody answers is the fault of the last part of the way.
            if has_answered || further == 0 {
                blobs.note_answer(has_answered);
            }
        }
    }

    async fn keep_writing(&self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let mut work = pin!(self.work.notified());
            work.as_mut().enable();
            let (taken, next_due) = {
                let mut queue = self.queue();
                (queue.take(), queue.next_due())
            };
            if self.queue().has_waiting() {
                self.work.notify_one();
            }
            let Some((action, number)) = taken else {
                match next_due {
                    // Whichever comes first.
                    Some(due) => drop(tokio::time::timeout_at(due, work).await),
                    None => work.await,
                }
                continue;
            };
            match self.write(action).await {
                Outcome::Unavailable(error) => {
                    tracing::debug!(%action, %error, upstream = %self.upstream, "an action result could not be written, and waits");
                    self.failed(&error);
                    self.queue().put_back(action);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                outcome => {
                    self.settle(action, number, outcome).await;
                    pause = PAUSE_FIRST;
                }
            }
        }
    }

    /// Writes the result of an action as it is kept here now.
    async fn write(&self, action: Digest) -> Outcome {
        let entry = match self.entries.get(&digest_list::key(action)).await {
            Ok(found) => found.and_then(|found| Entry::decode(found.value)),
            Err(error) => return Outcome::Later(error),
        };
        let Some(entry) = entry else {
            return Outcome::Lost("it is not kept here any more".to_owned());
        };
        let mut nowhere = Vec::new();
        for blobs in &self.blobs {
            // What the last one does not find is nowhere; what another one does not find may be further on.
            nowhere = match blobs.write_out(&entry.closure).await {
                Ok(nowhere) => nowhere,
                Err(error) => return Outcome::of(error.into()),
            };
        }
        if let Some(first) = nowhere.first() {
            return self.without(&nowhere, *first).await;
        }
        let outcome = self.upstream.put(action, entry.result).await;
        self.note(&outcome);
        outcome.map_or_else(Outcome::of, |()| Outcome::Written)
    }

    /// What becomes of a result whose blobs were not found, on the whole way.
    async fn without(&self, nowhere: &[Digest], first: Digest) -> Outcome {
        let reason = format!("{} of its blobs are lost, among them {first}", nowhere.len());
        for blobs in &self.blobs {
            match blobs.is_here(first).await {
                Ok(false) => {}
                // The next store on the way had it a moment ago.
                Ok(true) => return Outcome::Later(Error::new(ErrorKind::FailedPrecondition, reason)),
                Err(error) => return Outcome::Later(error.into()),
            }
        }
        Outcome::Lost(reason)
    }

    /// Tells that a result will not be written.
    fn lost(&self, action: Digest, reason: &str) {
        tracing::error!(%action, reason, upstream = %self.upstream, "an action result will not be written to the upstream cache");
        self.counters.lost.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, error: &Error) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        self.queue().last_failure = Some(error.to_string());
    }

    /// Notes what became of a result, and lets go of the put unless it is to be tried again.
    async fn settle(&self, action: Digest, number: u64, outcome: Outcome) {
        match outcome {
            Outcome::Written => _ = self.counters.written.fetch_add(1, Ordering::Relaxed),
            Outcome::Lost(reason) => self.lost(action, &reason),
            Outcome::Invalid(error) if self.queue().refusals(&action) + 1 >= REFUSALS_MAX => {
                self.lost(action, &error.to_string());
            }
            Outcome::Invalid(error) | Outcome::Later(error) | Outcome::Unavailable(error) => {
                self.failed(&error);
                let refusals = self.queue().defer(action);
                self.work.notify_one();
                if refusals == 1 {
                    tracing::warn!(%action, %error, upstream = %self.upstream, "an action result was not taken, and is tried again");
                }
                return;
            }
        }
        if let Err(error) = self.strike_out(vec![(number, action)]).await {
            tracing::warn!(%action, %error, "an action result that was written will be written again after the next start");
        }
        self.queue().done(action, number);
    }
}

impl Outcome {
    fn of(error: Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidArgument => Self::Invalid(error),
            kind if is_no_answer(kind) => Self::Unavailable(error),
            _ => Self::Later(error),
        }
    }
}

/// Whether an error says that nobody answered, or not in time.
pub(super) fn is_no_answer(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Aborted | ErrorKind::Cancelled
    )
}

fn units_of(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(BYTES_UNIT)).unwrap_or(u32::MAX).max(1)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> rootcellar_store::Result<T> + Send + 'static) -> Result<T> {
    let outcome = tokio::task::spawn_blocking(work).await;
    Ok(outcome.expect("the list does not panic, and the runtime outlives its tasks")?)
}
