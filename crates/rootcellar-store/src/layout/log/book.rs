//! All logs of one layout: which there are, how far each was written, and what of that is durable.
//!
//! ```text
//!   append ──> written ──[sync: the data, then the log]──> a mark is appended ──> marked ──[sync of the log]──> at rest
//! ```
//!
//! A mark says what a sync has made durable, so it can only be written after that sync, and is itself durable after the next.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::reader::LogText;
use super::slot::{Entry, Header, LogKind};
use super::writer::LogWriter;
use crate::Result;
use crate::io::{DiskFile, remove_if_there};
use crate::layout::Ground;

/// The logs in a directory, `00000001.log` and so on.
#[derive(Debug)]
pub(crate) struct LogBook {
    ground: Ground,
    dir: PathBuf,
    kind: LogKind,
    /// Guards the ends of the logs, and what of them is not durable. Held while entries are written, never while syncing.
    state: Mutex<State>,
    /// Held by the sync under way.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    logs: BTreeMap<u32, LogWriter>,
    /// Logs with entries that no sync has covered.
    written: BTreeSet<u32>,
    /// Logs that have got a mark since they were synced.
    marked: BTreeSet<u32>,
    /// Logs of which something is not certain. They get no mark, which would say that it is.
    doubtful: BTreeSet<u32>,
    names: Names,
}

/// How often logs were made or removed, and how much of that is durable. It is not enough to note that something is due, and to cross it
/// out when a sync begins: whoever looks while that is under way would take for durable what is not yet.
#[derive(Debug, Default)]
struct Names {
    changes: u64,
    durable: u64,
}

impl Names {
    fn change(&mut self) {
        self.changes += 1;
    }

    /// The changes so far, if some may not be durable.
    fn due(&self) -> Option<u64> {
        (self.changes > self.durable).then_some(self.changes)
    }

    fn are_durable(&mut self, changes: u64) {
        self.durable = self.durable.max(changes);
    }
}

/// What a sync has to make durable.
#[derive(Debug)]
struct Due {
    written: BTreeSet<u32>,
    marked: BTreeSet<u32>,
}

impl State {
    /// Takes back what could not be made durable. Logs that were removed meanwhile are due no more.
    fn put_back(&mut self, due: Due) {
        let is_there = |number: &u32| self.logs.contains_key(number);
        let (written, marked): (Vec<u32>, Vec<u32>) = (
            due.written.into_iter().filter(is_there).collect(),
            due.marked.into_iter().filter(is_there).collect(),
        );
        self.written.extend(written);
        self.marked.extend(marked);
    }
}

/// A log at the moment when a sync begins.
struct Unsynced {
    number: u32,
    file: Arc<dyn DiskFile>,
    position: u64,
}

impl LogBook {
    /// The logs of `kind` in `dir`, which exists. None is known yet.
    pub(crate) fn new(ground: &Ground, dir: PathBuf, kind: LogKind) -> Self {
        Self {
            ground: ground.clone(),
            dir,
            kind,
            state: Mutex::default(),
            turn: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A log's end moves only once entries are written, and the sets only after that.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:08}.log"))
    }

    /// Begins a log.
    pub(crate) fn create(&self, number: u32) -> io::Result<()> {
        let header = Header {
            kind: self.kind,
            is_synced: self.ground.is_synced,
            number,
            store: self.ground.store,
            boot: self.ground.boot,
        };
        let log = LogWriter::create(&*self.ground.disk, &self.path(number), &header)?;
        let mut state = self.state();
        state.logs.insert(number, log);
        state.names.change();
        Ok(())
    }

    /// Reads a log that was written by an earlier process. From then on it can be appended to.
    pub(crate) fn read(&self, number: u32) -> Result<LogText> {
        let text = self.text(number)?;
        let log = LogWriter::at_end(&self.path(number), self.kind, number, self.ground.store, text.end());
        let mut state = self.state();
        state.logs.insert(number, log);
        match text.is_all() {
            (true, _) => {}
            (false, true) => {
                // The process that wrote it was killed. Nobody knows what it had synced.
                state.written.insert(number);
                state.names.change();
            }
            (false, false) => {
                state.doubtful.insert(number);
            }
        }
        Ok(text)
    }

    /// Reads a log again.
    pub(crate) fn text(&self, number: u32) -> Result<LogText> {
        LogText::read(&self.ground, &self.path(number), self.kind, number)
    }

    /// Whether a log holds what is doubtful.
    pub(crate) fn is_doubtful(&self) -> bool {
        !self.state().doubtful.is_empty()
    }

    /// Says that nothing in a log is doubtful any more: what was not whole has been said to be gone.
    pub(crate) fn settle(&self, number: u32) {
        let mut state = self.state();
        if state.doubtful.remove(&number) {
            state.written.insert(number);
        }
    }

    /// Writes entries with one call, and tells where the log ends then.
    pub(crate) fn append(&self, number: u32, entries: &[Entry]) -> io::Result<u64> {
        let mut state = self.state();
        let log = state.logs.get_mut(&number).ok_or(io::ErrorKind::NotFound)?;
        let appended = log.append(&*self.ground.disk, entries).map(|()| log.position());
        // Even if they were written in part: who syncs has to know.
        state.written.insert(number);
        appended
    }

    /// Where a log ends.
    pub(crate) fn end(&self, number: u32) -> u64 {
        self.state().logs.get(&number).map_or(0, LogWriter::position)
    }

    /// Bytes of the disk that a log takes, what is reserved for it included.
    pub(crate) fn taken(&self, number: u32) -> u64 {
        self.state().logs.get(&number).map_or(0, LogWriter::taken)
    }

    /// Reserves the disk's space up to `end` of a log.
    pub(crate) fn reserve(&self, number: u32, end: u64) -> io::Result<()> {
        let mut state = self.state();
        let log = state.logs.get_mut(&number).ok_or(io::ErrorKind::NotFound)?;
        log.reserve(&*self.ground.disk, end)
    }

    /// Gives back what is reserved for a log and not used.
    pub(crate) fn trim(&self, number: u32) -> io::Result<()> {
        let mut state = self.state();
        let log = state.logs.get_mut(&number).ok_or(io::ErrorKind::NotFound)?;
        log.trim(&*self.ground.disk)
    }

    /// Removes a log.
    pub(crate) fn remove(&self, number: u32) -> io::Result<()> {
        let mut state = self.state();
        state.logs.remove(&number);
        state.written.remove(&number);
        state.marked.remove(&number);
        state.doubtful.remove(&number);
        drop(state);
        let removed = remove_if_there(&*self.ground.disk, &self.path(number));
        self.state().names.change();
        removed.map(drop)
    }

    /// Makes durable what was appended before this call, after `sync_data` has made durable what that speaks of. It is given the
    /// numbers of the logs.
    pub(crate) fn sync(&self, sync_data: impl FnOnce(&BTreeSet<u32>) -> io::Result<()>) -> io::Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let due = self.begin_sync();
        let synced = self.sync_due(&due, sync_data);
        if synced.is_err() {
            self.state().put_back(due);
        }
        synced
    }

