//! The upkeep lane: one small step after the other, the most urgent first.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::core::Engine;
use super::lanes::{Lane, Next};
use super::reclaim::Reclaim;
use super::scrub::ScrubState;
use super::statistics::ScrubProgress;

/// How often uses are written down for the next start, at the most.
pub(super) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(600);
/// A step that met an error is tried again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What the upkeep lane is doing.
#[derive(Debug)]
pub(super) struct UpkeepState {
    pub(super) reclaim: Reclaim,
    pub(super) scrub: ScrubState,
    pub(super) next_checkpoint: SystemTime,
    /// Whether the layout has nothing to put in order.
    is_tidy: bool,
    /// Whether it was put in order once since the start.
    pub(super) was_tidied: bool,
}

impl UpkeepState {
    pub(super) fn new(now: SystemTime, scrub: ScrubState) -> Self {
        Self {
            reclaim: Reclaim::default(),
            scrub,
            next_checkpoint: now + CHECKPOINT_INTERVAL,
            is_tidy: false,
            was_tidied: false,
        }
    }

    pub(super) fn scrub_progress(&self) -> ScrubProgress {
        self.scrub.progress()
    }
}

impl Engine {
    /// The lane's state. Held by the lane for one step, and by others for a look.
    pub(super) fn upkeep(&self) -> MutexGuard<'_, UpkeepState> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn step_upkeep(&self) -> Next {
        if let Some(next) = self.step_reclaim() {
            return next;
        }
        if let Some(next) = self.step_doubtful() {
            return next;
        }
        if self.step_tidy() {
            return Next::Again;
        }
        let now = self.now();
        let next_checkpoint = self.upkeep().next_checkpoint;
        let until_checkpoint = next_checkpoint.duration_since(now).unwrap_or_default();
        if until_checkpoint.is_zero() {
            self.checkpoint_uses();
            let mut upkeep = self.upkeep();
            upkeep.next_checkpoint = now + CHECKPOINT_INTERVAL;
            upkeep.is_tidy = false;
            return Next::Again;
        }
        match self.step_scrub() {
            Next::After(time) => Next::After(time.min(until_checkpoint)),
            Next::Idle => Next::After(until_checkpoint),
            next @ (Next::Again | Next::Soon) => next,
        }
    }

    /// Puts the layout's own files in order, a step at a time. Tells whether there is more to do.
    pub(super) fn step_tidy(&self) -> bool {
        if self.upkeep().is_tidy {
            return false;
        }
        // What a file is removed for must be durable before.
        if self.sync_layout().is_err() {
            self.upkeep().is_tidy = true;
            return false;
        }
        let is_live = |digest: &_, place| self.is_live(digest, place);
        let complete = self.entering();
        let outcome = self.layout.tidy(&is_live);
        drop(complete);
        let mut upkeep = self.upkeep();
        match outcome {
            Ok(true) => {}
            Ok(false) => {
                upkeep.is_tidy = true;
                upkeep.was_tidied = true;
                self.unswept.set(0);
            }
            Err(error) => {
                tracing::warn!(%error, "putting the store's own files in order is put off");
                upkeep.is_tidy = true;
            }
        }
        drop(upkeep);
        self.note_unsynced();
        !self.upkeep().is_tidy
    }

    /// What a step says that could not do its work now.
    pub(super) fn retry(&self) -> Next {
        Next::After(RETRY_AFTER)
    }

    pub(super) fn wake_upkeep_if_low(&self) {
        if self.is_room_low() {
            self.waker.wake(Lane::Upkeep);
        }
    }
}
