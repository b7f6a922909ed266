//! Puts that the slow store gets later.
//!
//! ```text
//!   put ── room? ──> fast.put ──> lease ──> list on disk ──> acknowledged
//!                                                │
//!             list <── done ── slow.put <── writers, a few batches at a time, again after a pause if the slow store fails
//! ```
//!
//! Nothing is dropped: what is listed is leased in the fast store, so it is not evicted before it is written, and the list survives the
//! process. When there is no more room in the list, puts wait; after a while they are refused.

mod options;
mod queue;
mod write;

use std::fmt;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rootcellar_digest::Digest;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

pub use self::options::{BehindOptions, BehindStatistics};
use self::queue::{Queue, Taken};
use crate::compose::health::{Health, has_answered};
use crate::compose::tasks::Tasks;
use crate::io::OsDisk;
use crate::pending::Pending;
use crate::{BlobStore, Error, ErrorKind, Lease, Leased, LocalStore, Result, Spool, Verified};

/// The slow store is the only one for whom something is to be done.
const SLOW: u64 = 0;
/// A unit of the semaphore that counts bytes, which counts to a few billions only.
const BYTES_UNIT: u64 = 4096;

/// What waits, and who writes it.
pub(super) struct Behind {
    fast: Arc<dyn LocalStore>,
    slow: Arc<dyn BlobStore>,
    spool: Spool,
    list: Arc<Pending>,
    options: BehindOptions,
    /// Guards what waits and its sums.
    queue: Mutex<Queue>,
    /// Rung when something waits for a writer.
    work: Notify,
    /// Rung when something has been waited for, and need not any more.
    fewer: Notify,
    room_blobs: Arc<Semaphore>,
    room_bytes: Arc<Semaphore>,
    counters: Counters,
    /// How the slow store was the last time.
    health: Health,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug)]
enum Room {
    Taken(Taken),
    /// The blob waits already, or is nothing.
    NotNeeded,
}

/// A blob of a request that has room.
struct Admitted {
    place: usize,
    blob: Verified,
    room: Room,
}

impl Behind {
    /// Reads the list, and begins to write what is on it. The tasks are the writers.
    pub(super) async fn start(
        fast: Arc<dyn LocalStore>,
        slow: Arc<dyn BlobStore>,
        spool: Spool,
        list: &Path,
        options: BehindOptions,
    ) -> Result<(Arc<Self>, Tasks)> {
        let (path, is_synced) = (list.to_owned(), options.is_synced);
        let list = blocking(move || Pending::open(Arc::new(OsDisk), &path, is_synced)).await?;
        let behind = Arc::new(Self {
            room_blobs: Arc::new(Semaphore::new(options.blobs_max.min(Semaphore::MAX_PERMITS))),
            room_bytes: Arc::new(Semaphore::new(
                usize::try_from(units(options.bytes_max))
                    .unwrap_or(usize::MAX)
                    .clamp(1, Semaphore::MAX_PERMITS),
            )),
            fast,
            slow,
            spool,
            list: Arc::new(list),
            options,
            queue: Mutex::default(),
            work: Notify::new(),
            fewer: Notify::new(),
            counters: Counters::default(),
            health: Health::default(),
        });
        behind.resume().await?;
        let writers = Tasks::default();
        let list = behind.list.clone();
        writers.spawn(async move { list.keep_synced().await });
        for _ in 0..behind.options.writers.max(1) {
            let behind = behind.clone();
            writers.spawn(async move { behind.keep_writing().await });
        }
        Ok((behind, writers))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what an earlier process left.
    async fn resume(&self) -> Result<()> {
        let listed: Vec<Digest> = self.list.all().into_iter().map(|(_, digest)| digest).collect();
        if listed.is_empty() {
            return Ok(());
        }
        tracing::info!(blobs = listed.len(), store = %self.slow, "blobs are still to be written to the slow store");
        let mut lost = Vec::new();
        for digest in listed {
            match self.fast.lease(&[digest]).await? {
                // As far as there is room: if more may wait than before, what comes has to wait for it all.
                Leased::Held(lease) => self.queue().push(digest, None, lease, self.take_room(digest)),
                Leased::Missing(_) => lost.push(digest),
            }
        }
        self.give_up(&lost).await
    }

    /// The fast store has lost what was to be written.
    async fn give_up(&self, lost: &[Digest]) -> Result<()> {
        for digest in lost {
            tracing::error!(%digest, fast = %self.fast, slow = %self.slow, "a blob was lost before it was written to the slow store");
        }
        self.counters.lost.fetch_add(lost.len() as u64, Ordering::Relaxed);
        self.done(lost).await
    }

    /// Whether a blob waits.
    pub(super) fn holds(&self, digest: &Digest) -> bool {
        self.queue().entries.contains_key(digest)
    }

    pub(super) fn statistics(&self) -> BehindStatistics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let queue = self.queue();
        let oldest = queue.entries.values().map(|entry| entry.since).min();
        BehindStatistics {
            blobs: queue.entries.len(),
            bytes: queue.bytes,
            oldest: oldest.map_or(Duration::ZERO, |since| since.elapsed()),
            written: load(&self.counters.written),
            failures: load(&self.counters.failures),
            refused: load(&self.counters.refused),
            lost: load(&self.counters.lost),
        }
    }

