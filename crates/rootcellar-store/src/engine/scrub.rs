//! The scrub: everything stored is read again now and then, slowly, to find what has rotted while it is still known elsewhere.
//!
//! A pass takes one part after the other: each region, and then what lies alone, by the first byte of its hash. Blobs are compared with
//! their checksums. What is damaged is dropped, counted and logged with its digest. A pass that is interrupted goes on at the next start
//! with the part that it was in.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rootcellar_digest::Digest;

use super::core::Engine;
use super::index::{Entry, Flags};
use super::lanes::Next;
use super::options::Scrub;
use super::statistics::ScrubProgress;
use crate::blob::is_damage;
use crate::checksum::Checksummer;
use crate::layout::{Extent, Place, Region};

/// Bytes read in one step.
const STEP_BYTES: u64 = 1 << 20;
const PIECE_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct ScrubState {
    last_end: SystemTime,
    pass: Option<Pass>,
    /// Where an earlier process was in its pass.
    interrupted: Option<Part>,
    passes: u64,
    scrubbed_blobs: u64,
    blobs: u64,
}

/// What is left of a pass.
#[derive(Debug)]
struct Pass {
    /// Those that come first last, the one that was begun aside.
    parts: Vec<Part>,
    begun: Option<Part>,
    /// Blobs of the part that was begun, those that come first last.
    blobs: Vec<(Digest, Entry)>,
    /// A blob that is read over several steps.
    reading: Option<Reading>,
    /// When the last step was, and the pause behind it that keeps the rate.
    rest: (SystemTime, Duration),
}

/// A part of the store, in the order of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Region(Region),
    /// What lies alone and has a hash with this first byte.
    Alone(u8),
}

/// The number of the first part that lies alone: no region has it.
const ALONE_FROM: u32 = 1 << 24;

impl Part {
    fn of(digest: &Digest, place: Place) -> Self {
        match place.region() {
            Region::ALONE => Self::Alone(digest.hash()[0]),
            region => Self::Region(region),
        }
    }

    /// What stands for it in the file of uses; never zero.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Region(region) => region.number(),
            Self::Alone(byte) => ALONE_FROM + u32::from(byte),
        }
    }

    /// The part with a number. `None` if there is none.
    pub(super) fn numbered(number: u32) -> Option<Self> {
        match number.checked_sub(ALONE_FROM) {
            Some(byte) => Some(Self::Alone(u8::try_from(byte).ok()?)),
            None => Region::new(number)
                .filter(|region| *region != Region::ALONE)
                .map(Self::Region),
        }
    }
}

#[derive(Debug)]
struct Reading {
    digest: Digest,
    entry: Entry,
    extent: Extent,
    checksummer: Checksummer,
    at: u64,
}

impl ScrubState {
    pub(super) fn new(last_end: SystemTime, interrupted: Option<Part>) -> Self {
        Self {
            last_end,
            pass: None,
            interrupted,
            passes: 0,
            scrubbed_blobs: 0,
            blobs: 0,
        }
    }

    /// When the last pass ended, and the part that the next one is in, if it is under way.
    pub(super) fn to_remember(&self) -> (SystemTime, Option<Part>) {
        let under_way = self.pass.as_ref().and_then(|pass| pass.begun);
        (self.last_end, under_way.or(self.interrupted))
    }

    pub(super) fn progress(&self) -> ScrubProgress {
        ScrubProgress {
            passes: self.passes,
            scrubbed_blobs: self.scrubbed_blobs,
            blobs: self.blobs,
        }
    }
}

impl Engine {
    /// Reads a little of what is stored, if a pass is under way or due. Says when to go on.
    pub(super) fn step_scrub(&self) -> Next {
        let Some(scrub) = self.scrub else {
            return Next::Idle;
        };
        let pass = self.upkeep().scrub.pass.take();
        let mut pass = match pass {
            Some(pass) => {
                // The lane may have been woken for something else.
                if let Some(left) = self.left_of(pass.rest) {
                    self.upkeep().scrub.pass = Some(pass);
                    return Next::After(left);
                }
                pass
            }
            None => match self.until_scrub(&scrub) {
                Some(left) => return Next::After(left),
                None => self.begin_pass(),
            },
        };
        let Some(bytes) = self.scrub_some(&mut pass) else {
            self.end_pass();
            return Next::Again;
        };
        let pause = Duration::from_secs_f64(bytes as f64 / scrub.bytes_per_second.max(1) as f64);
        pass.rest = (self.now(), pause);
        self.upkeep().scrub.pass = Some(pass);
        Next::After(pause)
    }

    /// What is left of a pause. None if the clock was turned back.
    fn left_of(&self, (since, pause): (SystemTime, Duration)) -> Option<Duration> {
        let waited = self.now().duration_since(since).ok()?;
        pause.checked_sub(waited).filter(|left| !left.is_zero())
    }

