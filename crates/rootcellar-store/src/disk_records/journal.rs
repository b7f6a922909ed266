//! The log and the database as one: where a change goes, and when it goes on.

use std::path::Path;
use std::sync::Arc;

use super::database::Database;
use super::fold::{Fold, Folded, Folder};
use super::log::{Chain, End, Log, Mark};
use super::logged::{Late, Logged};
use super::recent::Recent;
use super::uses::Uses;
use super::writer::Change;
use crate::io::Disk;
use crate::{ByteCounter, Error, ErrorKind, Result};

/// One writer's. All calls block.
pub(super) struct Journal {
    parts: Parts,
    log: Log,
    /// Whether the kernel may have dropped what it could not write to the log: a later sync that succeeds says nothing of it.
    is_log_doubtful: bool,
    folder: Box<dyn Folder>,
}

/// What a journal shares with readers, and its bounds.
pub(super) struct Parts {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) database: Arc<Database>,
    pub(super) logged: Arc<Logged>,
    pub(super) recent: Arc<Recent>,
    pub(super) uses: Arc<Uses>,
    /// The bound on the records in the database.
    pub(super) bytes_max: u64,
    pub(super) log_bytes_max: u64,
    pub(super) file_bytes: ByteCounter,
}

impl Journal {
    /// Opens the log beside the database, and takes what an earlier process left in it into the database. Where there is no room for that, it
    /// stays in the log, and can be read.
    pub(super) fn open(path: &Path, parts: Parts, folder: Box<dyn Folder>) -> Result<Self> {
        let failed = |error| Error::io("open records", path.display().to_string(), error);
        let log = Log::open(&*parts.disk, path, parts.log_bytes_max).map_err(failed)?;
        let mark = parts.database.log_mark("open records")?;
        let left = mark.map_or(Ok(Vec::new()), |mark| log.read(mark)).map_err(failed)?;
        let mut journal = Self {
            parts,
            log,
            is_log_doubtful: false,
            folder,
        };
        journal.parts.logged.add(left, || journal.parts.uses.stamp());
        // Even if there is nothing: a chain that an earlier process wrote with must not be written with again, and the bound may be lower now.
        match journal.fold(Vec::new()) {
            Err(error) if error.kind() == ErrorKind::Exhausted => {
                tracing::warn!(%error, "there is no room for records; they can only be read until there is");
                Ok(journal)
            }
            outcome => outcome.map(|()| journal),
        }
    }

    /// Makes changes: they survive the process when this returns, and a power cut if `is_synced`. After an error each of them was made or not.
    pub(super) fn write(&mut self, changes: Vec<Change>, is_synced: bool) -> Result<()> {
        if let Some(folded) = self.folder.poll() {
            self.take_out(folded);
        }
        if changes.is_empty() {
            return Ok(());
        }
        match self.append(&changes, is_synced) {
            Ok(true) => {
                let keys: Vec<_> = changes.iter().map(|change| change.key().clone()).collect();
                self.parts.logged.add(changes, || self.parts.uses.stamp());
                self.parts.recent.forget(keys.iter().map(|key| &**key));
                self.fold_behind();
                Ok(())
            }
            Ok(false) => self.fold(changes),
            Err(error) => self.do_without_log(&error, changes),
        }
    }

    /// Appends changes to the log, if there is room now or after what is under way.
    fn append(&mut self, changes: &[Change], is_synced: bool) -> std::io::Result<bool> {
        let mut is_in = self.log.append(changes)?;
        if !is_in && let Some(folded) = self.folder.wait() {
            self.take_out(folded);
            is_in = self.log.append(changes)?;
        }
        if is_in && is_synced {
            self.log.sync()?;
        }
        Ok(is_in)
    }

    /// Makes everything that was written durable.
    pub(super) fn sync(&mut self) -> Result<()> {
        if self.is_log_doubtful {
            return self.fold(Vec::new());
        }
        match self.log.sync() {
            Ok(()) => Ok(()),
            Err(error) => self.do_without_log(&error, Vec::new()),
        }
    }