    /// Whether the slow store did not answer the last time.
    pub(super) fn slow_is_failing(&self) -> bool {
        self.health.is_failing()
    }

    /// Whether the slow store is to be asked: while it does not answer, by somebody now and then.
    pub(super) fn slow_may_be_asked(&self) -> bool {
        self.health.may_be_asked()
    }

    /// Notes whether the slow store answered.
    pub(super) fn note_slow<T>(&self, outcome: &Result<T>) {
        self.note_slow_answered(has_answered(outcome));
    }

    pub(super) fn note_slow_answered(&self, has_answered: bool) {
        self.health.note(&self.slow, has_answered);
    }

    /// Syncs the list, once the writers have ended.
    pub(super) async fn close(&self) {
        let list = self.list.clone();
        if let Err(error) = blocking(move || list.sync()).await {
            tracing::warn!(%error, "a list of what is still to be done could not be synced");
        }
    }

    /// Waits until nothing waits.
    pub(super) async fn flush(&self) {
        self.wait_while(|queue| !queue.entries.is_empty()).await;
    }

    async fn wait_while(&self, is_so: impl Fn(&Queue) -> bool) {
        loop {
            let mut fewer = pin!(self.fewer.notified());
            fewer.as_mut().enable();
            if !is_so(&self.queue()) {
                return;
            }
            fewer.await;
        }
    }

    /// Stores blobs in the fast store and has them written behind.
    pub(super) async fn put_many(self: &Arc<Self>, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let mut outcomes: Vec<Result<()>> = Vec::with_capacity(blobs.len());
        let mut admitted = Vec::new();
        // For all of them together: whoever sent them waits for one answer.
        let deadline = Instant::now() + self.options.patience;
        for (place, blob) in blobs.into_iter().enumerate() {
            let room = match self.room_now(blob.digest()) {
                Some(room) => Ok(room),
                None => {
                    // Those before it hold room of their own, which is given back only when they are written.
                    self.admit(std::mem::take(&mut admitted), &mut outcomes).await;
                    self.room_for(blob.digest(), deadline).await
                }
            };
            outcomes.push(match room {
                Ok(room) => {
                    admitted.push(Admitted { place, blob, room });
                    Ok(())
                }
                Err(error) => Err(error),
            });
        }
        self.admit(admitted, &mut outcomes).await;
        outcomes
    }

    /// Stores and enlists what has room.
    async fn admit(self: &Arc<Self>, admitted: Vec<Admitted>, outcomes: &mut [Result<()>]) {
        if admitted.is_empty() {
            return;
        }
        let stored = self
            .fast
            .put_many(admitted.iter().map(|admitted| admitted.blob.clone()).collect())
            .await;
        let mut listed = Vec::new();
        for (Admitted { place, blob, room }, stored) in admitted.into_iter().zip(stored) {
            let leased = match (stored, room) {
                (Ok(()), Room::Taken(taken)) => self.lease(&blob).await.map(|lease| Some((lease, taken))),
                (stored, _) => stored.map(|()| None),
            };
            match leased {
                Ok(Some((lease, taken))) => listed.push((place, blob, lease, taken)),
                Ok(None) => {}
                Err(error) => outcomes[place] = Err(error),
            }
        }
        let places: Vec<usize> = listed.iter().map(|(place, ..)| *place).collect();
        let behind = self.clone();
        // As a task: whoever waits for this may go away, and what is listed has to be queued too.
        let enlisted = tokio::spawn(async move { behind.enlist(listed).await }).await;
        if let Err(error) = enlisted.expect("the list does not panic, and the runtime outlives its tasks") {
            places
                .into_iter()
                .for_each(|place| outcomes[place] = Err(error.again()));
        }
    }

