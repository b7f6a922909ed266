//! Checking a store that nobody uses: everything that its logs speak of is read and hashed.
//!
//! Without repair nothing is changed: the store is opened on a disk that only pretends to. What a start would do by itself (removing
//! what a crash has left, dropping what a power cut has torn) is told, and done when repairing.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rootcellar_digest::Digest;

use crate::blob::is_damage;
use crate::budget::Budget;
use crate::engine::check::{Check, check};
use crate::engine::home::{Home, layout_of};
use crate::engine::index::{Entry, Flags, Index};
use crate::io::{Disk, DryRunDisk, OsDisk};
use crate::layout::{Ground, Layout, Place, Region, Stored, Trust, kind_named};
use crate::{ByteCounter, Error, ErrorKind, Result};

/// How a store is checked.
#[derive(Debug, Clone)]
pub struct FsckOptions {
    /// Whether damaged blobs are dropped, and what a crash has left is removed.
    pub repair: bool,
    /// The disk. Anything but the operating system's is for tests.
    pub disk: Arc<dyn Disk>,
}

impl Default for FsckOptions {
    fn default() -> Self {
        Self {
            repair: false,
            disk: Arc::new(OsDisk),
        }
    }
}

/// What was found in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsckReport {
    /// The store's layout.
    pub layout: String,
    /// Whether the last process ended in good order.
    pub was_closed: bool,
    /// Blobs that are whole.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the disk that blobs and logs take.
    pub disk_bytes: u64,
    /// Blobs that lie in two places, as after a crash while blobs were moved. No harm.
    pub twice: u64,
    /// Blobs that cannot be read or are not what their digests say, and why.
    pub damaged: Vec<(Digest, String)>,
    /// Blobs that a power cut has torn. They were never reported present since.
    pub torn: Vec<Digest>,
    /// Slots of logs that are not what was written: what they spoke of is missing.
    pub damaged_log_slots: u64,
    /// Files that no log speaks of: what a crash has left.
    pub orphans: Vec<PathBuf>,
}

impl FsckReport {
    /// Whether everything that should be there is, and nothing else.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.torn.is_empty() && self.damaged_log_slots == 0 && self.orphans.is_empty()
    }
}

impl fmt::Display for FsckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layout, blobs, .. } = self;
        writeln!(f, "layout             {layout}")?;
        writeln!(f, "closed in order    {}", if self.was_closed { "yes" } else { "no" })?;
        writeln!(
            f,
            "whole blobs        {blobs}, {} bytes, on {} bytes of disk",
            self.bytes, self.disk_bytes
        )?;
        writeln!(f, "stored twice       {}", self.twice)?;
        writeln!(f, "damaged blobs      {}", self.damaged.len())?;
        writeln!(f, "torn blobs         {}", self.torn.len())?;
        writeln!(f, "damaged log slots  {}", self.damaged_log_slots)?;
        writeln!(f, "orphaned files     {}", self.orphans.len())?;
        for (digest, reason) in &self.damaged {
            writeln!(f, "damaged: {digest}: {reason}")?;
        }
        for digest in &self.torn {
            writeln!(f, "torn: {digest}")?;
        }
        for path in &self.orphans {
            writeln!(f, "orphan: {}", path.display())?;
        }
        Ok(())
    }
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsckProgress {
    /// Blobs that were read.
    pub blobs: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// About how many there are in all.
    pub bytes_in_all: u64,
}

/// Checks the store in `dir`, which nobody may use meanwhile. Blocks, for as long as reading all of it takes.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if a process uses the store; [`ErrorKind::InvalidArgument`] if there is none, or one of another version;
/// I/O errors that say nothing about single blobs.
pub fn fsck(dir: &Path, options: &FsckOptions, mut progress: impl FnMut(FsckProgress)) -> Result<FsckReport> {
    let dry_run = Arc::new(DryRunDisk::new(options.disk.clone()));
    let mut subject = Subject::open(dry_run.clone(), dir)?;
    let mut findings = Findings::new(&*options.disk, dir)?;
    subject.check(&mut findings, &mut progress)?;
    subject.find_orphans(&findings)?;
    // What lies in the directory itself are the store's own notes, such as `closed`, which a start takes away.
    let is_orphan = |path: &PathBuf| path.parent() != Some(dir);
    let report = FsckReport {
        orphans: dry_run.removed().into_iter().filter(is_orphan).collect(),
        ..subject.report
    };
    drop(subject.home);
    if options.repair {
        Subject::open(options.disk.clone(), dir)?.repair(&findings)?;
    }
    Ok(report)
}

/// A store under examination.
struct Subject {
    home: Home,
    layout: Box<dyn Layout>,
    budget: Budget,
    regions: Vec<Region>,
    report: FsckReport,
}

/// What is known of each blob.
struct Findings {
    whole: Index,
    /// The other places of blobs that lie in two.
    twice: HashSet<(Digest, Place)>,
    /// What is to be given up.
    bad: HashSet<(Digest, Place)>,
}

impl Findings {
    fn new(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        let random = disk.random();
        let random =
            random.map_err(|error| Error::io("open", format!("{}: asking for randomness", dir.display()), error))?;
        Ok(Self {
            whole: Index::new(random),
            twice: HashSet::new(),
            bad: HashSet::new(),
        })
    }

