//! Content that comes piece by piece.
//!
//! ```text
//!   piece ──> pending ── enough? ──> hashed and written by another thread
//!                                         │ meanwhile the next pieces come
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use rootcellar_digest::Digest;
use tokio::sync::oneshot;

use super::hashing::Hashing;
use super::pairs::Pairs;
use super::partial::{Partial, reserved_for};
use super::written::Written;
use crate::io::DiskFile;
use crate::{Error, ErrorKind, Result, Verified};

/// Pieces are written once they are so many bytes together: a client may send them a few kilobytes at a time, and each change of
/// threads costs as much as hashing some of them.
const WRITE_BYTES: usize = 256 * 1024;
/// Smaller pieces are copied together: each has bookkeeping of its own, and may keep all of the frame in which it came. Frames have 16 KiB
/// if a client does not ask how large they may be.
const SMALL_BYTES: usize = 16 * 1024;

/// Content that is arriving.
///
/// An operation that fails leaves nothing usable: drop it. A dropped future of [`write`](Self::write) leaves all that was taken, unless it
/// was that of the last piece. What is dropped while another thread writes leaves its file until that has ended.
#[derive(Debug)]
pub struct Ingest {
    digest: Digest,
    taken_bytes: u64,
    /// `None` after an error.
    body: Option<Body>,
}

#[derive(Debug)]
enum Body {
    Memory { hashing: Box<Hashing>, bytes: BytesMut },
    File(FileBody),
}

/// Content on its way into a file, up to twice [`WRITE_BYTES`] and two pieces of it in memory: what is being hashed and written, and what
/// comes meanwhile. A piece may keep the frame in which it came, which is seventeen times that at the most if frames have 264 KiB.
#[derive(Debug)]
struct FileBody {
    pending: Pending,
    writing: Writing,
    pairs: Arc<Pairs>,
    file: Arc<dyn DiskFile>,
    /// How much of the file can be read.
    readable_bytes: Arc<AtomicU64>,
}

/// Pieces that wait for others, to be hashed and written with them.
#[derive(Debug, Default)]
struct Pending {
    pieces: Vec<Bytes>,
    /// What comes behind the pieces: small ones, together.
    small: BytesMut,
    bytes: usize,
}

#[derive(Debug)]
enum Writing {
    Idle(Box<Written>),
    /// Another thread is at it.
    Running(oneshot::Receiver<Result<Box<Written>>>),
    /// It went wrong.
    Ended,
}

impl Ingest {
    pub(super) fn in_memory(digest: Digest) -> Self {
        let hashing = Box::new(Hashing::new(digest.function(), digest.size_bytes()));
        let bytes = BytesMut::new();
        Self::new(digest, Body::Memory { hashing, bytes })
    }

    pub(super) fn into_file(digest: Digest, partial: Partial, pairs: Arc<Pairs>) -> Self {
        let hashing = Hashing::new(digest.function(), digest.size_bytes());
        Self::new(digest, Body::File(FileBody::new(hashing, partial, pairs)))
    }

    fn new(digest: Digest, body: Body) -> Self {
        Self {
            digest,
            taken_bytes: 0,
            body: Some(body),
        }
    }

    /// The digest that the content has to match.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes taken so far.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Bytes that it takes at the most, in memory or on the disk, while no more come.
    pub fn room_bytes(&self) -> u64 {
        match &self.body {
            Some(Body::File(_)) => reserved_for(self.taken_bytes, self.digest.size_bytes()),
            Some(Body::Memory { .. }) | None => self.taken_bytes,
        }
    }

    /// The file that the content is written to, and how much of it can be read there; `None` while it is in memory.
    pub(crate) fn file(&self) -> Option<(Arc<dyn DiskFile>, u64)> {
        match &self.body {
            Some(Body::File(body)) => Some((body.file.clone(), body.readable_bytes.load(Ordering::Acquire))),
            _ => None,
        }
    }

