//! What is logged, on its way into the database: by a thread of its own, so that the log takes changes meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::database::Database;
use super::format::Key;
use super::log::{End, Mark};
use super::logged::Late;
use super::transaction::Transaction;
use super::uses::Uses;
use crate::{Error, ErrorKind, Result};

/// One transaction that is to be made.
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) database: Arc<Database>,
    pub(super) uses: Arc<Uses>,
    pub(super) bytes_max: u64,
    /// In the order of their keys, so that neighbours are changed together.
    pub(super) changes: BTreeMap<Key, Late>,
    /// Where the log goes on behind them.
    pub(super) mark: Mark,
    /// The same as the log counts it, and the first stamp of later changes.
    pub(super) until: (End, u64),
}

/// One that was made, or failed.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) until: (End, u64),
    /// The keys of what had to go to keep the bound.
    pub(super) evicted: Result<Vec<Vec<u8>>>,
}

impl Fold {
    /// Blocks.
    pub(super) fn run(self) -> Folded {
        Folded {
            evicted: self.commit(),
            until: self.until,
        }
    }

    fn commit(&self) -> Result<Vec<Vec<u8>>> {
        // Taken whatever comes: a database that fails must not make every reader ask for the next attempt.
        let uses = self.uses.take();
        let handle = self.database.handle("write record")?;
        let transaction = Transaction {
            changes: &self.changes,
            uses,
            bytes_max: self.bytes_max,
            mark: self.mark,
        };
        let outcome = transaction.run(&handle);
        drop(handle);
        outcome.map_err(|error| self.database.error("write record", error))
    }
}

/// Makes one such transaction at a time beside its caller.
pub(super) trait Folder: Send {
    /// Whether one is under way, or its outcome was not taken yet.
    fn is_busy(&self) -> bool;

    /// Begins one; none may be under way.
    fn start(&mut self, fold: Fold) -> Result<()>;

    /// The outcome of the one under way, if it is there.
    fn poll(&mut self) -> Option<Folded>;

    /// Waits for the outcome of the one under way, if there is one. Blocks.
    fn wait(&mut self) -> Option<Folded>;
}

/// A thread for each: one in thousands of changes.
#[derive(Debug, Default)]
pub(super) struct FolderThread(Option<((End, u64), JoinHandle<Folded>)>);

impl Folder for FolderThread {
    fn is_busy(&self) -> bool {
        self.0.is_some()
    }

    fn start(&mut self, fold: Fold) -> Result<()> {
        let until = fold.until;
        let thread = thread::Builder::new().name("store-fold".to_owned());
        let thread = thread.spawn(|| fold.run());
        let thread = thread.map_err(|error| Error::io("write record", "starting a thread", error))?;
        self.0 = Some((until, thread));
        Ok(())
    }

    fn poll(&mut self) -> Option<Folded> {
        let (_, thread) = self.0.as_ref()?;
        if thread.is_finished() { self.wait() } else { None }
    }

    fn wait(&mut self) -> Option<Folded> {
        let (until, thread) = self.0.take()?;
        Some(thread.join().unwrap_or_else(|_| Folded {
            until,
            evicted: Err(Error::new(
                ErrorKind::Internal,
                "write record",
                "the database has panicked",
            )),
        }))
    }
}