    /// Lists blobs on disk, and has them written.
    async fn enlist(&self, listed: Vec<(usize, Verified, Lease, Taken)>) -> Result<()> {
        if listed.is_empty() {
            return Ok(());
        }
        let (list, digests) = (
            self.list.clone(),
            listed
                .iter()
                .map(|(_, blob, ..)| (SLOW, blob.digest()))
                .collect::<Vec<_>>(),
        );
        blocking(move || list.add(&digests)).await?;
        let mut queue = self.queue();
        for (_, blob, lease, taken) in listed {
            queue.push(blob.digest(), Some(blob), lease, Some(taken));
        }
        drop(queue);
        self.work.notify_waiters();
        Ok(())
    }

    /// Room for a blob, if there is some or none is needed.
    fn room_now(&self, digest: Digest) -> Option<Room> {
        if digest.is_empty_blob() || self.holds(&digest) {
            return Some(Room::NotNeeded);
        }
        self.take_room(digest).map(Room::Taken)
    }

    fn take_room(&self, digest: Digest) -> Option<Taken> {
        let bytes = self.room_bytes.clone();
        Some(Taken {
            _blob: self.room_blobs.clone().try_acquire_owned().ok()?,
            _bytes: bytes.try_acquire_many_owned(self.units_of(digest)).ok()?,
        })
    }

    /// A blob that is larger than all that may wait takes all of it.
    fn units_of(&self, digest: Digest) -> u32 {
        units(digest.size_bytes()).min(units(self.options.bytes_max)).max(1)
    }

    /// Waits until there is room.
    async fn room_for(&self, digest: Digest, deadline: Instant) -> Result<Room> {
        let take = async {
            let blob = self.room_blobs.clone().acquire_owned().await.expect("nobody closes it");
            let units = self.units_of(digest);
            let bytes = self
                .room_bytes
                .clone()
                .acquire_many_owned(units)
                .await
                .expect("nobody closes it");
            Taken {
                _blob: blob,
                _bytes: bytes,
            }
        };
        if let Ok(taken) = tokio::time::timeout_at(deadline, take).await {
            return Ok(Room::Taken(taken));
        }
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        // Blobs that are refused again and again must not keep out all others: one of them goes for each put.
        let clogging = self.queue().clogging(self.options.bytes_max, self.options.blobs_max);
        if let Some(clogging) = clogging {
            self.give_up_refused(clogging).await?;
        }
        let (blobs, bytes, why) = {
            let queue = self.queue();
            let why = queue.last_failure.as_ref();
            let why = why.map_or("it is slow".to_owned(), |failure| {
                format!("the last failure was {failure:?}")
            });
            (queue.entries.len(), queue.bytes, why)
        };
        let reason = format!(
            "{blobs} blobs, {bytes} bytes, wait to be written to {}, and more may not: {why}",
            self.slow
        );
        Err(Error::new(ErrorKind::Unavailable, "put", reason).on(digest))
    }

    /// Keeps a blob in the fast store, which has it since a moment ago.
    async fn lease(&self, blob: &Verified) -> Result<Lease> {
        let digest = blob.digest();
        for _again in 0..3 {
            if let Leased::Held(lease) = self.fast.lease(&[digest]).await? {
                return Ok(lease);
            }
            self.fast.put(blob.clone()).await?;
        }
        let reason = format!("{} evicts what was put at once", self.fast);
        Err(Error::new(ErrorKind::Exhausted, "put", reason).on(digest))
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BYTES_UNIT)).unwrap_or(u32::MAX >> 1)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .expect("the list does not panic, and the runtime outlives its tasks")
}

impl fmt::Debug for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behind")
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}