    fn until_scrub(&self, scrub: &Scrub) -> Option<Duration> {
        if self.upkeep().scrub.interrupted.is_some() {
            return None;
        }
        let since = self
            .now()
            .duration_since(self.upkeep().scrub.last_end)
            .unwrap_or_default();
        scrub.interval.checked_sub(since).filter(|left| !left.is_zero())
    }

    fn begin_pass(&self) -> Pass {
        let first = self.upkeep().scrub.interrupted.take();
        let (mut parts, mut blobs, mut scrubbed_blobs) = (BTreeSet::new(), 0, 0);
        self.index.scan(|seen| {
            blobs += 1;
            let part = Part::of(&seen.digest, seen.entry.place);
            if Some(part) < first {
                scrubbed_blobs += 1;
            } else {
                parts.insert(part);
            }
        });
        match first {
            None => tracing::info!(blobs, "the scrub begins a pass"),
            Some(_) => tracing::info!(blobs, scrubbed_blobs, "the scrub goes on with a pass"),
        }
        let scrub = &mut self.upkeep().scrub;
        (scrub.blobs, scrub.scrubbed_blobs) = (blobs, scrubbed_blobs);
        Pass {
            parts: parts.into_iter().rev().collect(),
            begun: first,
            blobs: Vec::new(),
            reading: None,
            rest: (self.now(), Duration::ZERO),
        }
    }

    fn end_pass(&self) {
        let now = self.now();
        let scrub = &mut self.upkeep().scrub;
        tracing::info!(blobs = scrub.scrubbed_blobs, "the scrub has ended a pass");
        scrub.passes += 1;
        scrub.last_end = now;
        (scrub.blobs, scrub.scrubbed_blobs) = (0, 0);
        self.has_new_uses.store(true, Ordering::Relaxed);
    }

    /// Reads about [`STEP_BYTES`]. Tells how many it read; `None` if nothing is left.
    fn scrub_some(&self, pass: &mut Pass) -> Option<u64> {
        let mut bytes = 0;
        while bytes < STEP_BYTES {
            if let Some(reading) = pass.reading.take() {
                let (read, left) = self.read_on(reading);
                bytes += read;
                pass.reading = left;
                continue;
            }
            let Some((digest, entry)) = pass.blobs.pop() else {
                let part = pass.parts.pop()?;
                pass.blobs = self.blobs_of(part);
                pass.begun = Some(part);
                // For the next start to know.
                self.has_new_uses.store(true, Ordering::Relaxed);
                // The whole index was looked at, and what waits for the lane has its turn.
                return Some(bytes);
            };
            self.upkeep().scrub.scrubbed_blobs += 1;
            pass.reading = self.begin_reading(digest, entry);
            // So that many small blobs do not count as nothing.
            bytes += 512;
        }
        Some(bytes)
    }

    fn blobs_of(&self, part: Part) -> Vec<(Digest, Entry)> {
        let mut blobs = Vec::new();
        self.index.scan(|seen| {
            if Part::of(&seen.digest, seen.entry.place) == part {
                blobs.push((seen.digest, seen.entry));
            }
        });
        blobs.sort_unstable_by_key(|(digest, entry)| std::cmp::Reverse((entry.place.offset(), *digest)));
        blobs
    }

    fn begin_reading(&self, digest: Digest, entry: Entry) -> Option<Reading> {
        // It may have been moved or evicted since the part was begun.
        self.index.get(&digest).filter(|now| now.place == entry.place)?;
        if !entry.flags.has(Flags::CHECKSUMMED) {
            // What is damaged is dropped, and told in the log.
            let _checked = self.check_first(digest);
            return None;
        }
        match self.layout.open(&digest, entry.place) {
            Ok(extent) => Some(Reading {
                digest,
                entry,
                extent,
                checksummer: Checksummer::default(),
                at: 0,
            }),
            Err(error) => {
                self.note_unreadable(digest, entry, &error);
                None
            }
        }
    }

    /// Reads a piece of a blob, and what is left to read then.
    fn read_on(&self, mut reading: Reading) -> (u64, Option<Reading>) {
        let Reading { digest, entry, .. } = reading;
        let left = digest.size_bytes() - reading.at;
        let len = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let mut piece = vec![0; len];
        if let Err(error) = reading.extent.file.read_at(&mut piece, reading.extent.at + reading.at) {
            self.note_unreadable(digest, entry, &error);
            return (len as u64, None);
        }
        reading.checksummer.update(&piece);
        reading.at += len as u64;
        if reading.at < digest.size_bytes() {
            return (len as u64, Some(reading));
        }
        if reading.checksummer.finish() != entry.checksum {
            self.drop_damaged(digest, entry.place, "its checksum is not what it was");
        }
        (len as u64, None)
    }

    fn note_unreadable(&self, digest: Digest, entry: Entry, error: &io::Error) {
        if is_damage(error) || error.kind() == io::ErrorKind::NotFound {
            self.look_again(digest, entry);
        } else {
            tracing::warn!(%digest, %error, "the scrub cannot read a blob now");
        }
    }
}