    fn sync_due(&self, due: &Due, sync_data: impl FnOnce(&BTreeSet<u32>) -> io::Result<()>) -> io::Result<()> {
        let logs = self.open_due(due)?;
        sync_data(&due.written)?;
        for log in &logs {
            log.file.sync()?;
        }
        self.sync_names()?;
        self.end_sync(&due.written, &logs)
    }

    /// Makes a log durable, its name too, and nothing of what it speaks of.
    pub(crate) fn flush(&self, number: u32) -> io::Result<()> {
        let mut state = self.state();
        let log = state.logs.get_mut(&number).ok_or(io::ErrorKind::NotFound)?;
        let file = log.file(&*self.ground.disk)?;
        drop(state);
        file.sync()?;
        self.sync_names()
    }

    /// Makes the names of the logs durable, if they are not.
    fn sync_names(&self) -> io::Result<()> {
        let due = self.state().names.due();
        if let Some(changes) = due {
            self.ground.disk.sync_dir(&self.dir)?;
            self.state().names.are_durable(changes);
        }
        Ok(())
    }

    fn begin_sync(&self) -> Due {
        let mut state = self.state();
        Due {
            written: std::mem::take(&mut state.written),
            marked: std::mem::take(&mut state.marked),
        }
    }

    fn open_due(&self, due: &Due) -> io::Result<Vec<Unsynced>> {
        let mut state = self.state();
        let mut logs = Vec::new();
        for number in due.written.union(&due.marked) {
            if let Some(log) = state.logs.get_mut(number) {
                logs.push(Unsynced {
                    number: *number,
                    file: log.file(&*self.ground.disk)?,
                    position: log.position(),
                });
            }
        }
        Ok(logs)
    }

    fn end_sync(&self, written: &BTreeSet<u32>, logs: &[Unsynced]) -> io::Result<()> {
        let mut state = self.state();
        let State {
            logs: open,
            written: written_since,
            marked,
            doubtful,
            ..
        } = &mut *state;
        for synced in logs {
            // It may have been removed meanwhile.
            let Some(log) = open.get_mut(&synced.number) else {
                continue;
            };
            if written.contains(&synced.number) && !doubtful.contains(&synced.number) {
                let position = synced.position;
                log.append(&*self.ground.disk, &[Entry::Mark { position }])?;
                marked.insert(synced.number);
            } else if !written_since.contains(&synced.number) {
                log.close();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rootcellar_digest::{Digest, DigestFunction};

    use super::*;
    use crate::ByteCounter;
    use crate::io::Disk as _;
    use crate::layout::StoreId;
    use crate::layout::log::BlobEntry;
    use crate::testing::{Loss, SimulatedDisk};

    fn book(disk: &SimulatedDisk) -> LogBook {
        let dir = Path::new("/store/logs");
        for dir in [dir.parent().unwrap(), dir] {
            disk.make_dir(dir).unwrap();
            disk.sync_dir(dir.parent().unwrap()).unwrap();
        }
        let ground = Ground {
            disk: Arc::new(disk.clone()),
            dir: dir.to_owned(),
            store: StoreId([7; 16]),
            boot: disk.boot_id().unwrap(),
            is_cache_whole: true,
            was_closed: false,
            is_synced: false,
            bytes_max: 1 << 30,
            bytes: ByteCounter::default(),
        };
        LogBook::new(&ground, dir.to_owned(), LogKind::Loose)
    }

    /// A blob's file is removed as soon as the log that says so is durable. A log without a name says nothing.
    #[test]
    fn what_is_flushed_while_a_sync_is_under_way_is_durable_with_its_name() {
        let disk = SimulatedDisk::new(1);
        let book = book(&disk);
        book.create(1).unwrap();
        let gone = Entry::Gone(BlobEntry {
            digest: Digest::of(DigestFunction::Sha256, b"gone"),
            offset: 0,
            checksum: 0,
            used: 0,
        });
        let flush = |_: &BTreeSet<u32>| {
            book.append(1, &[gone])?;
            book.flush(1)?;
            let left = disk.after_power_cut(Loss::Everything, 0);
            assert!(left.files().iter().any(|(path, _)| *path == book.path(1)));
            Ok(())
        };
        book.sync(flush).unwrap();
    }
}
