//! Whole blobs on their way from the slow store into the fast one, each once for all who read it.
//!
//! ```text
//!   slow ──> Ingest ──> spool file ──> put into fast
//!                           └──> readers follow what is written, up to the last byte but one, and get that when all is proven
//! ```
//!
//! A reader needs no memory for what it has not taken, however slow it is, and does not hold up the others.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use rootcellar_digest::{Digest, DigestMap};
use tokio::sync::{Semaphore, watch};

use crate::compose::tasks::Tasks;
use crate::compose::transfer::damaged;
use crate::io::DiskFile;
use crate::{Blob, BlobStore, ByteRange, Error, ErrorKind, Ingest, Result, Spool, Verified};

/// Bytes that a reader takes from the spool file at once.
const PIECE_BYTES: u64 = 256 * 1024;

/// What is being brought.
pub(super) struct Fills {
    /// Guards the fills under way, and some that have ended.
    running: Mutex<DigestMap<Weak<Fill>>>,
    slots: Arc<Semaphore>,
    tasks: Tasks,
}

/// A blob on its way. It lives as long as it has readers.
#[derive(Debug)]
struct Fill {
    digest: Digest,
    progress: watch::Receiver<Progress>,
}

#[derive(Clone)]
enum Progress {
    /// The slow store was asked.
    Asked,
    /// So many bytes can be read from the file. They are not proven to be right.
    Written {
        file: Arc<dyn DiskFile>,
        bytes: u64,
    },
    /// All is there, and right.
    Done(Verified),
    Failed(Arc<Error>),
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("Asked"),
            Self::Written { bytes, .. } => write!(f, "Written({bytes})"),
            Self::Done(_) => f.write_str("Done"),
            Self::Failed(error) => write!(f, "Failed({error})"),
        }
    }
}

impl Fills {
    pub(super) fn new(fills_max: usize) -> Self {
        Self {
            running: Mutex::default(),
            slots: Arc::new(Semaphore::new(fills_max.min(Semaphore::MAX_PERMITS))),
            tasks: Tasks::default(),
        }
    }

    /// Reads a whole blob of the slow store, and brings it into the fast one by the way; `None` if that is not possible now.
    pub(super) async fn get<F: BlobStore + ?Sized>(
        &self,
        digest: Digest,
        fast: &Arc<F>,
        slow: &Arc<dyn BlobStore>,
        spool: &Spool,
    ) -> Result<Option<Blob>> {
        match self.join_or_start(digest, fast, slow, spool) {
            Some(fill) => Reader::open(fill).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn end(&self) {
        self.tasks.end().await;
    }

    fn join_or_start<F: BlobStore + ?Sized>(
        &self,
        digest: Digest,
        fast: &Arc<F>,
        slow: &Arc<dyn BlobStore>,
        spool: &Spool,
    ) -> Option<Arc<Fill>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fill) = running.get(&digest).and_then(Weak::upgrade)
            && !fill.has_failed()
        {
            return Some(fill);
        }
        let slot = self.slots.clone().try_acquire_owned().ok()?;
        let ingest = spool.ingest(digest).inspect_err(|error| {
            tracing::warn!(%error, "a blob of the slow store cannot be brought into the fast one, and is only passed on");
        });
        let ingest = ingest.ok()?;
        let (report, progress) = watch::channel(Progress::Asked);
        let fill = Arc::new(Fill { digest, progress });
        running.retain(|_, fill| fill.strong_count() > 0);
        running.insert(digest, Arc::downgrade(&fill));
        let (fast, slow) = (fast.clone(), slow.clone());
        self.tasks.spawn(async move {
            let ended = match bring(ingest, &*slow, &report).await {
                Ok(blob) => {
                    keep(&*fast, &blob).await;
                    Progress::Done(blob)
                }
                Err(error) => Progress::Failed(Arc::new(error)),
            };
            report.send_replace(ended);
            drop(slot);
        });
        Some(fill)
    }
}

