//! Who does the store's work, and when.
//!
//! Whatever a store does by itself is a *step* of one of three lanes. A lane takes one step at a time; the lanes run beside each
//! other. The engine says when a lane has something to do ([`Lane`] is *woken*), and each step says what comes next ([`Next`]).
//! In a program each lane is a thread. In a test a seed decides which lane takes the next step, and every step can be the
//! last before the power goes.

#![cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "only simulations see lanes from outside")
)]

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::{Error, Result};

/// Work of one sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Writes what is put, syncs it if that was promised, and acknowledges it.
    Commit,
    /// Syncs in intervals.
    Sync,
    /// Makes room, and looks after what is stored.
    Upkeep,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 3] = [Self::Commit, Self::Sync, Self::Upkeep];

    const fn thread_name(self) -> &'static str {
        match self {
            Self::Commit => "store-commit",
            Self::Sync => "store-sync",
            Self::Upkeep => "store-upkeep",
        }
    }
}

/// What a lane does after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Takes the next step.
    Again,
    /// Takes the next step in a moment, woken or not: what comes meanwhile is served by the same step.
    Soon,
    /// Takes the next step after this time, or when it is woken.
    After(Duration),
    /// Waits to be woken.
    Idle,
}

/// How long a step that is to come soon is waited for: some puts arrive meanwhile, and the disk would take much longer to sync.
const MOMENT: Duration = Duration::from_micros(50);

/// What takes steps.
pub(super) trait Steps: Send + Sync + 'static {
    fn step(&self, lane: Lane) -> Next;
}

/// Wakes lanes.
pub(super) trait Waker: std::fmt::Debug + Send + Sync + 'static {
    /// The lane has something to do. It need not have begun when this returns, and one step answers any number of calls before
    /// it.
    fn wake(&self, lane: Lane);
}

/// Bells by which threads are woken.
#[derive(Debug, Default)]
pub(super) struct Bells([Bell; Lane::ALL.len()]);

#[derive(Debug, Default)]
struct Bell {
    /// Guards what the lane has to know.
    state: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    is_woken: bool,
    must_end: bool,
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, Rung> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as a step said. Tells whether another step is to be taken.
    fn wait(&self, next: Next) -> bool {
        let is_quiet = |rung: &mut Rung| !rung.is_woken && !rung.must_end;
        let mut rung = match next {
            Next::Again => self.state(),
            Next::Soon => {
                thread::sleep(MOMENT);
                self.state()
            }
            Next::After(time) => {
                let waited = self.changed.wait_timeout_while(self.state(), time, is_quiet);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            Next::Idle => {
                let waited = self.changed.wait_while(self.state(), is_quiet);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        rung.is_woken = false;
        !rung.must_end
    }
}

impl Waker for Bells {
    fn wake(&self, lane: Lane) {
        let bell = &self.0[lane as usize];
        bell.state().is_woken = true;
        bell.changed.notify_one();
    }
}

/// A thread for each lane. Dropping it ends them, each after the step that it is in, and waits for that.
#[derive(Debug)]
pub(super) struct Threads {
    bells: Arc<Bells>,
    /// Guards the threads, which are joined once.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    pub(super) fn start(steps: &Arc<impl Steps>, bells: Arc<Bells>) -> Result<Self> {
        let threads = Self {
            bells,
            threads: Mutex::default(),
        };
        for lane in Lane::ALL {
            let (steps, bells) = (steps.clone(), threads.bells.clone());
            let run = move || while bells.0[lane as usize].wait(steps.step(lane)) {};
            let thread = thread::Builder::new().name(lane.thread_name().to_owned()).spawn(run);
            let thread = thread.map_err(|error| Error::io("open", "starting a thread of the store", error))?;
            threads.threads().push(thread);
        }
        Ok(threads)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the threads.
    pub(super) fn stop(&self) {
        for bell in &self.bells.0 {
            bell.state().must_end = true;
            bell.changed.notify_one();
        }
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}
