//! The one thread that writes records: whatever waits becomes one transaction.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::database::Database;
use super::format::Key;
use super::recent::Recent;
use super::transaction::Transaction;
use super::uses::Uses;
use crate::{Durability, Error, ErrorKind, Record, Result};

/// Changes that may wait. Whoever comes later waits with theirs in hand.
const QUEUE_MAX: usize = 1024;
/// Changes in one transaction.
const BATCH_MAX: usize = 256;
/// Without a chosen interval the file is synced this often: until then nothing that was freed in it can be used again.
const SYNC_INTERVAL: Duration = Duration::from_secs(60);

/// A change of one record.
#[derive(Debug)]
pub(super) enum Change {
    Put(Key, Record),
    Remove(Key),
}

#[derive(Debug)]
enum Order {
    Write(Waiting),
    /// Sync, the noted uses included.
    Sync,
    /// Sync, and end.
    Close(oneshot::Sender<Result<()>>),
}

/// A change, and who waits for it.
#[derive(Debug)]
struct Waiting {
    change: Change,
    reply: oneshot::Sender<Result<()>>,
    /// Its place in the queue, free when this is dropped.
    _place: OwnedSemaphorePermit,
}

/// Owns the thread. Dropping it syncs, and waits for that.
#[derive(Debug)]
pub(super) struct Writer {
    /// Unbounded by itself; every change in it has one of the `places`.
    orders: Option<mpsc::Sender<Order>>,
    places: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(job: Job) -> Result<Self> {
        let (sender, orders) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("store-records".to_owned())
            .spawn(move || job.run(&orders))
            .map_err(|error| Error::io("open records", "starting the writer's thread", error))?;
        Ok(Self {
            orders: Some(sender),
            places: Arc::new(Semaphore::new(QUEUE_MAX)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Makes a change, and waits until it is as durable as was chosen. It may be made though the caller went away.
    pub(super) async fn write(&self, change: Change) -> Result<()> {
        let place = self.places.clone().acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let (reply, outcome) = oneshot::channel();
        self.send(Order::Write(Waiting {
            change,
            reply,
            _place: place,
        }))?;
        outcome.await.map_err(|_| closed())?
    }

    pub(super) async fn close(&self) -> Result<()> {
        let (reply, outcome) = oneshot::channel();
        self.send(Order::Close(reply))?;
        outcome.await.map_err(|_| closed())?
    }

    /// Asks for the noted uses to be written, soon.
    pub(super) fn ask_for_sync(&self) {
        // A writer that has ended has written what it could.
        let _is_running = self.send(Order::Sync);
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
    pub(super) database: Arc<Database>,
    pub(super) uses: Arc<Uses>,
    pub(super) recent: Arc<Recent>,
    pub(super) durability: Durability,
    pub(super) bytes_max: u64,
    /// When the oldest commit that is not in the file was made.
    pub(super) unsynced_since: Option<Instant>,
}

/// What is to be done with a batch.
#[derive(Debug)]
enum Then {
    Commit,
    Sync,
    End(Option<oneshot::Sender<Result<()>>>),
}

impl Job {
    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        loop {
            let (batch, then) = self.gather(orders);
            let is_synced = self.durability == Durability::Always || !matches!(then, Then::Commit);
            let outcome = self.commit(&batch, is_synced);
            self.database.measure();
            for waiting in batch {
                answer(waiting.reply, &outcome);
            }
            if let Then::End(reply) = then {
                match reply {
                    Some(reply) => answer(reply, &outcome),
                    None => log_failure(&outcome),
                }
                return;
            }
        }
    }

    /// Waits for orders, or for the time to sync.
    fn gather(&self, orders: &mpsc::Receiver<Order>) -> (Vec<Waiting>, Then) {
        let mut batch = Vec::new();
        let mut next = match self.time_to_sync() {
            Some(left) => orders.recv_timeout(left),
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        loop {
            match next {
                Ok(Order::Write(waiting)) => batch.push(waiting),
                Ok(Order::Sync) | Err(RecvTimeoutError::Timeout) => return (batch, Then::Sync),
                Ok(Order::Close(reply)) => return (batch, Then::End(Some(reply))),
                Err(RecvTimeoutError::Disconnected) => return (batch, Then::End(None)),
            }
            if batch.len() == BATCH_MAX {
                return (batch, Then::Commit);
            }
            match orders.try_recv() {
                Ok(order) => next = Ok(order),
                Err(_) => return (batch, Then::Commit),
            }
        }
    }

    /// How long what was committed may wait for a sync; `None` if nothing waits.
    fn time_to_sync(&self) -> Option<Duration> {
        let interval = match self.durability {
            Durability::Interval(interval) => interval,
            Durability::Always | Durability::None => SYNC_INTERVAL,
        };
        self.unsynced_since
            .map(|since| interval.saturating_sub(since.elapsed()))
    }

    fn commit(&mut self, batch: &[Waiting], is_synced: bool) -> Result<()> {
        let transaction = Transaction {
            changes: batch.iter().map(|waiting| &waiting.change).collect(),
            uses: &self.uses,
            bytes_max: self.bytes_max,
            is_synced,
        };
        let handle = self.database.handle("write record")?;
        let outcome = transaction.run(&handle);
        self.unsynced_since = match outcome {
            Ok(_) if !is_synced => self.unsynced_since.or_else(|| Some(Instant::now())),
            _ => None,
        };
        drop(handle);
        let Ok(evicted) = &outcome else {
            self.recent.clear();
            return outcome
                .map(|_| ())
                .map_err(|error| self.database.error("write record", error));
        };
        let changed = batch.iter().map(|waiting| match &waiting.change {
            Change::Put(key, _) | Change::Remove(key) => &**key,
        });
        self.recent.forget(changed.chain(evicted.iter().map(Vec::as_slice)));
        Ok(())
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
        tracing::error!(%error, "the last records are lost");
    }
}
