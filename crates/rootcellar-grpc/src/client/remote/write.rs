//! Uploading one blob in pieces, and going on where the upload broke off.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use rootcellar_proto::bytestream::{QueryWriteStatusRequest, WriteRequest};
use rootcellar_proto::reapi::compressor::Value as Compressor;
use rootcellar_reapi::WriteName;
use rootcellar_store::{Blob, ByteRange, Error, Result, Verified};
use tonic::Status;
use uuid::Uuid;

use super::{Remote, Traffic};

/// Bytes of a blob in one message: large enough to make messages cheap, small enough to let other calls slip in between.
const PIECE_BYTES: usize = 256 * 1024;

/// Why an attempt to upload a blob did not succeed.
enum Failure {
    /// The server or the connection.
    Call(Status),
    /// The bytes could not be read here.
    Local(Error),
}

impl Remote {
    /// Uploads a blob alone. A server that has it already says so before it has all bytes.
    pub(super) async fn write(&self, blob: &Verified) -> Result<()> {
        let digest = blob.digest();
        let name = WriteName {
            instance: self.connection.instance().clone(),
            upload: Uuid::new_v4().to_string(),
            compressor: Compressor::Identity,
            digest,
        };
        let name = name.to_string();
        let mut pauses = self.connection.retry().pauses();
        let mut offset = 0;
        loop {
            let status = match self.write_from(offset, blob, &name).await {
                Ok(committed) => return self.check_committed(blob, committed),
                Err(Failure::Local(error)) => return Err(error),
                Err(Failure::Call(status)) => status,
            };
            let paused = pauses.pause_after(status).await;
            paused.map_err(|status| self.error("put", digest, &self.connection.error(&status)))?;
            let committed = self.committed(&name).await.min(digest.size_bytes());
            if committed > offset {
                pauses.reset();
            }
            offset = committed;
        }
    }

    /// Sends the blob from `offset` on; the size that the server then has.
    async fn write_from(&self, offset: u64, blob: &Verified, name: &str) -> Result<i64, Failure> {
        let content = blob.open(ByteRange::from(offset)).map_err(Failure::Local)?;
        let fault = Fault::default();
        let messages = messages(name.to_owned(), content, self.traffic.clone(), fault.clone());
        let outcome = self.connection.byte_stream().write(messages).await;
        if let Some(error) = fault.take() {
            return Err(Failure::Local(error));
        }
        let answer = outcome.map_err(Failure::Call)?;
        Ok(answer.into_inner().committed_size)
    }

    /// Where to go on with an upload. A server that does not know, or does not tell, gets everything again.
    async fn committed(&self, name: &str) -> u64 {
        let request = QueryWriteStatusRequest {
            resource_name: name.to_owned(),
        };
        match self.connection.byte_stream().query_write_status(request).await {
            Ok(status) => u64::try_from(status.into_inner().committed_size).unwrap_or(0),
            Err(_) => 0,
        }
    }

    fn check_committed(&self, blob: &Verified, committed: i64) -> Result<()> {
        let digest = blob.digest();
        if u64::try_from(committed) == Ok(digest.size_bytes()) {
            return Ok(());
        }
        let reason = format!("the upload ended well, but the server committed {committed} bytes");
        Err(self.confused("put", digest, &reason))
    }
}

/// Where the reader of the bytes leaves its error, since the stream of messages has no place for one.
#[derive(Debug, Clone, Default)]
struct Fault(Arc<Mutex<Option<Error>>>);

impl Fault {
    fn set(&self, error: Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The messages of an upload. If the bytes cannot be read they end early: the server then has no whole blob.
fn messages(name: String, content: Blob, traffic: Arc<Traffic>, fault: Fault) -> impl Stream<Item = WriteRequest> {
    let (size, mut at) = (content.digest().size_bytes(), content.range().start);
    let mut name = Some(name);
    let read = content.into_stream().scan((), move |(), piece| {
        let piece = piece.map_err(|error| fault.set(error)).ok();
        async { piece }
    });
    let pieces = read.flat_map(|piece| stream::iter(cut(piece)));
    // All bytes may be there already, only the end is not.
    let last = stream::iter((at == size).then(Bytes::new));
    last.chain(pieces).map(move |data| {
        traffic.count_sent(data.len());
        let write_offset = i64::try_from(at).expect("no blob has 2^63 bytes");
        at += data.len() as u64;
        WriteRequest {
            resource_name: name.take().unwrap_or_default(),
            write_offset,
            finish_write: at == size,
            data,
        }
    })
}

fn cut(mut piece: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let next = piece.split_to(PIECE_BYTES.min(piece.len()));
        (!next.is_empty()).then_some(next)
    })
}
