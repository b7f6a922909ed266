//! Reading a log: what of it is whole, and what of that is certain.

use std::path::Path;

use super::slot::{BlobEntry, Entry, HEADER_BYTES, Header, HeaderFault, LogKind, SLOT_BYTES, seed};
use crate::io::read_small;
use crate::layout::{Ground, Place, Stored, Trust};
use crate::{Error, ErrorKind, Result};

/// Logs are cut at less, so a longer file is none.
const LOG_BYTES_MAX: u64 = 256 << 20;

/// A log in memory.
#[derive(Debug)]
pub(crate) struct LogText {
    seed: u64,
    bytes: Vec<u8>,
    /// How far what no mark speaks of can be believed.
    trust: Trust,
    /// Behind the last whole entry.
    end: u64,
    /// What the last mark says to be durable.
    marked: u64,
    damaged_slots: u64,
    /// Whether its writer acknowledged only what was durable.
    is_promised: bool,
}

impl BlobEntry {
    /// What this entry at `position` of `log` says of a stored blob.
    pub(crate) fn stored(&self, place: Place, log: &LogText, position: u64) -> Stored {
        Stored {
            digest: self.digest,
            place,
            checksum: Some(self.checksum),
            used: self.used,
            trust: log.trust(position),
            is_promised: log.is_promised,
        }
    }
}

impl LogText {
    /// Reads log `number` of `kind`. Blocks.
    ///
    /// # Errors
    /// I/O errors; [`ErrorKind::InvalidArgument`] if a later version wrote it.
    pub(crate) fn read(ground: &Ground, path: &Path, kind: LogKind, number: u32) -> Result<Self> {
        let bytes = read_small(&*ground.disk, path, LOG_BYTES_MAX)
            .map_err(|error| Error::io("open", format!("reading the log {}", path.display()), error))?;
        let header = bytes.first_chunk().ok_or(HeaderFault::Unreadable);
        let header = match header.and_then(|header| Header::decode(header, kind, number, ground.store)) {
            Ok(header) => Some(header),
            Err(HeaderFault::Version(version)) => {
                let reason = format!(
                    "{}: the log has the version {version}, which this program does not know",
                    path.display()
                );
                return Err(Error::new(ErrorKind::InvalidArgument, "open", reason));
            }
            // None of its entries would count, and what they speak of would be removed.
            Err(HeaderFault::Foreign) => {
                let reason = format!(
                    "{}: the log is of another store than the one that FORMAT names ({}), or lies under another name",
                    path.display(),
                    ground.store
                );
                return Err(Error::new(ErrorKind::InvalidArgument, "open", reason));
            }
            // Its entries have checks of their own.
            Err(HeaderFault::Unreadable) => {
                tracing::warn!(path = %path.display(), "the header of a log is damaged");
                None
            }
        };
        let mut text = Self {
            seed: seed(kind, number, ground.store),
            bytes,
            trust: trust_of(ground, header.as_ref()),
            // To be on the safe side of a damaged one.
            is_promised: header.is_none_or(|header| header.is_synced),
            end: HEADER_BYTES as u64,
            marked: HEADER_BYTES as u64,
            damaged_slots: 0,
        };
        text.survey();
        Ok(text)
    }

    fn survey(&mut self) {
        let (mut end, mut marked, mut damaged_slots) = (self.end, self.marked, 0);
        for (at, len, entry) in self.slots() {
            match entry {
                // A mark speaks of what came before it.
                Some(Entry::Mark { position }) if position <= at => marked = marked.max(position),
                Some(_) => {}
                None => {
                    damaged_slots += 1;
                    continue;
                }
            }
            end = at + len as u64;
        }
        (self.end, self.marked, self.damaged_slots) = (end, marked, damaged_slots);
    }

    /// Behind the last whole entry.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Slots that are neither empty nor part of a whole entry.
    pub(crate) fn damaged_slots(&self) -> u64 {
        self.damaged_slots
    }

    /// Every whole entry with its position.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, Entry)> {
        self.slots().filter_map(|(at, _, entry)| Some((at, entry?)))
    }

    /// Every whole entry with its position and length, and every damaged slot.
    fn slots(&self) -> impl Iterator<Item = (u64, usize, Option<Entry>)> {
        let mut at = HEADER_BYTES;
        std::iter::from_fn(move || {
            loop {
                let rest = self.bytes.get(at..).filter(|rest| rest.len() >= SLOT_BYTES)?;
                let position = at as u64;
                let is_empty = rest[0] == 0;
                let found = (!is_empty).then(|| Entry::decode(self.seed, position, rest)).flatten();
                let len = found.map_or(SLOT_BYTES, |(_, len)| len);
                at += len;
                if !is_empty {
                    return Some((position, len, found.map(|(entry, _)| entry)));
                }
            }
        })
    }

    /// Whether what the entry at `position` speaks of is on the disk for sure.
    pub(crate) fn is_synced(&self, position: u64) -> bool {
        position < self.marked
    }

    /// How far it can be believed that what the entry at `position` speaks of is there.
    pub(crate) fn trust(&self, position: u64) -> Trust {
        if self.is_synced(position) {
            return Trust::Certain;
        }
        self.trust
    }

    /// Whether all entries are synced; and whether all are certain.
    pub(crate) fn is_all(&self) -> (bool, bool) {
        let is_synced = self.end <= self.marked;
        (is_synced, is_synced || self.trust == Trust::Certain)
    }
}

/// How far what a log with this header says can be believed before it is known to be synced.
fn trust_of(ground: &Ground, header: Option<&Header>) -> Trust {
    match header.map(|header| header.boot == ground.boot) {
        Some(true) if ground.is_cache_whole => Trust::Certain,
        // The page cache has only what the disk has, unless it was written under this boot.
        Some(false) => Trust::Doubtful,
        None if ground.is_cache_whole => Trust::Doubtful,
        Some(true) | None => Trust::Lost,
    }
}