    /// Takes the next piece of content. What it meets when it is written may be an error of a later piece; the last piece is written when
    /// this returns.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] as soon as there is more than the digest's size; I/O errors of the spool file.
    pub async fn write(&mut self, piece: Bytes) -> Result<()> {
        let taken_bytes = self.taken_bytes.saturating_add(piece.len() as u64);
        if taken_bytes > self.digest.size_bytes() {
            let reason = format!("at least {taken_bytes} bytes arrived");
            return Err(Error::new(ErrorKind::InvalidArgument, "ingest", reason).on(self.digest));
        }
        let is_last = taken_bytes == self.digest.size_bytes();
        self.taken_bytes = taken_bytes;
        let outcome = match &mut self.body {
            Some(Body::Memory { hashing, bytes }) => {
                hashing.update(&piece);
                bytes.extend_from_slice(&piece);
                Ok(())
            }
            Some(Body::File(body)) => body.take(piece, is_last).await,
            None => Err(did_not_end()),
        };
        outcome.map_err(|error| {
            self.body = None;
            error.on(self.digest)
        })
    }

    /// Ends the content.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the content is not what the digest says.
    pub fn finish(self) -> Result<Verified> {
        if self.taken_bytes < self.digest.size_bytes() {
            let reason = format!("only {} bytes arrived", self.taken_bytes);
            return Err(Error::new(ErrorKind::InvalidArgument, "ingest", reason).on(self.digest));
        }
        let verified = match self.body {
            // Hashed just now, piece by piece: the same bytes.
            Some(Body::Memory { hashing, bytes }) => hashing
                .check(self.digest)
                .map(|checksum| Verified::from_memory(self.digest, checksum, bytes.freeze())),
            Some(Body::File(body)) => body.finish(self.digest),
            None => Err(did_not_end()),
        };
        verified.map_err(|error| error.on(self.digest))
    }
}

fn did_not_end() -> Error {
    Error::new(ErrorKind::Internal, "ingest", "an earlier write did not end")
}

impl FileBody {
    fn new(hashing: Hashing, partial: Partial, pairs: Arc<Pairs>) -> Self {
        let file = partial.file.clone();
        let written = Written::new(hashing, partial);
        Self {
            pending: Pending::default(),
            pairs,
            file,
            readable_bytes: written.readable_bytes(),
            writing: Writing::Idle(Box::new(written)),
        }
    }

    /// Takes a piece, and has what waits written once that is enough. Waits for what was begun before.
    async fn take(&mut self, piece: Bytes, is_last: bool) -> Result<()> {
        self.pending.push(piece);
        if self.pending.bytes < WRITE_BYTES && !is_last {
            return Ok(());
        }
        let written = self.written().await?;
        let pieces = std::mem::take(&mut self.pending).into_pieces();
        self.writing = Writing::Running(self.pairs.write(written, pieces));
        if is_last {
            let written = self.written().await?;
            self.writing = Writing::Idle(written);
        }
        Ok(())
    }

    /// Waits until nothing is being written, and takes what was. Nothing is lost if the caller goes away meanwhile.
    async fn written(&mut self) -> Result<Box<Written>> {
        if let Writing::Running(running) = &mut self.writing {
            let written = running.await;
            self.writing = Writing::Ended;
            return written.unwrap_or_else(|_nobody_wrote_it| Err(did_not_end()));
        }
        match std::mem::replace(&mut self.writing, Writing::Ended) {
            Writing::Idle(written) => Ok(written),
            Writing::Running(_) | Writing::Ended => Err(did_not_end()),
        }
    }

    fn finish(self, digest: Digest) -> Result<Verified> {
        // The last piece was written, if its future was not dropped.
        let Writing::Idle(written) = self.writing else {
            return Err(did_not_end());
        };
        let checksum = written.hashing.check(digest)?;
        Ok(Verified::from_spool(digest, checksum, written.partial.keep()?))
    }
}

