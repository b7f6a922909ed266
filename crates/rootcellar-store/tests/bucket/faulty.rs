//! An object store that fails now and then.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use rootcellar_store::testing::{Seeded, StoreFault};

/// Of the requests that `inner` answers well, one in `one_in` goes wrong.
#[derive(Debug)]
pub(crate) struct FaultyObjects<O> {
    dice: Arc<Dice>,
    inner: O,
}

#[derive(Debug)]
struct Dice {
    seeded: Mutex<Seeded>,
    one_in: u64,
    injected: AtomicU64,
}

impl<O: ObjectStore> FaultyObjects<O> {
    pub(crate) fn new(inner: O, seed: u64, one_in: u64) -> Self {
        let dice = Dice {
            seeded: Mutex::new(Seeded::new(seed)),
            one_in,
            injected: AtomicU64::new(0),
        };
        Self {
            dice: Arc::new(dice),
            inner,
        }
    }

    pub(crate) fn injected(&self) -> u64 {
        self.dice.injected.load(Ordering::Relaxed)
    }
}

fn failure() -> Error {
    Error::Generic {
        store: "faulty",
        source: "a fault that was asked for".into(),
    }
}

impl Dice {
    fn number(&self) -> usize {
        usize::try_from(self.seeded.lock().unwrap().below(1 << 30)).unwrap()
    }

    /// The fault of a request, when its time has come.
    async fn before(&self) -> Result<Option<StoreFault>> {
        let fault = {
            let mut seeded = self.seeded.lock().unwrap();
            let hits = seeded.below(self.one_in) == 0;
            let which = usize::try_from(seeded.below(StoreFault::ALL.len() as u64)).unwrap();
            hits.then_some(StoreFault::ALL[which])
        };
        self.injected.fetch_add(u64::from(fault.is_some()), Ordering::Relaxed);
        match fault {
            Some(StoreFault::Refused) => Err(failure()),
            Some(StoreFault::Delayed) => {
                tokio::time::sleep(Duration::from_millis(2)).await;
                Ok(None)
            }
            other => Ok(other),
        }
    }
}

fn after(fault: Option<StoreFault>) -> Result<()> {
    match fault {
        Some(StoreFault::AcknowledgementLost) => Err(failure()),
        _ => Ok(()),
    }
}

#[async_trait]
impl<O: ObjectStore> ObjectStore for FaultyObjects<O> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.dice.before().await?;
        let put = self.inner.put_opts(location, payload, options).await?;
        after(fault).map(|()| put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.dice.before().await?;
        let upload = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(FaultyUpload {
            dice: self.dice.clone(),
            upload,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_whole = options.range.is_none() && !options.head;
        let fault = self.dice.before().await?;
        let at = self.dice.number();
        let mut found = self.inner.get_opts(location, options).await?;
        after(fault)?;
        if fault == Some(StoreFault::Short) || (fault == Some(StoreFault::Wrong) && is_whole) {
            found = spoil(found, fault, at).await?;
        }
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.dice.before().await?;
        self.inner.copy_opts(from, to, options).await
    }
}

async fn spoil(found: GetResult, fault: Option<StoreFault>, at: usize) -> Result<GetResult> {
    let (meta, range, attributes, extensions) = (
        found.meta.clone(),
        found.range.clone(),
        found.attributes.clone(),
        found.extensions.clone(),
    );
    let mut content = found.bytes().await?.to_vec();
    match fault {
        Some(StoreFault::Short) => content.truncate(content.len() / 2),
        _ => {
            let at = at % content.len().max(1);
            content.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
        }
    }
    Ok(GetResult {
        payload: GetResultPayload::Stream(stream::iter([Ok(Bytes::from(content))]).boxed()),
        meta,
        range,
        attributes,
        extensions,
    })
}

#[derive(Debug)]
struct FaultyUpload {
    dice: Arc<Dice>,
    upload: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (dice, part) = (self.dice.clone(), self.upload.put_part(data));
        Box::pin(async move {
            dice.before().await?;
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.dice.before().await?;
        let put = self.upload.complete().await?;
        after(fault).map(|()| put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

impl<O: fmt::Display> fmt::Display for FaultyObjects<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}
