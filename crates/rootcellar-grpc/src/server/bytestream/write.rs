//! `Write`: a blob in pieces, hashed as they come, and published only when it is whole and right.
//!
//! A write ends in one of these ways:
//!
//! - It is finished, and its content is what the digest says: the blob is stored, the answer is its size.
//! - The blob exists, from the start or because somebody else was faster: the answer is the blob's size at once, however much
//!   the client still has to send. Clients take that as success.
//! - The client closes its side without finishing, or its connection breaks: nothing is stored, what came is set aside.
//! - The content is wrong: nothing is stored, nothing is kept.

use std::sync::Arc;

use futures_util::stream::{Stream, StreamExt as _};
use rootcellar_proto::bytestream::WriteResponse;
use rootcellar_reapi::{Error, ErrorKind, Result, WriteName};
use rootcellar_store::BlobStoreExt as _;
use tokio::time::timeout;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::route::WriteMessage;
use super::uploads::{Upload, Uploads};
use super::{check_compressor, check_header};
use crate::server::arrivals::Arrival;
use crate::server::core::Core;
use crate::server::signed;
use crate::status::from_wire;

/// A call of `Write`, from its first message to its answer.
pub(super) struct Write<M> {
    core: Arc<Core>,
    uploads: Arc<Uploads>,
    messages: M,
}

/// A write whose target is known.
struct Writer<'a, M> {
    core: &'a Core,
    uploads: &'a Uploads,
    messages: &'a mut M,
    name: &'a str,
    arrival: Arrival,
    upload: Upload,
}

/// How a write ended well.
enum End {
    /// The blob is stored, by this write or another.
    Stored,
    /// The client closed its side early.
    Closed,
}

/// What the writer hears next.
enum Heard {
    Message(WriteMessage),
    Closed,
    Arrived,
}

impl<M> Write<M>
where
    M: Stream<Item = Result<WriteMessage, Status>> + Send + Unpin,
{
    pub(super) fn new(core: Arc<Core>, uploads: Arc<Uploads>, messages: M) -> Self {
        Self {
            core,
            uploads,
            messages,
        }
    }

    pub(super) async fn run(mut self, metadata: MetadataMap) -> Result<WriteResponse> {
        let first = self.first().await?;
        check_header(&metadata, &first.resource_name)?;
        let target = WriteName::parse(&first.resource_name, &self.core.functions)?;
        check_compressor(target.compressor)?;
        self.core.check_size(target.digest.size_bytes())?;
        let stored = WriteResponse {
            committed_size: signed(target.digest.size_bytes()),
        };
        // In this order: a copy that is stored in between is seen by one of the two.
        let arrival = self.core.arrivals.expect(target.digest);
        if self.core.store.contains(target.digest).await? {
            return Ok(stored);
        }
        let upload = start(&self.uploads, &first, &target).await?;
        let name = first.resource_name.clone();
        let mut writer = Writer {
            core: &self.core,
            uploads: &self.uploads,
            messages: &mut self.messages,
            name: &name,
            arrival,
            upload,
        };
        let outcome = writer.receive(first).await;
        let committed_size = signed(writer.upload.committed_bytes());
        if let Ok(End::Stored) = outcome {
            writer.upload.forget();
            return Ok(stored);
        }
        writer.upload.park();
        outcome.map(|_| WriteResponse { committed_size })
    }

    async fn first(&mut self) -> Result<WriteMessage> {
        let silence = self.uploads.limits().silence_max;
        match timeout(silence, self.messages.next()).await {
            Ok(Some(message)) => message.map_err(|status| from_wire(&status)),
            Ok(None) => Err(Error::invalid_argument(
                "a write begins with a message that names its resource",
            )),
            Err(_) => Err(silent(0)),
        }
    }
}

impl<M> Writer<'_, M>
where
    M: Stream<Item = Result<WriteMessage, Status>> + Send + Unpin,
{
    async fn receive(&mut self, first: WriteMessage) -> Result<End> {
        let mut message = first;
        loop {
            let is_last = message.finish_write;
            self.take(message).await?;
            if is_last {
                return self.finish().await;
            }
            message = match self.hear().await? {
                Heard::Message(message) => message,
                Heard::Closed => return Ok(End::Closed),
                Heard::Arrived => return Ok(End::Stored),
            };
        }
    }

    async fn take(&mut self, message: WriteMessage) -> Result<()> {
        if !message.resource_name.is_empty() && message.resource_name != self.name {
            return Err(Error::invalid_argument(
                "a later message of the write names another resource than the first",
            ));
        }
        let position = self.upload.position();
        if message.write_offset != signed(position) {
            let offset = message.write_offset;
            let reason = format!("the write offset is {offset}, but the data goes on at {position}");
            return Err(Error::invalid_argument(reason));
        }
        for piece in message.data.into_pieces() {
            self.upload.write(piece).await?;
        }
        Ok(())
    }

    async fn hear(&mut self) -> Result<Heard> {
        let silence = self.uploads.limits().silence_max;
        tokio::select! {
            biased;
            () = self.arrival.arrived() => Ok(Heard::Arrived),
            () = self.upload.wanted_elsewhere() => {
                Err(Error::new(ErrorKind::Aborted, "this upload was continued by another call"))
            }
            message = timeout(silence, self.messages.next()) => match message {
                Ok(Some(Ok(message))) => Ok(Heard::Message(message)),
                Ok(Some(Err(status))) => Err(from_wire(&status)),
                Ok(None) => Ok(Heard::Closed),
                Err(_) => Err(silent(self.upload.committed_bytes())),
            },
        }
    }

    async fn finish(&mut self) -> Result<End> {
        let blob = self.upload.finish()?;
        let digest = blob.digest();
        self.core.store.put(blob).await?;
        self.core.arrivals.announce(digest);
        let grace = self.uploads.limits().close_grace;
        match timeout(grace, self.messages.next()).await {
            Ok(Some(Ok(_))) => Err(Error::invalid_argument(
                "a message came after the one that finished the write",
            )),
            // Closed, broken or still open: the client has said all there is to say.
            _ => Ok(End::Stored),
        }
    }
}

async fn start(uploads: &Arc<Uploads>, first: &WriteMessage, target: &WriteName) -> Result<Upload> {
    let name = first.resource_name.as_str().into();
    match u64::try_from(first.write_offset) {
        Ok(0) => Ok(uploads.begin(name, target.digest)),
        Ok(offset) => uploads.resume(name, offset).await,
        Err(_) => {
            let reason = format!("the write offset {} is negative", first.write_offset);
            Err(Error::invalid_argument(reason))
        }
    }
}

fn silent(committed_bytes: u64) -> Error {
    let reason = format!("no message came for too long; continue at {committed_bytes}");
    Error::new(ErrorKind::Unavailable, reason)
}
