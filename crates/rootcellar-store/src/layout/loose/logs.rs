//! The logs of loose blobs: cut into pieces, so that what is out of date can be given up piece by piece.
//!
//! ```text
//! loose.logs/00000003.log     older ones, oldest first
//! loose.logs/00000007.log     the one that is written
//! ```
//!
//! They are read in the order of their numbers. A file's name may be used again after the file is gone, so that order matters:
//! the last entry about a name is right. The oldest log is given up after what of it still holds was written to the one that is
//! open: an entry that says that a blob is gone is about the same log or an older one, so it need not be kept.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rootcellar_digest::Digest;

use crate::byte_counter::Share;
use crate::layout::Ground;
use crate::layout::Trust;
use crate::layout::log::{BlobEntry, ENTRY_BYTES_MAX, Entry, LogBook, LogKind, LogText};
use crate::{Error, Result};

/// A log is cut at this size: 60,000 blobs.
const LOG_BYTES: u64 = 4 << 20;
/// What is reserved ahead of the entries of new blobs, so that on a disk that is full there is room to write down what is gone: a
/// few hundred entries. In a small store a part of its size.
const AHEAD_BYTES: u64 = 64 << 10;
const AHEAD_PART: u64 = 64;
/// Logs that lie there before the oldest is given up, however little in it is out of date: one for each start.
const LOGS_MAX: usize = 64;
/// Entries out of date that are never worth the work.
const ENTRIES_SPARED: u64 = 16 * 1024;

/// The logs there are, and the one that is open.
#[derive(Debug)]
pub(super) struct LooseLogs {
    book: LogBook,
    ahead_bytes: u64,
    /// Guards which logs there are. Held while entries are written.
    state: Mutex<State>,
    /// What the logs take on the disk.
    share: Share,
}

#[derive(Debug, Default)]
struct State {
    /// The entries of each log.
    logs: BTreeMap<u32, u64>,
    open: Option<u32>,
    next_number: u32,
    live: u64,
}

/// What was last said of a name that is gone.
#[derive(Debug, Clone, Copy)]
struct Gone {
    /// The log, and the position in it.
    at: (u32, u64),
    /// Whether the file is gone for sure.
    is_certain: bool,
}

