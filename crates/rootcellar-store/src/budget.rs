//! The bound on what a store takes on the disk, and the wait for room under it.
//!
//! Everything under the store's directory is counted by somebody: the layout, what is being ingested, the store's own small files,
//! and what others keep there. Who needs room asks first. If there is none, somebody is asked to make some ([`Budget::on_need`]),
//! and either makes it or says that there is none to be had.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::byte_counter::Share;
use crate::{ByteCounter, Error, ErrorKind, Result};

/// How long content waits for room while room is being made. Longer, and a client would have given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The part of what is stored that goes when the disk is full.
const RELIEF_PART: u64 = 16;

pub(crate) struct Budget {
    bytes_max: u64,
    /// What should be taken at the most once room has been made: less than the bound after the disk was full.
    relief: AtomicU64,
    /// Bytes that have to stay free.
    spare: AtomicU64,
    /// What the layout takes.
    pub(crate) layout: ByteCounter,
    /// What is being ingested.
    pub(crate) spooled: ByteCounter,
    /// What is about to be written.
    held: ByteCounter,
    /// The store's own small files, and what a crash may have left that nobody counts yet.
    pub(crate) own: ByteCounter,
    /// What others keep under the same directory.
    pub(crate) others: ByteCounter,
    /// Guards who waits. Held while bytes are taken, so that two cannot take the same room.
    state: Mutex<State>,
    changed: Condvar,
    need: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that somebody waits for.
    wanted: u64,
    /// Counts the times when no room could be made, and why the last time.
    refusals: u64,
    refusal: String,
}

impl Budget {
    pub(crate) fn new(bytes_max: u64, others: ByteCounter) -> Self {
        Self {
            bytes_max,
            relief: AtomicU64::new(u64::MAX),
            spare: AtomicU64::new(0),
            layout: ByteCounter::default(),
            spooled: ByteCounter::default(),
            held: ByteCounter::default(),
            own: ByteCounter::default(),
            others,
            state: Mutex::default(),
            changed: Condvar::new(),
            need: OnceLock::new(),
        }
    }

    /// Has `make_room` called whenever somebody begins to wait.
    pub(crate) fn on_need(&self, make_room: impl Fn() + Send + Sync + 'static) {
        let is_first = self.need.set(Box::new(make_room)).is_ok();
        assert!(is_first, "one store makes room");
    }

    /// Keeps `bytes` free, whoever asks.
    pub(crate) fn spare(&self, bytes: u64) {
        self.spare.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes that are taken.
    pub(crate) fn used(&self) -> u64 {
        let counters = [&self.layout, &self.spooled, &self.held, &self.own, &self.others];
        counters
            .into_iter()
            .fold(0, |sum: u64, counter| sum.saturating_add(counter.bytes()))
    }

    /// Bytes that are not taken.
    pub(crate) fn free(&self) -> u64 {
        self.bytes_max.saturating_sub(self.used())
    }

    /// The disk had no room although the store may take more: somebody else has taken it. Some of what is stored has to go.
    pub(crate) fn disk_is_full(&self) {
        let used = self.used();
        self.relief.fetch_min(used - used / RELIEF_PART, Ordering::Relaxed);
        self.ask();
    }

    /// Bytes that have to go because the disk was full.
    pub(crate) fn excess(&self) -> u64 {
        self.used().saturating_sub(self.relief.load(Ordering::Relaxed))
    }

    /// Room was made, or could not be, after the disk was full.
    pub(crate) fn end_relief(&self) {
        self.relief.store(u64::MAX, Ordering::Relaxed);
    }

    /// Bytes that may be taken.
    pub(crate) fn room(&self) -> u64 {
        self.free().saturating_sub(self.spare.load(Ordering::Relaxed))
    }

    /// Keeps `bytes` for what is about to be written, if there is room. While it is written it is counted twice.
    pub(crate) fn hold(&self, bytes: u64) -> Option<Share> {
        let _alone = self.state();
        let held = (bytes <= self.room()).then(|| self.held.share())?;
        held.add(bytes);
        Some(held)
    }

    /// Bytes that may be taken by who moves blobs to make room. What is spared for that is there even while a commit holds, and so
    /// counts twice, what it writes.
    pub(crate) fn room_to_move(&self) -> u64 {
        let (free, spare) = (self.free(), self.spare.load(Ordering::Relaxed));
        free.max(spare.min(free + self.held.bytes()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `bytes` more in `share`, waiting for room if there is none. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] if no room is made.
    pub(crate) fn take(&self, share: &Share, bytes: u64) -> Result<()> {
        if self.take_at_once(share, bytes) {
            return Ok(());
        }
        let mut state = self.state();
        let refusals = state.refusals;
        state.wanted += bytes;
        drop(state);
        self.ask();
        state = self.state();
        let must_wait = |state: &mut State| bytes > self.room() && state.refusals == refusals;
        let waited = self.changed.wait_timeout_while(state, PATIENCE, must_wait);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.wanted -= bytes;
        if bytes <= self.room() {
            share.add(bytes);
            return Ok(());
        }
        let reason = match state.refusals == refusals {
            true => format!("no room in the store's {} bytes was made in time", self.bytes_max),
            false => state.refusal.clone(),
        };
        Err(Error::new(ErrorKind::Exhausted, "ingest", reason))
    }

    /// Counts `bytes` more in `share` if there is room now.
    pub(crate) fn take_at_once(&self, share: &Share, bytes: u64) -> bool {
        let _alone = self.state();
        let has_room = bytes <= self.room();
        if has_room {
            share.add(bytes);
        }
        has_room
    }

    fn ask(&self) {
        if let Some(make_room) = self.need.get() {
            make_room();
        }
    }

    /// Bytes that somebody waits for now.
    pub(crate) fn wanted(&self) -> u64 {
        self.state().wanted
    }

    /// Says that something was given back.
    pub(crate) fn freed(&self) {
        drop(self.state());
        self.changed.notify_all();
    }

    /// Says that no room can be made now. Whoever waits is told `reason`.
    pub(crate) fn refuse(&self, reason: &str) {
        let mut state = self.state();
        state.refusals += 1;
        reason.clone_into(&mut state.refusal);
        drop(state);
        self.changed.notify_all();
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("bytes_max", &self.bytes_max)
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}
