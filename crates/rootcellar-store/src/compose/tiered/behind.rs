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

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rootcellar_digest::{Digest, DigestMap, DigestSet};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::compose::health::{Health, has_answered};
use crate::compose::tasks::Tasks;
use crate::compose::transfer::{batches, fetch, verify};
use crate::io::OsDisk;
use crate::pending::Pending;
use crate::{BlobStore, Content, Error, ErrorKind, Lease, Leased, LocalStore, Result, Spool, Verified};

/// The slow store is the only one for whom something is to be done.
const SLOW: u64 = 0;
/// Bytes of blobs that wait in memory, so that they need not be read again. Others are read from the fast store.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// Files that are kept open for the same reason.
const FILES_MAX: usize = 256;
/// Digests that a writer takes at once.
const TAKEN_MAX: usize = 1000;
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A unit of the semaphore that counts bytes, which counts to a few billions only.
const BYTES_UNIT: u64 = 4096;

/// How puts are written behind. Each value has a default and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BehindOptions {
    /// Bytes that may wait, 4 GiB. They are kept in the fast store until they are written: let it be a quarter of that at the most.
    pub bytes_max: u64,
    /// Blobs that may wait, 200,000: each takes some 300 bytes of memory.
    pub blobs_max: usize,
    /// How long a put waits for room before it is refused, 30 s: less than clients wait for an answer.
    pub patience: Duration,
    /// Batches that are written at a time, 8.
    pub writers: usize,
    /// Whether the list is synced before a put is acknowledged. If not, a power cut may leave a blob in the fast store only, until it is
    /// used again.
    pub is_synced: bool,
}

impl Default for BehindOptions {
    fn default() -> Self {
        Self {
            bytes_max: 4 << 30,
            blobs_max: 200_000,
            patience: Duration::from_secs(30),
            writers: 8,
            is_synced: false,
        }
    }
}

impl BehindOptions {
    /// Lets so many bytes wait.
    #[must_use]
    pub fn with_bytes_max(self, bytes_max: u64) -> Self {
        Self { bytes_max, ..self }
    }

    /// Lets so many blobs wait.
    #[must_use]
    pub fn with_blobs_max(self, blobs_max: usize) -> Self {
        Self { blobs_max, ..self }
    }

    /// Refuses puts after they waited so long.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Syncs the list before a put is acknowledged.
    #[must_use]
    pub fn synced(self, is_synced: bool) -> Self {
        Self { is_synced, ..self }
    }
}

/// How far behind the slow store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BehindStatistics {
    /// Blobs that wait.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How long the oldest of them waits.
    pub oldest: Duration,
    /// Blobs that were written since the start.
    pub written: u64,
    /// Attempts that failed since the start, and were or will be repeated.
    pub failures: u64,
    /// Puts that were refused since the start because nothing more could wait.
    pub refused: u64,
    /// Blobs that the fast store lost before they were written. Each is an error in the log.
    pub lost: u64,
}

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
    /// Rung when nothing waits any more.
    idle: Notify,
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

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Digest>,
    /// What waits, and what is being written.
    entries: DigestMap<Entry>,
    bytes: u64,
    memory_bytes: u64,
    files: usize,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    /// The content, if it need not be read again.
    blob: Option<Verified>,
    _lease: Lease,
    _room: Option<Taken>,
}