    /// Makes these changes, and everything durable: in the database, or as it is.
    pub(super) fn close(&mut self, changes: Vec<Change>) -> Result<()> {
        let outcome = self.fold(changes);
        if outcome.is_err()
            && let Err(error) = self.log.sync()
        {
            tracing::error!(%error, "nor could the log of records be written");
        }
        outcome
    }

    /// Whether there is something to look after, soon.
    pub(super) fn is_folding(&self) -> bool {
        self.folder.is_busy()
    }

    /// The kernel may have dropped what it could not write. All of it is in memory, and goes into the database instead.
    fn do_without_log(&mut self, error: &std::io::Error, changes: Vec<Change>) -> Result<()> {
        let path = self.parts.database.path().display();
        tracing::warn!(%error, records = %path, "the log of records could not be written, its records go into the database now");
        self.is_log_doubtful = true;
        self.log.give_up();
        self.fold(changes)
    }

    /// Begins to take what is logged into the database, if it is time for that.
    fn fold_behind(&mut self) {
        if !self.log.is_half_full() {
            return;
        }
        if let Some(folded) = self.folder.poll() {
            self.take_out(folded);
        }
        let end = self.log.end();
        if !self.log.is_half_full() || self.folder.is_busy() {
            return;
        }
        let fold = self.fold_until(end, self.log.mark(end));
        if let Err(error) = self.folder.start(fold) {
            tracing::warn!(%error, "records stay in their log for longer");
        }
    }

    fn fold_until(&self, end: End, mark: Mark) -> Fold {
        Fold {
            database: self.parts.database.clone(),
            uses: self.parts.uses.clone(),
            bytes_max: self.parts.bytes_max,
            changes: self.parts.logged.all(),
            mark,
            until: (end, self.parts.uses.stamp()),
        }
    }

    /// What was taken into the database is no longer in the log.
    fn take_out(
        &mut self,
        Folded {
            until: (end, stamp),
            evicted,
        }: Folded,
    ) {
        match evicted {
            Ok(evicted) => {
                self.log.take_until(end);
                self.parts.logged.forget_before(stamp);
                self.parts.recent.forget(evicted.iter().map(Vec::as_slice));
            }
            Err(error) => {
                tracing::warn!(%error, "records could not be taken from their log into the database");
                self.distrust();
            }
        }
        self.measure();
    }

    /// Whether the database has the new mark, or what it evicted, nobody knows.
    fn distrust(&mut self) {
        self.log.give_up();
        self.parts.recent.clear();
    }

    /// Takes all that is logged, these changes and the noted uses into the database, durably, and begins the log again. After an error what was
    /// logged still is.
    pub(super) fn fold(&mut self, changes: Vec<Change>) -> Result<()> {
        if let Some(folded) = self.folder.wait() {
            self.take_out(folded);
        }
        let random = self.parts.disk.random();
        let random = random.map_err(|error| Error::io("write record", "choosing a seed", error))?;
        let (seed, _) = random.split_first_chunk().expect("16 bytes are more than 8");
        let chain = Chain::from_le_bytes(*seed);
        let mut fold = self.fold_until(self.log.end(), Mark { at: 0, chain });
        let changed: Vec<_> = changes.iter().map(|change| change.key().clone()).collect();
        for change in changes {
            let (key, late) = Late::of(change, self.parts.uses.stamp());
            fold.changes.insert(key, late);
        }
        let Folded { evicted, .. } = fold.run();
        let outcome = match evicted {
            Ok(evicted) => {
                self.log.begin(chain);
                self.is_log_doubtful = false;
                self.parts.logged.clear();
                let evicted = evicted.iter().map(Vec::as_slice);
                self.parts
                    .recent
                    .forget(changed.iter().map(|key| &**key).chain(evicted));
                Ok(())
            }
            Err(error) => {
                self.distrust();
                Err(error)
            }
        };
        self.measure();
        outcome
    }

    /// Tells the size of the files to whoever counts it.
    fn measure(&self) {
        let database_bytes = self.parts.database.file_bytes();
        match database_bytes.and_then(|bytes| Ok(bytes + self.log.file_bytes()?)) {
            Ok(bytes) => self.parts.file_bytes.set(bytes),
            Err(error) => tracing::warn!(%error, "the size of the records' files is not known"),
        }
    }
}
