//! Uploads under way, and those that broke off and can be continued.
//!
//! ```text
//!   begin ───────────> active ── finish ──> Verified
//!                      │    ^
//!        broke off     │    │ resume at the offset
//!                      v    │
//!                      parked ── too old, too many, too large ──> dropped
//! ```
//!
//! The key is the whole resource name: clients use one UUID for many blobs, and some use it again for the same blob. Several
//! writers may be active under one name, each with content of its own. The one that got furthest is what is kept when they
//! break off, so that the size that is told for a name only grows.

mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, Bytes};
use rootcellar_digest::Digest;
use rootcellar_reapi::{Error, ErrorKind, Result};
use rootcellar_store::{Ingest, Spool, Verified};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use self::table::{Found, Table, Writer};
use crate::server::limits::UploadLimits;

/// All uploads of a server.
#[derive(Debug)]
pub(super) struct Uploads {
    spool: Spool,
    limits: UploadLimits,
    free: Arc<Semaphore>,
    table: Mutex<Table>,
    /// Told when an upload was parked or ended: who waits to continue one looks again.
    released: Notify,
}

impl Uploads {
    pub(super) fn new(spool: Spool, limits: UploadLimits) -> Self {
        Self {
            spool,
            free: Arc::new(Semaphore::new(limits.active_max)),
            limits,
            table: Mutex::new(Table::new()),
            released: Notify::new(),
        }
    }

    pub(super) fn limits(&self) -> &UploadLimits {
        &self.limits
    }

    /// Bytes that were taken for `name` so far; `None` if no write of that name is known.
    pub(super) fn committed_bytes(&self, name: &str) -> Option<u64> {
        self.drop_expired();
        self.table().tell(name)
    }

    /// Starts an upload from the first byte. What was parked under the name stays until this one gets further.
    pub(super) fn begin(self: &Arc<Self>, name: Arc<str>, digest: Digest) -> Upload {
        Upload {
            digest,
            ingest: None,
            overlap_bytes: 0,
            active: self.enter(name, 0),
            permit: None,
        }
    }

    /// Continues an upload that has `offset` bytes.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if there is none with as many bytes, ABORTED if its former writer does not let go of it.
    pub(super) async fn resume(self: &Arc<Self>, name: Arc<str>, offset: u64) -> Result<Upload> {
        self.drop_expired();
        let permit = self.permit()?;
        let deadline = Instant::now() + self.limits.handover_max;
        let ingest = loop {
            let released = self.released.notified();
            let found = self.table().take(&name, offset);
            match found {
                Found::Upload(ingest) => break *ingest,
                Found::Other { committed_bytes } => return Err(wrong_offset(offset, committed_bytes)),
                Found::Busy => {}
            }
            if timeout_at(deadline, released).await.is_err() {
                let reason = format!("another writer is still at work on {name}");
                return Err(Error::new(ErrorKind::Aborted, reason));
            }
        };
        Ok(Upload {
            digest: ingest.digest(),
            overlap_bytes: ingest.taken_bytes() - offset,
            active: self.enter(name, ingest.taken_bytes()),
            ingest: Some(ingest),
            permit: Some(permit),
        })
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_owned().map_err(|_| {
            let reason = format!("{} uploads are under way, as many as are taken", self.limits.active_max);
            Error::new(ErrorKind::Unavailable, reason)
        })
    }

    fn enter(self: &Arc<Self>, name: Arc<str>, committed_bytes: u64) -> Active {
        let writer = Arc::new(Writer::new(committed_bytes));
        self.table().enter(&name, &writer);
        Active {
            uploads: self.clone(),
            name,
            writer,
        }
    }

    fn drop_expired(&self) {
        let expired = self.table().expire(&self.limits);
        // Here, because the lock is not held any more.
        drop(expired);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic under the lock would leave the sum of bytes wrong at worst, and nothing under it panics.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wrong_offset(offset: u64, committed_bytes: Option<u64>) -> Error {
    let reason = match committed_bytes {
        Some(bytes) => format!("the write begins at {offset}, but {bytes} bytes were committed"),
        None => format!("the write begins at {offset}, but nothing was committed: begin at 0"),
    };
    Error::invalid_argument(reason)
}

/// Marks a name as being written until it is dropped.
#[derive(Debug)]
struct Active {
    uploads: Arc<Uploads>,
    name: Arc<str>,
    writer: Arc<Writer>,
}

impl Active {
    fn park(&self, ingest: Ingest) {
        let dropped = self
            .uploads
            .table()
            .park(&self.name, &self.writer, ingest, &self.uploads.limits);
        // Here, because the lock is not held any more.
        drop(dropped);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.uploads.table().leave(&self.name, &self.writer);
        self.uploads.released.notify_waiters();
    }
}

/// One upload in the hands of its writer. Dropping it forgets what it has; [`park`](Self::park) keeps it.
#[derive(Debug)]
pub(super) struct Upload {
    digest: Digest,
    /// Made when the first byte comes: an upload that was opened and left costs neither a file nor a permit.
    ingest: Option<Ingest>,
    /// Bytes that will come once more, because this was continued from before its end.
    overlap_bytes: u64,
    active: Active,
    permit: Option<OwnedSemaphorePermit>,
}

impl Upload {
    /// Bytes taken so far.
    pub(super) fn committed_bytes(&self) -> u64 {
        self.ingest.as_ref().map_or(0, Ingest::taken_bytes)
    }

    /// Where the next piece begins.
    pub(super) fn position(&self) -> u64 {
        self.committed_bytes() - self.overlap_bytes
    }

    /// Takes the next piece. After an error nothing is left to park.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if there is more than the digest's size, and what the spool met.
    pub(super) async fn write(&mut self, mut piece: Bytes) -> Result<()> {
        let known = piece
            .len()
            .min(usize::try_from(self.overlap_bytes).unwrap_or(usize::MAX));
        piece.advance(known);
        self.overlap_bytes -= known as u64;
        if piece.is_empty() {
            return Ok(());
        }
        let ingest = self.ingest()?;
        let outcome = ingest.write(piece).await;
        let committed = ingest.taken_bytes();
        if let Err(error) = outcome {
            self.ingest = None;
            return Err(error.into());
        }
        self.active.writer.commit(committed);
        Ok(())
    }

    /// Ends the content, which has to be what the digest says. Until this is dropped the name still counts as being written.
    pub(super) fn finish(&mut self) -> Result<Verified> {
        self.ingest()?;
        let ingest = self.ingest.take().expect("it was made a line above");
        Ok(ingest.finish()?)
    }

    /// Drops what came, now and earlier under this name: the blob is stored.
    pub(super) fn forget(self) {
        let dropped = self.active.uploads.table().remove(&self.active.name);
        // Here, because the lock is not held any more.
        drop(dropped);
    }

    /// Sets aside what came so far, to be continued.
    pub(super) fn park(mut self) {
        // Before the name is left: who waits for that finds the parked content.
        if let Some(ingest) = self.ingest.take().filter(|ingest| ingest.taken_bytes() > 0) {
            self.active.park(ingest);
        }
    }

    /// Waits until another writer wants to continue this upload. Can be dropped and called again.
    pub(super) async fn wanted_elsewhere(&self) {
        self.active.writer.give_way.notified().await;
    }

    fn ingest(&mut self) -> Result<&mut Ingest> {
        if self.ingest.is_none() {
            let uploads = &self.active.uploads;
            self.permit = Some(uploads.permit()?);
            self.ingest = Some(uploads.spool.ingest(self.digest)?);
        }
        Ok(self.ingest.as_mut().expect("it was made above if there was none"))
    }
}
