//! Syncing, and the end of acknowledgements: when the store is closed, and when a sync has failed.

use std::io;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::core::Engine;
use super::lanes::{Lane, Next};
use super::options::Durability;
use crate::{Error, ErrorKind, Result};

/// Whether puts are accepted.
#[derive(Debug)]
pub(super) enum Gate {
    Open,
    /// The store was closed.
    Closed,
    /// A sync has failed; what is on the disk is not known any more.
    Failed(String),
}

impl Gate {
    fn check(&self) -> Result<()> {
        match self {
            Self::Open => Ok(()),
            Self::Closed => Err(Error::new(ErrorKind::Unavailable, "put", "the store is closed")),
            Self::Failed(reason) => Err(Error::new(ErrorKind::Internal, "put", reason.clone())),
        }
    }
}

/// What the next sync has to do.
#[derive(Debug, Default)]
pub(super) struct SyncState {
    /// When the first thing was written that no sync has covered.
    unsynced_since: Option<SystemTime>,
    /// Bytes of blobs that were written since the last sync began.
    unsynced_bytes: u64,
    /// When the last sync was, if it left marks that are not durable themselves.
    marked_at: Option<SystemTime>,
}

/// A sync for which the disk had no room, or for which too many files were open, is tried again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// So much may be unsynced in the smallest store, however short the interval has been.
const UNSYNCED_BYTES: u64 = 64 << 20;
/// Where every put is synced by itself, the marks that this leaves are made durable after this time.
const SETTLE_AFTER: Duration = Duration::from_secs(5);

impl Engine {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether puts are accepted.
    pub(super) fn check_gate(&self) -> Result<()> {
        self.gate().check()
    }

    /// Refuses puts from now on.
    pub(super) fn shut(&self) {
        let mut gate = self.gate();
        if let Gate::Open = *gate {
            *gate = Gate::Closed;
        }
    }

    fn sync_state(&self) -> MutexGuard<'_, SyncState> {
        self.sync.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that there is something to sync.
    pub(super) fn note_unsynced(&self) {
        let mut state = self.sync_state();
        if state.unsynced_since.is_none() {
            state.unsynced_since = Some(self.now());
            drop(state);
            self.waker.wake(Lane::Sync);
        }
    }

    /// Notes that so much was written, which is to be synced soon if it is much.
    pub(super) fn note_written(&self, bytes: u64) {
        self.note_unsynced();
        let mut state = self.sync_state();
        state.unsynced_bytes += bytes;
        if self.is_much_unsynced(&state) {
            drop(state);
            self.waker.wake(Lane::Sync);
        }
    }

    /// Whether a sync would take so long that puts had to wait for it. Who waits for room waits for a sync, and what is kept free
    /// lasts as long as it takes to write as much.
    fn is_much_unsynced(&self, state: &SyncState) -> bool {
        state.unsynced_bytes >= self.margin().max(UNSYNCED_BYTES)
    }

    pub(super) fn step_sync(&self) -> Next {
        let interval = match self.durability {
            Durability::Interval(interval) => interval,
            Durability::Always => SETTLE_AFTER,
            Durability::None => return Next::Idle,
        };
        let age = |since: SystemTime| self.now().duration_since(since).unwrap_or(interval);
        let state = self.sync_state();
        match state.unsynced_since.or(state.marked_at) {
            None => return Next::Idle,
            Some(_) if self.is_much_unsynced(&state) => {}
            Some(since) if age(since) < interval => return Next::After(interval.saturating_sub(age(since))),
            Some(_) => {}
        }
        drop(state);
        match self.sync_layout() {
            Ok(()) => Next::After(interval),
            Err(error) if error.kind() == ErrorKind::Exhausted => Next::After(RETRY_AFTER),
            // Nothing is synced any more.
            Err(_) => Next::Idle,
        }
    }

    /// Makes everything that was written durable. Blocks. An error of the kind [`ErrorKind::Exhausted`] passes. After any other one
    /// puts are refused, and nothing is synced again: it might succeed, and mean nothing.
    pub(super) fn sync_layout(&self) -> Result<()> {
        if let Gate::Failed(reason) = &*self.gate() {
            return Err(Error::new(ErrorKind::Internal, "put", reason.clone()));
        }
        let mut state = self.sync_state();
        // Before the sync begins: what is written from now on is not covered, and is noted anew.
        let since = state.unsynced_since.take();
        state.unsynced_bytes = 0;
        state.marked_at = since.map(|_| self.now());
        drop(state);
        match self.layout.sync() {
            Ok(()) => {
                self.counters().syncs += 1;
                Ok(())
            }
            Err(error) if ErrorKind::of_io(&error) == ErrorKind::Exhausted => {
                self.sync_state().unsynced_since = Some(since.unwrap_or_else(|| self.now()));
                Err(Error::io("put", "syncing", error))
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Refuses puts until the next start, because what is on the disk is not known any more.
    pub(super) fn fail(&self, error: &io::Error) -> Error {
        let dir = self.home.path().display();
        let reason = format!("{dir} could not be synced ({error}); look at the disk, then restart the store");
        tracing::error!("no more puts are acknowledged: {reason}");
        *self.gate() = Gate::Failed(reason.clone());
        if let Err(error) = self.home.note_failed() {
            tracing::error!(%error, "the next start will not know that this sync failed");
        }
        Error::new(ErrorKind::Internal, "put", reason)
    }

    /// As [`fail`](Self::fail), for an error of an operation that syncs, unless the disk was full or too many files were open.
    pub(super) fn fail_unless_full(&self, error: &io::Error) {
        if ErrorKind::of_io(error) != ErrorKind::Exhausted {
            self.fail(error);
        }
    }

    /// Syncs everything, so that the next start trusts all of it. The lanes have ended, and puts are refused. Blocks.
    pub(super) fn close(&self) -> Result<()> {
        self.checkpoint_uses();
        let failed = |error: Error| Error::new(error.kind(), "close", error.to_string());
        if let Err(error) = self.layout.end() {
            tracing::warn!(%error, "what was reserved on the disk is given back by the next start");
        }
        self.sync_layout().map_err(failed)?;
        // Once more, for the marks that the first one left.
        self.sync_layout().map_err(failed)?;
        if !self.upkeep().was_tidied || !self.home.is_cache_whole() {
            // The next start has to look for what a crash has left, as this one had to.
            return Ok(());
        }
        let closing = |error| Error::io("close", format!("closing {}", self.home.path().display()), error);
        self.home.note_closed().map_err(closing)
    }
}