impl Fill {
    fn has_failed(&self) -> bool {
        matches!(*self.progress.borrow(), Progress::Failed(_))
    }
}

async fn keep<F: BlobStore + ?Sized>(fast: &F, blob: &Verified) {
    if let Err(error) = fast.put(blob.clone()).await {
        tracing::warn!(%error, store = %fast, "a blob that was brought could not be kept");
    }
}

/// Brings all bytes, and tells how far it is. Ends early if nobody reads and most is still to come.
async fn bring(mut ingest: Ingest, slow: &dyn BlobStore, report: &watch::Sender<Progress>) -> Result<Verified> {
    let digest = ingest.digest();
    let mut pieces = slow.get(digest, ByteRange::ALL).await?.into_stream();
    let mut told = 0;
    while let Some(piece) = pieces.next().await {
        ingest.write(piece?).await.map_err(damaged)?;
        if let Some((file, bytes)) = ingest.file()
            && bytes > told
        {
            told = bytes;
            report.send_replace(Progress::Written { file, bytes });
        }
        if report.is_closed() && ingest.taken_bytes() < digest.size_bytes() / 2 {
            return Err(Error::new(ErrorKind::Unavailable, "get", "nobody reads it any more").on(digest));
        }
    }
    ingest.finish().map_err(damaged)
}

/// Follows a fill.
struct Reader {
    fill: Arc<Fill>,
    progress: watch::Receiver<Progress>,
    at: u64,
}

impl Reader {
    /// Waits until the slow store has answered, so that a missing blob is told before the first byte.
    async fn open(fill: Arc<Fill>) -> Result<Blob> {
        let (digest, range) = (fill.digest, 0..fill.digest.size_bytes());
        let mut reader = Self {
            progress: fill.progress.clone(),
            fill,
            at: 0,
        };
        if let Some(blob) = reader.wait().await? {
            return blob.open(ByteRange::ALL);
        }
        let pieces = stream::try_unfold(reader, |mut reader| async move {
            let piece = reader.piece().await?;
            Ok(piece.map(|piece| (piece, reader)))
        });
        Ok(Blob::from_stream(digest, range, pieces.boxed()))
    }

    /// Waits for bytes; all of them if they are all there.
    async fn wait(&mut self) -> Result<Option<Verified>> {
        loop {
            let progress = self.progress.borrow_and_update().clone();
            match progress {
                Progress::Done(blob) => return Ok(Some(blob)),
                Progress::Failed(error) => return Err(error.again()),
                Progress::Written { bytes, .. } if !self.readable(bytes).is_empty() => return Ok(None),
                Progress::Written { .. } | Progress::Asked => {}
            }
            if self.progress.changed().await.is_err() {
                let reason = "the runtime ends, and what was being read with it";
                return Err(Error::new(ErrorKind::Unavailable, "get", reason).on(self.fill.digest));
            }
        }
    }

    /// What may be handed out of a file with so many bytes, as long as they are not proven to be right.
    fn readable(&self, written: u64) -> Range<u64> {
        let end = written.min(self.fill.digest.size_bytes() - 1);
        self.at..end.min(self.at + PIECE_BYTES)
    }

    async fn piece(&mut self) -> Result<Option<Bytes>> {
        if self.at == self.fill.digest.size_bytes() {
            return Ok(None);
        }
        let piece = match self.wait().await? {
            Some(blob) => {
                blob.open(ByteRange {
                    offset: self.at,
                    len: Some(PIECE_BYTES),
                })?
                .into_bytes()
                .await?
            }
            None => self.read_written().await?,
        };
        self.at += piece.len() as u64;
        Ok(Some(piece))
    }

    async fn read_written(&self) -> Result<Bytes> {
        let (file, range) = match &*self.progress.borrow() {
            Progress::Written { file, bytes } => (file.clone(), self.readable(*bytes)),
            // It went on meanwhile: that is looked at the next time.
            _ => return Ok(Bytes::new()),
        };
        let digest = self.fill.digest;
        Blob::from_file(digest, range, file, 0).into_bytes().await
    }
}