impl Pending {
    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if piece.len() < SMALL_BYTES {
            self.small.extend_from_slice(&piece);
        } else {
            self.seal();
            self.pieces.push(piece);
        }
    }

    fn into_pieces(mut self) -> Vec<Bytes> {
        self.seal();
        self.pieces
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use rootcellar_digest::DigestFunction;

    use super::*;
    use crate::testing::Seeded;
    use crate::{ByteRange, Spool};

    const LEN: usize = 3 << 20;

    async fn is_whole(verified: Verified, content: &Bytes) -> bool {
        verified.open(ByteRange::ALL).unwrap().into_bytes().await.unwrap() == content
    }

    fn spool() -> (Spool, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Spool::new(dir.path()), dir)
    }

    #[tokio::test]
    async fn a_dropped_write_leaves_what_it_took() {
        let (spool, _dir) = spool();
        let content = Seeded::new(1).bytes(LEN);
        let mut ingest = spool.ingest(Digest::of(DigestFunction::Sha256, &content)).unwrap();
        let mut at = 0;
        for len in [WRITE_BYTES, WRITE_BYTES, 1000, WRITE_BYTES].into_iter().cycle() {
            if at == LEN {
                break;
            }
            let end = LEN.min(at + len);
            let is_last = end == LEN;
            {
                let mut write = pin!(ingest.write(content.slice(at..end)));
                match is_last {
                    true => write.await.unwrap(),
                    false => drop(futures_util::poll!(&mut write)),
                }
            }
            at = end;
            assert_eq!(ingest.taken_bytes(), at as u64);
        }
        assert!(is_whole(ingest.finish().unwrap(), &content).await);
    }

    #[tokio::test]
    async fn content_that_ends_early_is_refused_whatever_is_under_way() {
        let (spool, dir) = spool();
        let content = Seeded::new(2).bytes(LEN);
        let digest = Digest::of(DigestFunction::Sha256, &content);
        for len in [0, 1000, WRITE_BYTES, LEN - 1] {
            let mut ingest = spool.ingest(digest).unwrap();
            ingest.write(content.slice(..len)).await.unwrap();
            let error = ingest.finish().unwrap_err();
            assert_eq!(
                (error.kind(), error.digest()),
                (ErrorKind::InvalidArgument, Some(digest))
            );
            assert!(error.to_string().contains(&format!("only {len} bytes")), "{error}");
        }
        let gone = async {
            while dir.path().read_dir().unwrap().next().is_some() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
    }

    #[tokio::test]
    async fn pieces_of_any_size_keep_their_order_and_small_ones_take_little() {
        let (spool, _dir) = spool();
        let content = Seeded::new(6).bytes(LEN);
        let mut ingest = spool.ingest(Digest::of(DigestFunction::Sha256, &content)).unwrap();
        let mut at = 0;
        for len in [1, 7, SMALL_BYTES, 1, 50_000, SMALL_BYTES - 1, SMALL_BYTES - 1]
            .into_iter()
            .cycle()
        {
            let end = LEN.min(at + len);
            ingest.write(content.slice(at..end)).await.unwrap();
            at = end;
            if let Some(Body::File(body)) = &ingest.body {
                assert!(body.pending.pieces.len() <= 2 * WRITE_BYTES / SMALL_BYTES);
            }
            if at == LEN {
                break;
            }
        }
        assert!(is_whole(ingest.finish().unwrap(), &content).await);
    }

    #[tokio::test]
    async fn wrong_content_is_refused_when_its_last_byte_is_written() {
        let (spool, _dir) = spool();
        let content = Seeded::new(3).bytes(LEN);
        let other = Seeded::new(4).bytes(LEN);
        let mut ingest = spool.ingest(Digest::of(DigestFunction::Sha256, &content)).unwrap();
        for at in (0..LEN).step_by(WRITE_BYTES) {
            ingest.write(other.slice(at..at + WRITE_BYTES)).await.unwrap();
        }
        assert_eq!(ingest.finish().unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[tokio::test]
    async fn what_another_thread_met_is_told_by_a_later_piece() {
        let (spool, dir) = spool();
        let content = Seeded::new(5).bytes(LEN);
        let digest = Digest::of(DigestFunction::Sha256, &content);
        let mut ingest = Ingest::into_file(digest, spool.create(digest.size_bytes()).unwrap(), Arc::default());
        // A file that cannot be written.
        std::fs::write(dir.path().join("other"), "").unwrap();
        let Some(Body::File(body)) = &mut ingest.body else {
            unreachable!("it was made so")
        };
        let Writing::Idle(written) = &mut body.writing else {
            unreachable!("nothing was written yet")
        };
        written.partial.file = Arc::new(std::fs::File::open(dir.path().join("other")).unwrap());
        ingest.write(content.slice(..WRITE_BYTES)).await.unwrap();
        let error = ingest
            .write(content.slice(WRITE_BYTES..2 * WRITE_BYTES))
            .await
            .unwrap_err();
        assert_eq!(error.digest(), Some(digest));
        let error = ingest.write(content.slice(2 * WRITE_BYTES..)).await.unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        assert!(ingest.finish().is_err());
    }
}