impl LooseLogs {
    pub(super) fn open(ground: &Ground) -> io::Result<Self> {
        let dir = ground.dir.join("loose.logs");
        ground.disk.make_dir(&dir)?;
        let mut state = State::default();
        for name in ground.disk.list(&dir)? {
            match parse_name(&name.name) {
                Some(number) => {
                    state.logs.insert(number, 0);
                }
                None => tracing::warn!(dir = %dir.display(), name = name.name, "leaving alone what is no log"),
            }
        }
        state.next_number = state.logs.last_key_value().map_or(1, |(last, _)| last + 1);
        Ok(Self {
            book: LogBook::new(ground, dir, LogKind::Loose),
            ahead_bytes: AHEAD_BYTES.min(ground.bytes_max / AHEAD_PART),
            state: Mutex::new(state),
            share: ground.bytes.share(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads all logs, oldest first, and tells of every blob that was stored and is not gone: its entry, the entry's position, and
    /// the log. Then tells `left` of those that are gone, but whose files may be there again after a power cut. The outcome is the
    /// number of damaged slots.
    pub(super) fn replay(
        &self,
        mut tell: impl FnMut(&LogText, u64, &BlobEntry),
        mut left: impl FnMut(&Digest),
    ) -> Result<u64> {
        let mut state = self.state();
        let mut gone = self.last_gone(&state)?;
        let mut damaged_slots = 0;
        for (number, entries) in &mut state.logs {
            let log = self.book.read(*number)?;
            for (position, entry) in log.entries() {
                *entries += 1;
                let Entry::Stored(blob) = entry else {
                    continue;
                };
                let name = (blob.digest, blob.offset);
                if gone.get(&name).is_none_or(|gone| gone.at < (*number, position)) {
                    tell(&log, position, &blob);
                    gone.remove(&name);
                }
            }
            damaged_slots += log.damaged_slots();
            self.share.add(log.end());
        }
        let uncertain = gone.iter().filter(|(_, gone)| !gone.is_certain);
        uncertain.for_each(|((digest, _), _)| left(digest));
        // A process that was killed has given nothing back.
        if let Some((last, _)) = state.logs.last_key_value() {
            let trimmed = self.book.trim(*last);
            trimmed.map_err(|error| Error::io("open", "giving back what was reserved for a log", error))?;
        }
        Ok(damaged_slots)
    }

    /// Gives back what is reserved: nothing is written any more.
    pub(super) fn end(&self) -> io::Result<()> {
        let open = self.state().open;
        open.map_or(Ok(()), |number| self.trim(number))
    }

    fn trim(&self, number: u32) -> io::Result<()> {
        let before = self.book.taken(number);
        self.book.trim(number)?;
        self.share.subtract(before - self.book.taken(number));
        Ok(())
    }

    /// Where each name was last said to be gone.
    fn last_gone(&self, state: &State) -> Result<HashMap<(Digest, u32), Gone>> {
        let mut gone = HashMap::new();
        for number in state.logs.keys() {
            let log = self.book.text(*number)?;
            for (position, entry) in log.entries() {
                if let Entry::Gone(blob) = entry {
                    let (at, is_certain) = ((*number, position), log.trust(position) == Trust::Certain);
                    gone.insert((blob.digest, blob.offset), Gone { at, is_certain });
                }
            }
        }
        Ok(gone)
    }

    /// Bytes of the disk that an append takes beyond the entries themselves, at the most.
    pub(super) fn growth(&self) -> u64 {
        2 * self.ahead_bytes
    }

    /// Says how many of the blobs that were read are there.
    pub(super) fn set_live(&self, live: u64) {
        self.state().live = live;
    }

    /// Says that nothing that was read is doubtful any more.
    pub(super) fn settle(&self) {
        for number in self.state().logs.keys() {
            self.book.settle(*number);
        }
    }

    /// Appends entries of new blobs.
    pub(super) fn append(&self, entries: &[Entry]) -> io::Result<()> {
        let mut state = self.state();
        state.reserve(self, entries.len())?;
        state.append(self, entries).map(drop)
    }

    /// Appends what is gone, and makes the log durable.
    pub(super) fn append_durably(&self, entries: &[Entry]) -> io::Result<()> {
        let number = self.state().append(self, entries)?;
        self.book.flush(number)
    }

    pub(super) fn sync(&self, sync_files: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.book.sync(|_| sync_files())
    }

    /// If too much in all logs is out of date, writes what still holds of the oldest once more, and tells its number: it can
    /// [go](Self::give_up) after a sync.
    pub(super) fn renew_oldest(&self, is_live: impl Fn(&Digest, u32) -> bool) -> io::Result<Option<u32>> {
        // What is doubtful would look certain in a new log.
        if self.book.is_doubtful() {
            return Ok(None);
        }
        let mut state = self.state();
        let Some(oldest) = state.worth_giving_up() else {
            return Ok(None);
        };
        let text = self.book.text(oldest).map_err(io::Error::other)?;
        let holds = |entry: &Entry| matches!(entry, Entry::Stored(blob) if is_live(&blob.digest, blob.offset));
        let entries: Vec<Entry> = text.entries().map(|(_, entry)| entry).filter(holds).collect();
        state.write(self, &entries)?;
        Ok(Some(oldest))
    }

    /// Gives up a log of which everything that holds is durable elsewhere.
    pub(super) fn give_up(&self, number: u32) -> io::Result<()> {
        let bytes = self.book.taken(number);
        self.book.remove(number)?;
        self.share.subtract(bytes);
        self.state().logs.remove(&number);
        Ok(())
    }
}

impl State {
    fn append(&mut self, logs: &LooseLogs, entries: &[Entry]) -> io::Result<u32> {
        let number = self.write(logs, entries)?;
        for entry in entries {
            match entry {
                Entry::Stored(_) => self.live += 1,
                Entry::Gone(_) => self.live = self.live.saturating_sub(1),
                Entry::Mark { .. } => {}
            }
        }
        Ok(number)
    }

    /// Reserves room for entries to come, and some beyond it.
    fn reserve(&mut self, logs: &LooseLogs, entries: usize) -> io::Result<()> {
        let number = self.open(logs)?;
        let before = logs.book.taken(number);
        let wanted = logs.book.end(number) + (entries * ENTRY_BYTES_MAX) as u64 + logs.ahead_bytes;
        if wanted > before {
            logs.book.reserve(number, wanted + logs.ahead_bytes)?;
            logs.share.add(logs.book.taken(number) - before);
        }
        Ok(())
    }

    fn write(&mut self, logs: &LooseLogs, entries: &[Entry]) -> io::Result<u32> {
        let number = self.open(logs)?;
        let before = logs.book.taken(number);
        logs.book.append(number, entries)?;
        logs.share.add(logs.book.taken(number) - before);
        *self.logs.entry(number).or_default() += entries.len() as u64;
        Ok(number)
    }

    /// The log that is open, or the next if it is full.
    fn open(&mut self, logs: &LooseLogs) -> io::Result<u32> {
        if let Some(number) = self.open.filter(|number| logs.book.end(*number) < LOG_BYTES) {
            return Ok(number);
        }
        if let Some(full) = self.open.take() {
            logs.trim(full)?;
        }
        let number = self.next_number;
        self.next_number += 1;
        logs.book.create(number)?;
        self.logs.insert(number, 0);
        Ok(*self.open.insert(number))
    }

    fn worth_giving_up(&mut self) -> Option<u32> {
        let entries: u64 = self.logs.values().sum();
        if self.logs.len() <= LOGS_MAX && entries <= 2 * self.live + ENTRIES_SPARED {
            return None;
        }
        let (oldest, _) = self.logs.first_key_value()?;
        if self.open == Some(*oldest) {
            self.open = None;
        }
        Some(*oldest)
    }
}

/// The number of the log with this name. `None` for names that are not ours.
fn parse_name(name: &str) -> Option<u32> {
    let number: u32 = name.strip_suffix(".log")?.parse().ok()?;
    (format!("{number:08}.log") == name && number > 0).then_some(number)
}
