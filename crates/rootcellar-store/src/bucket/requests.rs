//! Requests to the service: so many at a time, counted, and with errors as a store has them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Known;
use crate::{Error, ErrorKind, Result};

/// The requests that were made of a bucket. What was made again because it failed counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// For the properties of an object.
    pub heads: u64,
    /// For an object or a part of it.
    pub gets: u64,
    /// With an object, or a part of one.
    pub puts: u64,
    /// To copy an object within the bucket.
    pub copies: u64,
    /// To remove an object.
    pub deletes: u64,
}

/// Makes requests.
pub(super) struct Requests {
    objects: Arc<dyn ObjectStore>,
    slots: Arc<Semaphore>,
    heads: AtomicU64,
    gets: AtomicU64,
    puts: AtomicU64,
    copies: AtomicU64,
    deletes: AtomicU64,
}

impl Requests {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, requests_max: usize) -> Self {
        Self {
            objects,
            slots: Arc::new(Semaphore::new(requests_max.clamp(1, Semaphore::MAX_PERMITS))),
            heads: AtomicU64::new(0),
            gets: AtomicU64::new(0),
            puts: AtomicU64::new(0),
            copies: AtomicU64::new(0),
            deletes: AtomicU64::new(0),
        }
    }

    pub(super) fn counts(&self) -> RequestCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts {
            heads: load(&self.heads),
            gets: load(&self.gets),
            puts: load(&self.puts),
            copies: load(&self.copies),
            deletes: load(&self.deletes),
        }
    }

    async fn begin(&self, counter: &AtomicU64) -> OwnedSemaphorePermit {
        let slot = self.slots.clone().acquire_owned().await.expect("nobody closes it");
        counter.fetch_add(1, Ordering::Relaxed);
        slot
    }

    fn error(&self, operation: &'static str, error: object_store::Error) -> Error {
        use object_store::Error as Cause;
        let (kind, reason) = match &error {
            Cause::NotFound { .. } => (ErrorKind::NotFound, "there is no such object"),
            Cause::PermissionDenied { .. } => (
                ErrorKind::Internal,
                "the service does not allow it: are the rights enough?",
            ),
            Cause::Unauthenticated { .. } => (
                ErrorKind::Internal,
                "the service does not know the credentials: are they right?",
            ),
            Cause::NotSupported { .. } | Cause::NotImplemented { .. } | Cause::InvalidPath { .. } => {
                (ErrorKind::Internal, "the service cannot do that")
            }
            // It was made again a few times, and still failed.
            _ => (ErrorKind::Unavailable, "the service does not answer as it should"),
        };
        Error::new(kind, operation, format!("{self}: {reason}")).caused_by(error)
    }

    pub(super) async fn head(&self, name: &Path) -> Result<Known> {
        let _slot = self.begin(&self.heads).await;
        let found = self
            .objects
            .head(name)
            .await
            .map_err(|error| self.error("find missing", error))?;
        Ok(Known {
            size: found.size,
            modified: SystemTime::from(found.last_modified),
        })
    }

    /// Opens an object, or a part of it. Its bytes are no request any more.
    pub(super) async fn get(&self, name: &Path, range: Option<GetRange>) -> Result<GetResult> {
        let _slot = self.begin(&self.gets).await;
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        self.objects
            .get_opts(name, options)
            .await
            .map_err(|error| self.error("get", error))
    }

    /// The bytes of what was opened.
    pub(super) fn bytes(self: &Arc<Self>, opened: GetResult) -> BoxStream<'static, Result<Bytes>> {
        let requests = self.clone();
        let pieces = opened.into_stream();
        pieces
            .map(move |piece| piece.map_err(|error| requests.error("get", error)))
            .boxed()
    }

    /// All bytes of what was opened, whose length the caller has looked at. A service that sends more is not listened to.
    pub(super) async fn collect(self: &Arc<Self>, opened: GetResult) -> Result<Bytes> {
        let len = opened.range.end - opened.range.start;
        let mut content = Vec::new();
        let mut pieces = self.bytes(opened);
        while let Some(piece) = pieces.next().await {
            content.extend_from_slice(&piece?);
            if content.len() as u64 > len {
                let reason = format!("{self}: the service sends more than it said");
                return Err(Error::new(ErrorKind::DataLoss, "get", reason));
            }
        }
        if (content.len() as u64) < len {
            let reason = format!("{self}: the object did not come as a whole");
            return Err(Error::new(ErrorKind::Unavailable, "get", reason));
        }
        Ok(content.into())
    }

    pub(super) async fn put(&self, name: &Path, content: PutPayload) -> Result<()> {
        let _slot = self.begin(&self.puts).await;
        let put = self.objects.put(name, content).await;
        put.map(|_| ()).map_err(|error| self.error("put", error))
    }

    pub(super) async fn begin_parts(&self, name: &Path) -> Result<Box<dyn MultipartUpload>> {
        let _slot = self.begin(&self.puts).await;
        self.objects
            .put_multipart(name)
            .await
            .map_err(|error| self.error("put", error))
    }

    pub(super) async fn put_part(&self, part: impl Future<Output = object_store::Result<()>>) -> Result<()> {
        let _slot = self.begin(&self.puts).await;
        part.await.map_err(|error| self.error("put", error))
    }

    pub(super) async fn end_parts(&self, upload: &mut dyn MultipartUpload) -> Result<()> {
        let _slot = self.begin(&self.puts).await;
        let put = upload.complete().await;
        put.map(|_| ()).map_err(|error| self.error("put", error))
    }

    pub(super) async fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let _slot = self.begin(&self.copies).await;
        self.objects
            .copy(from, to)
            .await
            .map_err(|error| self.error("touch", error))
    }

    pub(super) async fn delete(&self, name: &Path) -> Result<()> {
        let _slot = self.begin(&self.deletes).await;
        match self
            .objects
            .delete(name)
            .await
            .map_err(|error| self.error("remove", error))
        {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The names of objects below one.
    pub(super) fn list(self: &Arc<Self>, below: &Path) -> BoxStream<'static, Result<Path>> {
        let requests = self.clone();
        let objects = self.objects.list(Some(below));
        let named = objects.map(move |object| match object {
            Ok(object) => Ok(object.location),
            Err(error) => Err(requests.error("list", error)),
        });
        named.boxed()
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(f)
    }
}