/// A blob's part of what may wait.
#[derive(Debug)]
struct Taken {
    _blob: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
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
            idle: Notify::new(),
            counters: Counters::default(),
            health: Health::default(),
        });
        behind.resume().await?;
        let writers = Tasks::default();
        for _ in 0..behind.options.writers.max(1) {
            let behind = behind.clone();
            writers.spawn(async move { behind.keep_writing().await });
        }
        Ok((behind, writers))
    }

    async fn keep_writing(&self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let mut work = pin!(self.work.notified());
            work.as_mut().enable();
            let taken = self.take();
            if taken.is_empty() {
                work.await;
            } else if self.write(taken).await {
                pause = PAUSE_FIRST;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
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
                Leased::Held(lease) => self.queue().push(digest, None, lease, None),
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

    /// Whether the slow store did not answer a moment ago.
    pub(super) fn slow_is_down(&self) -> bool {
        self.health.is_down()
    }

    /// Notes whether the slow store answered.
    pub(super) fn note_slow<T>(&self, outcome: &Result<T>) {
        self.health.note(&self.slow, has_answered(outcome));
    }

    /// Waits until nothing waits.
    pub(super) async fn flush(&self) {
        loop {
            let mut idle = pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.queue().entries.is_empty() {
                return;
            }
            idle.await;
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
        let blob = self.room_blobs.clone().try_acquire_owned().ok()?;
        let bytes = self
            .room_bytes
            .clone()
            .try_acquire_many_owned(self.units_of(digest))
            .ok()?;
        Some(Room::Taken(Taken {
            _blob: blob,
            _bytes: bytes,
        }))
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
        let (blobs, bytes) = {
            let queue = self.queue();
            (queue.entries.len(), queue.bytes)
        };
        let reason = format!(
            "{blobs} blobs, {bytes} bytes, wait to be written to {}, and more may not: it is slow, or does not answer",
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

    /// Takes what one writer writes next.
    fn take(&self) -> Vec<Digest> {
        let mut queue = self.queue();
        let count = queue.waiting.len().div_ceil(self.options.writers.max(1)).min(TAKEN_MAX);
        queue.waiting.drain(..count).collect()
    }

    /// Writes blobs; says whether all went well. What did not waits again.
    async fn write(&self, taken: Vec<Digest>) -> bool {
        let mut failed: DigestSet = taken.iter().copied().collect();
        let ended = self.write_missing(&taken, &mut failed).await;
        self.note_slow(&ended);
        if let Err(error) = &ended {
            tracing::debug!(%error, blobs = failed.len(), store = %self.slow, "blobs could not be written, and wait");
        }
        if failed.is_empty() {
            if !self.queue().waiting.is_empty() {
                // The others may sleep since a time when nothing could be written.
                self.work.notify_waiters();
            }
            return true;
        }
        self.counters.failures.fetch_add(failed.len() as u64, Ordering::Relaxed);
        self.queue().waiting.extend(failed);
        false
    }

    /// Takes out of `failed` what was written, or was there.
    async fn write_missing(&self, taken: &[Digest], failed: &mut DigestSet) -> Result<()> {
        let missing = self.slow.find_missing(taken).await?;
        let are_missing: DigestSet = missing.iter().copied().collect();
        let present: Vec<Digest> = taken
            .iter()
            .copied()
            .filter(|digest| !are_missing.contains(digest))
            .collect();
        self.written(&present, failed).await?;
        for batch in batches(&missing) {
            self.write_batch(&batch, failed).await?;
        }
        Ok(())
    }

    async fn write_batch(&self, batch: &[Digest], failed: &mut DigestSet) -> Result<()> {
        let (blobs, lost) = self.contents(batch).await?;
        if !lost.is_empty() {
            self.give_up(&lost).await?;
            failed.retain(|digest| !lost.contains(digest));
        }
        let digests: Vec<Digest> = blobs.iter().map(Verified::digest).collect();
        let outcomes = match blobs.len() {
            1 => vec![self.slow.put(blobs.into_iter().next().expect("there is one")).await],
            _ => self.slow.put_many(blobs).await,
        };
        let (mut written, mut first_error) = (Vec::new(), None);
        for (digest, outcome) in digests.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => written.push(digest),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        self.written(&written, failed).await?;
        first_error.map_or(Ok(()), Err)
    }

    async fn written(&self, written: &[Digest], failed: &mut DigestSet) -> Result<()> {
        self.counters.written.fetch_add(written.len() as u64, Ordering::Relaxed);
        self.done(written).await?;
        for digest in written {
            failed.remove(digest);
        }
        Ok(())
    }

    /// The contents of a batch, and what the fast store lost of it.
    async fn contents(&self, batch: &[Digest]) -> Result<(Vec<Verified>, Vec<Digest>)> {
        let (mut blobs, mut lost, mut to_read) = (Vec::new(), Vec::new(), Vec::new());
        {
            let queue = self.queue();
            for digest in batch {
                match queue.entries.get(digest).and_then(|entry| entry.blob.clone()) {
                    Some(blob) => blobs.push(blob),
                    None => to_read.push(*digest),
                }
            }
        }
        let read = match to_read.as_slice() {
            [one] => vec![fetch(&*self.fast, *one, &self.spool).await],
            many => {
                let contents = self.fast.get_many(many).await;
                many.iter()
                    .zip(contents)
                    .map(|(digest, content)| verify(*digest, content))
                    .collect()
            }
        };
        for (digest, outcome) in to_read.into_iter().zip(read) {
            match outcome {
                Ok(blob) => blobs.push(blob),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DataLoss) => lost.push(digest),
                Err(error) => return Err(error),
            }
        }
        Ok((blobs, lost))
    }

    /// Lets go of blobs that need not wait any more.
    async fn done(&self, digests: &[Digest]) -> Result<()> {
        if digests.is_empty() {
            return Ok(());
        }
        let (list, done) = (
            self.list.clone(),
            digests.iter().map(|digest| (SLOW, *digest)).collect::<Vec<_>>(),
        );
        blocking(move || list.done(&done)).await?;
        let mut queue = self.queue();
        digests.iter().for_each(|digest| queue.remove(digest));
        if queue.entries.is_empty() {
            self.idle.notify_waiters();
        }
        Ok(())
    }
}

impl Queue {
    fn push(&mut self, digest: Digest, blob: Option<Verified>, lease: Lease, room: Option<Taken>) {
        if self.entries.contains_key(&digest) {
            return;
        }
        let blob = blob
            .filter(|blob| self.may_keep(blob))
            .map(Verified::in_memory_of_its_own);
        match blob.as_ref().map(Verified::content) {
            Some(Content::Bytes(_)) => self.memory_bytes += digest.size_bytes(),
            Some(_) => self.files += 1,
            None => {}
        }
        self.bytes += digest.size_bytes();
        let entry = Entry {
            since: Instant::now(),
            blob,
            _lease: lease,
            _room: room,
        };
        self.entries.insert(digest, entry);
        self.waiting.push_back(digest);
    }

    fn may_keep(&self, blob: &Verified) -> bool {
        match blob.content() {
            Content::Bytes(_) => self.memory_bytes + blob.digest().size_bytes() <= MEMORY_BYTES_MAX,
            Content::Spooled(_) | Content::Part(..) => self.files < FILES_MAX,
        }
    }

    fn remove(&mut self, digest: &Digest) {
        let Some(entry) = self.entries.remove(digest) else {
            return;
        };
        self.bytes -= digest.size_bytes();
        match entry.blob.as_ref().map(Verified::content) {
            Some(Content::Bytes(_)) => self.memory_bytes -= digest.size_bytes(),
            Some(_) => self.files -= 1,
            None => {}
        }
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