    fn is_live(&self, digest: &Digest, place: Place) -> bool {
        let is_whole = self.whole.get(digest).is_some_and(|entry| entry.place == place);
        let key = (*digest, place);
        is_whole || self.twice.contains(&key) || self.bad.contains(&key)
    }
}

impl Subject {
    fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self> {
        let Some(name) = layout_of(&*disk, dir)? else {
            let reason = format!("{}: there is no store here: no FORMAT file", dir.display());
            return Err(Error::new(ErrorKind::InvalidArgument, "open", reason));
        };
        let home = Home::claim(&disk, dir, &name)?;
        let kind = kind_named(&name).ok_or_else(|| {
            let reason = format!("{}: the layout {name:?} is not one of this program's", dir.display());
            Error::new(ErrorKind::InvalidArgument, "open", reason)
        })?;
        let budget = Budget::new(u64::MAX, ByteCounter::default());
        let layout = kind.open(&Ground {
            disk,
            dir: dir.to_owned(),
            store: home.id(),
            boot: home.boot(),
            is_cache_whole: home.is_cache_whole(),
            // So that everything is looked for that a crash can have left.
            was_closed: false,
            is_synced: true,
            bytes_max: u64::MAX,
            bytes: budget.layout.clone(),
        })?;
        let report = FsckReport {
            layout: name,
            was_closed: home.was_closed(),
            ..FsckReport::default()
        };
        Ok(Self {
            regions: layout.sizes().into_iter().map(|size| size.region).collect(),
            home,
            layout,
            budget,
            report,
        })
    }

    /// Reads all blobs, a region at a time, in the order of the disk.
    fn check(&mut self, findings: &mut Findings, progress: &mut impl FnMut(FsckProgress)) -> Result<()> {
        let (mut blobs, mut bytes) = (0, 0);
        for region in self.regions.clone() {
            let mut stored: Vec<Stored> = Vec::new();
            self.report.damaged_log_slots += self.layout.replay(region, &mut |blob| stored.push(blob))?;
            stored.sort_unstable_by_key(|blob| (blob.place.offset(), blob.digest));
            stored.dedup_by_key(|blob| (blob.digest, blob.place));
            for blob in &stored {
                self.check_one(blob, findings)?;
                (blobs, bytes) = (blobs + 1, bytes + blob.digest.size_bytes());
                let bytes_in_all = self.budget.layout.bytes();
                progress(FsckProgress {
                    blobs,
                    bytes,
                    bytes_in_all,
                });
            }
        }
        self.report.disk_bytes = self.budget.layout.bytes();
        Ok(())
    }

    fn check_one(&mut self, blob: &Stored, findings: &mut Findings) -> Result<()> {
        if blob.trust == Trust::Lost {
            self.report.torn.push(blob.digest);
            findings.bad.insert((blob.digest, blob.place));
            return Ok(());
        }
        let outcome = self.layout.open(&blob.digest, blob.place);
        let outcome = match outcome.and_then(|extent| check(blob.digest, &extent)) {
            Ok(outcome) => outcome,
            Err(error) if is_damage(&error) || error.kind() == io::ErrorKind::NotFound => {
                Check::Damaged(error.to_string())
            }
            Err(error) => return Err(Error::io("fsck", "reading a blob", error).on(blob.digest)),
        };
        match outcome {
            Check::Whole(checksum) => return self.note_whole(blob, checksum, findings),
            Check::Damaged(reason) if blob.trust == Trust::Certain => self.report.damaged.push((blob.digest, reason)),
            Check::Damaged(_) => self.report.torn.push(blob.digest),
        }
        findings.bad.insert((blob.digest, blob.place));
        Ok(())
    }

    fn note_whole(&mut self, blob: &Stored, checksum: u32, findings: &mut Findings) -> Result<()> {
        let entry = Entry {
            place: blob.place,
            checksum,
            used: blob.used,
            flags: Flags::VERIFIED,
        };
        if let Some(other) = findings.whole.insert(&blob.digest, entry)? {
            findings.twice.insert((blob.digest, other.place));
            self.report.twice += 1;
        } else {
            self.report.blobs += 1;
            self.report.bytes += blob.digest.size_bytes();
        }
        Ok(())
    }

    /// Has files removed that no log speaks of.
    fn find_orphans(&self, findings: &Findings) -> Result<()> {
        let failed = |error| Error::io("fsck", "looking for what a crash has left", error);
        let is_live = |digest: &Digest, place| findings.is_live(digest, place);
        self.layout.sync().map_err(failed)?;
        while self.layout.tidy(&is_live).map_err(failed)? {
            self.layout.sync().map_err(failed)?;
        }
        Ok(())
    }

    /// Drops what is bad, and removes what a crash has left.
    fn repair(self, findings: &Findings) -> Result<()> {
        let failed = |error| Error::io("fsck", "repairing", error);
        for region in &self.regions {
            self.layout.replay(*region, &mut |_| {})?;
        }
        let bad: Vec<(Digest, Place)> = findings.bad.iter().copied().collect();
        self.layout.remove(&bad).map_err(failed)?;
        for region in &self.regions {
            self.layout.settle(*region);
        }
        self.find_orphans(findings)?;
        self.layout.end().map_err(failed)?;
        // Once more, for the marks that the first one leaves.
        self.layout.sync().and_then(|()| self.layout.sync()).map_err(failed)?;
        if !self.home.is_cache_whole() {
            // The machine has to be started again before everything can be looked for.
            return Ok(());
        }
        self.home.note_closed().map_err(failed)
    }
}
