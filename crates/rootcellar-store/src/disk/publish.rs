//! One batch of blobs on its way to the disk.
//!
//! A failed sync of a file or a directory ends the store's acknowledgements, and nothing of the batch is entered. A blob that
//! fails otherwise is the only one that does.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use rootcellar_digest::Digest;

use super::loose::Staged;
use super::mark::KernelTime;
use super::put::Room;
use super::shared::Shared;
use crate::{Error, ErrorKind, Result, Verified};

/// Blobs on their way to the disk, the gate being held open.
pub(super) struct Batch<'a> {
    shared: &'a Shared,
    published: Vec<(usize, Result<Published<'a>>)>,
    failed_sync: Option<io::Error>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            published: Vec::new(),
            failed_sync: None,
        }
    }

    /// Writes and names one blob.
    pub(super) fn publish(&mut self, blob: &Verified) -> Result<Published<'a>> {
        let digest = blob.digest();
        let writing = |error| Error::io("put", "writing the blob's file", error).on(digest);
        let room = self.shared.make_room(digest)?;
        let now = self.shared.clock.now();
        let staged = self.shared.loose.stage(blob, now).map_err(writing)?;
        let staged = self.link(staged).map_err(writing)?;
        self.shared.set_dirty();
        // The index counts these bytes: until it has the blob, as reserved.
        staged.hand_over();
        let changed = staged.changed().map_err(writing)?;
        Ok(Published { digest, changed, room })
    }

    pub(super) fn push(&mut self, at: usize, outcome: Result<Published<'a>>) {
        self.published.push((at, outcome));
    }

    /// Gives staged content its name, on the disk if so chosen.
    fn link(&mut self, staged: Staged) -> io::Result<Staged> {
        self.sync_content(&staged)?;
        let loose = &self.shared.loose;
        match loose.publish(&staged) {
            Ok(()) => Ok(staged),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let copy = loose.copy_here(&staged, self.shared.clock.now())?;
                self.link(copy)
            }
            // A file that the index does not know of: it could not be removed when it was damaged or evicted.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                tracing::warn!(digest = %staged.digest(), "replacing a file that lies where a new blob belongs");
                loose.remove(staged.digest())?;
                self.link(staged)
            }
            Err(error) => Err(error),
        }
    }

    fn sync_content(&mut self, staged: &Staged) -> io::Result<()> {
        if !self.shared.is_synced {
            return Ok(());
        }
        let synced = staged.sync();
        match &synced {
            // Nobody was told that this content is stored; a full disk puts nothing else in doubt.
            Err(error) if ErrorKind::of_io(error) != ErrorKind::Exhausted => {
                self.failed_sync = Some(io::Error::new(error.kind(), error.to_string()));
            }
            _ => {}
        }
        synced
    }

    /// Makes the names of what was published durable, each directory once; or sees to it that the next start will not take
    /// them to be.
    pub(super) fn sync_names(&mut self) {
        if self.failed_sync.is_none() {
            self.failed_sync = self.try_sync_names().err();
        }
    }

    fn try_sync_names(&self) -> io::Result<()> {
        let published = self.published.iter().filter_map(|(_, outcome)| outcome.as_ref().ok());
        if !self.shared.is_synced {
            let earliest = published.map(|published| published.changed).min();
            return earliest.map_or(Ok(()), |changed| self.shared.keep_mark_before(changed));
        }
        let loose = &self.shared.loose;
        let dirs: BTreeSet<PathBuf> = published.map(|published| loose.dir(published.digest)).collect();
        dirs.into_iter().try_for_each(|dir| loose.sync_dir(dir))
    }

    /// Enters what was published into the index, or takes all of it back if a sync has failed.
    pub(super) fn end(self) -> Vec<(usize, Result<()>)> {
        if let Some(error) = &self.failed_sync {
            self.shared.shut_after_failed_sync(error);
        }
        let is_safe = self.failed_sync.is_none();
        let end = |(at, outcome): (usize, Result<Published<'_>>)| match outcome {
            Ok(published) if is_safe => {
                published.room.enter();
                (at, Ok(()))
            }
            Ok(published) => (at, Err(published.withdraw())),
            Err(error) => (at, Err(error)),
        };
        self.published.into_iter().map(end).collect()
    }
}

/// A blob's file has its name; the index does not know of it yet.
pub(super) struct Published<'a> {
    digest: Digest,
    /// When the kernel says that was.
    changed: KernelTime,
    room: Room<'a>,
}

impl Published<'_> {
    /// Takes back a blob whose name may not survive a crash.
    fn withdraw(self) -> Error {
        let (digest, shared) = (self.digest, self.room.shared);
        if let Err(error) = shared.loose.remove(digest) {
            tracing::error!(%digest, %error, "a blob that was not acknowledged stays until the next start");
        }
        let refusal = shared
            .gate()
            .check()
            .expect_err("the gate was shut for the failed sync");
        refusal.on(digest)
    }
}
