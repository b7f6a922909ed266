//! Writing objects.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::StreamExt as _;
use object_store::{MultipartUpload, PutPayload};
use rootcellar_digest::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::frames::{self, FRAME_BYTES, SeekTable};
use super::{Inner, Known};
use crate::{ByteRange, Error, Result, Verified};

/// Parts of one blob that are sent at a time.
const PARTS_MAX: usize = 4;
/// The service takes so many parts, and with the first sort of S3 not one more.
const PARTS_IN_ALL_MAX: u64 = 10_000;
/// Smaller blobs are not worth compressing: their objects are billed as larger ones, or take a block anyway.
const COMPRESSED_BYTES_MIN: u64 = 4096;

/// Bytes that may be in memory to be sent.
#[derive(Debug)]
pub(super) struct UploadMemory {
    bytes: Arc<Semaphore>,
    bytes_max: u32,
}

impl UploadMemory {
    pub(super) fn new(bytes_max: u32) -> Self {
        let bytes_max = bytes_max.max(1);
        let permits = usize::try_from(bytes_max).map_or(Semaphore::MAX_PERMITS, |max| max.min(Semaphore::MAX_PERMITS));
        Self {
            bytes: Arc::new(Semaphore::new(permits)),
            bytes_max,
        }
    }

    async fn take(&self, bytes: u64) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes_max);
        self.bytes
            .clone()
            .acquire_many_owned(bytes)
            .await
            .expect("nobody closes it")
    }
}

impl Inner {
    pub(super) async fn put(self: &Arc<Self>, blob: Verified) -> Result<()> {
        let digest = blob.digest();
        if digest.is_empty_blob() {
            return Ok(());
        }
        if let Some(known) = self.known(&digest) {
            self.touch(digest, known);
            return Ok(());
        }
        let bucket = self.clone();
        let upload = || async move { bucket.upload(blob).await.map_err(|error| error.on(digest)) };
        self.puts.run(digest, upload).await
    }

    async fn upload(self: &Arc<Self>, blob: Verified) -> Result<()> {
        let digest = blob.digest();
        // What is suspected is judged first, and what is suspected from now on is judged later: else the judgement might remove what is
        // put now.
        self.is_condemned(digest).await?;
        let turn = self.turns.of(digest);
        let _turn = turn.lock().await;
        let begun = self.clock.now();
        let size = match self.options.zstd_level {
            Some(level) if digest.size_bytes() >= COMPRESSED_BYTES_MIN => self.upload_compressed(&blob, level).await?,
            _ => None,
        };
        let size = match size {
            Some(size) => size,
            None => self.upload_as_it_is(&blob).await?,
        };
        self.note(digest, Known { size, modified: begun });
        Ok(())
    }

    async fn upload_as_it_is(self: &Arc<Self>, blob: &Verified) -> Result<u64> {
        let (digest, size) = (blob.digest(), blob.digest().size_bytes());
        if size <= u64::from(self.options.single_put_bytes_max) {
            let _memory = self.upload_memory.take(size).await;
            let content = blob.open(ByteRange::ALL)?.into_bytes().await?;
            self.requests.put(&self.names.blob(&digest), content.into()).await?;
            return Ok(size);
        }
        let mut parts = Parts::new(self.clone(), digest, size);
        let mut pieces = blob.open(ByteRange::ALL)?.into_stream();
        while let Some(piece) = pieces.next().await {
            parts.add(&piece?).await?;
        }
        parts.finish().await
    }

    /// Sends the blob compressed, if its first frame becomes smaller; the size of the object then.
    async fn upload_compressed(self: &Arc<Self>, blob: &Verified, level: i32) -> Result<Option<u64>> {
        let (digest, size) = (blob.digest(), blob.digest().size_bytes());
        let (mut table, mut parts) = (SeekTable::new(size), Parts::new(self.clone(), digest, size));
        for frame in 0..frames::frames(size) {
            let range = ByteRange {
                offset: frame * FRAME_BYTES,
                len: Some(FRAME_BYTES),
            };
            let content = blob.open(range)?.into_bytes().await?;
            let content_bytes = content.len();
            let compressed = tokio::task::spawn_blocking(move || frames::compress(&content, level))
                .await
                .expect("compressing does not panic, and the runtime outlives its tasks")
                .map_err(|error| Error::io("put", "compressing a blob", error))?;
            // An eighth is worth the processor time of reading it.
            if frame == 0 && compressed.len() > content_bytes - content_bytes / 8 {
                return Ok(None);
            }
            table.push(compressed.len());
            parts.add(&compressed).await?;
        }
        parts.add(&table.encode()).await?;
        if parts.size() == size {
            // It would be taken for the blob itself.
            return Ok(None);
        }
        parts.finish().await.map(Some)
    }
}

