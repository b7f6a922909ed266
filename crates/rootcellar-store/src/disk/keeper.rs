//! The store's own thread: it remembers uses, syncs in intervals, and keeps the bound.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::options::Durability;
use super::shared::Shared;
use crate::{Error, Result};

/// How often uses are written and the bound is looked at where no shorter interval is needed for syncs.
const ROUND_INTERVAL: Duration = Duration::from_secs(60);

/// Owns the thread. Dropping it ends the thread and waits for it.
#[derive(Debug)]
pub(super) struct Keeper(Mutex<Option<Running>>);

#[derive(Debug)]
struct Running {
    /// Dropped to end the thread.
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn start(shared: Arc<Shared>, durability: Durability) -> Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let interval = match durability {
            Durability::Interval(interval) => interval.min(ROUND_INTERVAL),
            Durability::Always | Durability::None => ROUND_INTERVAL,
        };
        let run = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                round(&shared, durability);
            }
        };
        let thread = thread::Builder::new()
            .name("store-keeper".to_owned())
            .spawn(run)
            .map_err(|error| Error::io("open", "starting the store's thread", error))?;
        Ok(Self(Mutex::new(Some(Running { stop, thread }))))
    }

    /// Ends the thread after the round that it is in.
    pub(super) fn stop(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { stop, thread }) = running {
            drop(stop);
            thread.join().expect("a round does not panic");
        }
    }
}

fn round(shared: &Shared, durability: Durability) {
    shared.write_uses();
    shared.trim();
    if let Durability::Interval(_) = durability {
        shared.sync_dirty();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}
