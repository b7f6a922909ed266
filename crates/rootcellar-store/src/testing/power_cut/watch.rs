//! What happens at a moment at which the disk is about to change: what a crash would leave is kept, and a step of another lane may begin.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::engine::lanes::Lane;
use crate::engine::stepped::SteppedStore;
use crate::testing::{Loss, Seeded, SimulatedDisk};

/// So long a step that begins within another is waited for: more than it takes, unless it waits for that other.
const HEAD_START: Duration = Duration::from_millis(2);

/// A disk as a crash would leave it.
pub(super) struct Crash {
    pub(super) moment: u64,
    pub(super) disk: SimulatedDisk,
    pub(super) is_kill: bool,
}

impl Crash {
    /// What is left if it happens now.
    pub(super) fn now(disk: &SimulatedDisk, chance: &mut Seeded) -> Self {
        let is_kill = chance.below(5) == 0 && !is_unnoted(disk);
        let left = match (is_kill, chance.below(6)) {
            (true, _) => disk.after_kill(),
            (false, 0) => disk.after_power_cut(Loss::Everything, 0),
            (false, 1) => disk.after_power_cut(Loss::Nothing, 0),
            (false, _) => disk.after_power_cut(Loss::Some, chance.number()),
        };
        Self {
            moment: disk.changes_made(),
            disk: left,
            is_kill,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        if self.is_kill { "killed" } else { "without power" }
    }
}

/// Whether a sync has failed that the store has not written down yet. A process that is killed within these microseconds leaves a
/// page cache that lies, and nobody knows.
fn is_unnoted(disk: &SimulatedDisk) -> bool {
    let is_note = |(path, _): &(PathBuf, u64)| path.to_string_lossy().contains("/failed.");
    disk.has_failed_to_sync() && !disk.files().iter().any(is_note)
}

/// A step that is to begin within another.
pub(super) struct Beside {
    pub(super) store: Arc<SteppedStore>,
    pub(super) lane: Lane,
    /// Changes of the disk until then.
    pub(super) after: u64,
}

impl Beside {
    /// Takes the step, and waits until it has come to its end or waits for the one that it is beside.
    pub(super) fn begin(self) -> JoinHandle<()> {
        let (ended, has_ended) = mpsc::channel::<()>();
        let step = thread::spawn(move || {
            self.store.step(self.lane);
            drop(ended);
        });
        // Whichever of the two it is.
        let _no_news = has_ended.recv_timeout(HEAD_START);
        step
    }
}

/// What is shared with those who change the disk.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) crashes: Vec<Crash>,
    pub(super) beside: Option<Beside>,
    /// The step that was begun.
    pub(super) begun: Option<JoinHandle<()>>,
}

impl Watched {
    pub(super) fn step_that_is_due(&mut self) -> Option<Beside> {
        let beside = self.beside.as_mut()?;
        if beside.after > 0 {
            beside.after -= 1;
            return None;
        }
        self.beside.take()
    }
}