/// An object that is sent in parts, or at once if it turns out to be small.
struct Parts {
    bucket: Arc<Inner>,
    digest: Digest,
    part_bytes: usize,
    sent: u64,
    waiting: BytesMut,
    /// For what waits.
    memory: Option<OwnedSemaphorePermit>,
    /// The most that is still to come.
    left: u64,
    begun: Option<Begun>,
}

/// Parts that are on their way.
struct Begun {
    bucket: Arc<Inner>,
    /// `None` once it was completed.
    upload: Option<Box<dyn MultipartUpload>>,
    sending: JoinSet<Result<()>>,
}

impl Parts {
    fn new(bucket: Arc<Inner>, digest: Digest, size: u64) -> Self {
        let usual = u64::from(bucket.options.single_put_bytes_max / 2);
        let part_bytes = usual.max(size.div_ceil(PARTS_IN_ALL_MAX - 1)).max(1);
        Self {
            part_bytes: usize::try_from(part_bytes).expect("a part fits into memory"),
            sent: 0,
            waiting: BytesMut::new(),
            memory: None,
            left: size,
            begun: None,
            bucket,
            digest,
        }
    }

    fn size(&self) -> u64 {
        self.sent + self.waiting.len() as u64
    }

    async fn add(&mut self, mut piece: &[u8]) -> Result<()> {
        while !piece.is_empty() {
            if self.memory.is_none() {
                // Before it is filled: parts that wait for others to be sent are in memory as well.
                let most = self.left.max(piece.len() as u64).min(self.part_bytes as u64);
                self.memory = Some(self.bucket.upload_memory.take(most).await);
            }
            let room = self.part_bytes - self.waiting.len();
            let (now, later) = piece.split_at(room.min(piece.len()));
            self.waiting.extend_from_slice(now);
            piece = later;
            if self.waiting.len() == self.part_bytes {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// Sends what waits as a part.
    async fn send(&mut self) -> Result<()> {
        if self.begun.is_none() {
            let upload = self
                .bucket
                .requests
                .begin_parts(&self.bucket.names.blob(&self.digest))
                .await?;
            self.begun = Some(Begun {
                bucket: self.bucket.clone(),
                upload: Some(upload),
                sending: JoinSet::new(),
            });
        }
        let begun = self.begun.as_mut().expect("it was begun just now if it was not");
        while begun.sending.len() >= PARTS_MAX {
            begun.one_sent().await?;
        }
        let part: Bytes = self.waiting.split().freeze();
        self.sent += part.len() as u64;
        self.left = self.left.saturating_sub(part.len() as u64);
        let memory = self.memory.take();
        let upload = begun.upload.as_mut().expect("it is not completed");
        let (sent, bucket) = (upload.put_part(PutPayload::from(part)), self.bucket.clone());
        begun.sending.spawn(async move {
            let outcome = bucket.requests.put_part(sent).await;
            drop(memory);
            outcome
        });
        Ok(())
    }

    /// Sends the rest; the size of the object, which is there then.
    async fn finish(mut self) -> Result<u64> {
        let size = self.size();
        if self.begun.is_none() {
            let content = self.waiting.split().freeze();
            self.bucket
                .requests
                .put(&self.bucket.names.blob(&self.digest), content.into())
                .await?;
            return Ok(size);
        }
        if !self.waiting.is_empty() {
            self.send().await?;
        }
        let mut begun = self.begun.take().expect("it was begun");
        while !begun.sending.is_empty() {
            begun.one_sent().await?;
        }
        let upload = begun.upload.as_mut().expect("it is not completed");
        self.bucket.requests.end_parts(&mut **upload).await?;
        begun.upload = None;
        Ok(size)
    }
}

impl Begun {
    async fn one_sent(&mut self) -> Result<()> {
        let sent = self.sending.join_next().await;
        sent.expect("something is being sent")
            .expect("sending does not panic, and nobody aborts it")
    }
}

/// Parts of an object that did not come to be would be billed until a rule of the bucket removes them.
impl Drop for Begun {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        let mut sending = std::mem::take(&mut self.sending);
        self.bucket.touches.spawn(async move {
            sending.shutdown().await;
            if let Err(error) = upload.abort().await {
                tracing::warn!(%error, "parts of an object that was given up are left in the bucket");
            }
        });
    }
}
