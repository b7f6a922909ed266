//! The one thread that writes records: whatever waits is written together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::format::Key;
use super::journal::Journal;
use crate::{Durability, Error, ErrorKind, Record, Result};

/// Changes that may wait. Whoever comes later waits with theirs in hand.
const QUEUE_MAX: usize = 1024;
/// Changes that are written together.
const BATCH_MAX: usize = 256;
/// How long the end of what is done beside the writer may go unnoticed while nothing is written.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Put(Key, Record),
    Remove(Key),
}

impl Change {
    pub(super) fn key(&self) -> &Key {
        self.parts().0
    }

    /// The key, and the record unless it is removed.
    pub(super) fn parts(&self) -> (&Key, Option<&Record>) {
        match self {
            Self::Put(key, record) => (key, Some(record)),
            Self::Remove(key) => (key, None),
        }
    }
}

#[derive(Debug)]
enum Order {
    /// A change, who waits for it, and its place in the queue, which is free when it is dropped.
    Write(Change, oneshot::Sender<Result<()>>, OwnedSemaphorePermit),
    /// Take all that is noted, uses included, into the database.
    Fold,
    /// The same, and end.
    Close(oneshot::Sender<Result<()>>),
}

/// Owns the thread. Dropping it has it end in good order, and waits for that.
#[derive(Debug)]
pub(super) struct Writer {
    /// Unbounded by itself; every change in it has one of the `places`.
    orders: Option<mpsc::Sender<Order>>,
    places: Arc<Semaphore>,
    /// Whether there is an order to fold that was not begun.
    is_fold_asked: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(job: Job) -> Result<Self> {
        let (sender, orders) = mpsc::channel();
        let is_fold_asked = job.is_fold_asked.clone();
        let thread = thread::Builder::new()
            .name("store-records".to_owned())
            .spawn(move || job.run(&orders))
            .map_err(|error| Error::io("open records", "starting the writer's thread", error))?;
        Ok(Self {
            orders: Some(sender),
            places: Arc::new(Semaphore::new(QUEUE_MAX)),
            is_fold_asked,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Makes a change, and waits until it is as durable as was chosen. It may be made though the caller went away.
    pub(super) async fn write(&self, change: Change) -> Result<()> {
        let place = self.places.clone().acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let (reply, outcome) = oneshot::channel();
        self.send(Order::Write(change, reply, place))?;
        outcome.await.map_err(|_| closed())?
    }

    pub(super) async fn close(&self) -> Result<()> {
        let (reply, outcome) = oneshot::channel();
        self.send(Order::Close(reply))?;
        outcome.await.map_err(|_| closed())?
    }

    /// Asks for the noted uses to be written, soon.
    pub(super) fn ask_for_fold(&self) {
        if !self.is_fold_asked.swap(true, Ordering::Relaxed) {
            // A writer that has ended has written what it could.
            let _is_running = self.send(Order::Fold);
        }
    }

    fn send(&self, order: Order) -> Result<()> {
        let orders = self.orders.as_ref().expect("taken by drop only");
        orders.send(order).map_err(|_| closed())
    }
}

fn closed() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "write record",
        "the records take no more writes",
    )
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.orders.take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer of records had panicked");
        }
    }
}

/// What the thread works with.
pub(super) struct Job {
    pub(super) journal: Journal,
    pub(super) durability: Durability,
    pub(super) is_fold_asked: Arc<AtomicBool>,
    /// When the oldest change that is not durable was made.
    pub(super) unsynced_since: Option<Instant>,
}

/// What is to be done with a batch.
#[derive(Debug)]
enum Then {
    Write,
    Sync,
    Fold,
    End(Option<oneshot::Sender<Result<()>>>),
}

/// Changes, and who waits for them.
#[derive(Debug, Default)]
struct Batch {
    changes: Vec<Change>,
    replies: Vec<(oneshot::Sender<Result<()>>, OwnedSemaphorePermit)>,
}

impl Job {
    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        loop {
            let (batch, then) = self.gather(orders);
            let has_waiters = !batch.replies.is_empty();
            let outcome = self.carry_out(batch.changes, &then);
            for (reply, _place) in batch.replies {
                answer(reply, &outcome);
            }
            match then {
                Then::End(Some(reply)) => return answer(reply, &outcome),
                Then::End(None) => return log_failure(&outcome),
                Then::Sync | Then::Fold if !has_waiters => log_failure(&outcome),
                Then::Write | Then::Sync | Then::Fold => {}
            }
        }
    }

    fn carry_out(&mut self, changes: Vec<Change>, then: &Then) -> Result<()> {
        let is_synced = self.durability == Durability::Always;
        let outcome = match then {
            Then::Write => self.journal.write(changes, is_synced),
            Then::Sync => self.journal.write(changes, false).and_then(|()| self.journal.sync()),
            Then::Fold => {
                self.is_fold_asked.store(false, Ordering::Relaxed);
                self.journal.fold(changes)
            }
            Then::End(_) => self.journal.close(changes),
        };
        self.unsynced_since = match then {
            Then::Write if !is_synced => self.unsynced_since.or_else(|| Some(Instant::now())),
            _ if outcome.is_ok() => None,
            // Tried again after another interval.
            _ => self.unsynced_since.map(|_| Instant::now()),
        };
        outcome
    }

    /// Waits for orders, or for the time to do something without one.
    fn gather(&self, orders: &mpsc::Receiver<Order>) -> (Batch, Then) {
        let mut batch = Batch::default();
        let mut next = match self.time_to_look() {
            Some(left) => orders.recv_timeout(left),
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        loop {
            match next {
                Ok(Order::Write(change, reply, place)) => {
                    batch.changes.push(change);
                    batch.replies.push((reply, place));
                }
                Err(RecvTimeoutError::Timeout) => return (batch, self.write_or_sync()),
                Ok(Order::Fold) => return (batch, Then::Fold),
                Ok(Order::Close(reply)) => return (batch, Then::End(Some(reply))),
                Err(RecvTimeoutError::Disconnected) => return (batch, Then::End(None)),
            }
            if batch.changes.len() == BATCH_MAX {
                return (batch, self.write_or_sync());
            }
            match orders.try_recv() {
                Ok(order) => next = Ok(order),
                Err(_) => return (batch, self.write_or_sync()),
            }
        }
    }

    /// Writers who never pause must not keep the sync away.
    fn write_or_sync(&self) -> Then {
        match self.time_to_sync() {
            Some(Duration::ZERO) => Then::Sync,
            _ => Then::Write,
        }
    }

    fn time_to_look(&self) -> Option<Duration> {
        let look = self.journal.is_folding().then_some(LOOK_INTERVAL);
        self.time_to_sync().into_iter().chain(look).min()
    }

    /// How long what was written may wait for a sync; `None` if nothing waits for one.
    fn time_to_sync(&self) -> Option<Duration> {
        match self.durability {
            Durability::Interval(interval) => self
                .unsynced_since
                .map(|since| interval.saturating_sub(since.elapsed())),
            Durability::Always | Durability::None => None,
        }
    }
}

fn answer(reply: oneshot::Sender<Result<()>>, outcome: &Result<()>) {
    let outcome = match outcome {
        Ok(()) => Ok(()),
        Err(error) => Err(Error::new(error.kind(), "write record", error.to_string())),
    };
    // Whoever went away does not want to know.
    let _is_wanted = reply.send(outcome);
}

fn log_failure(outcome: &Result<()>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "the latest records may be lost when the power goes");
    }
}
