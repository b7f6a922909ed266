//! Downloading a blob or a part of one, and going on where the download broke off.
//!
//! A server may send too little, too much, or other bytes. The last piece is held back until that is ruled out: by the hash if
//! the blob is read as a whole, else by the length and by an end without an error.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use rootcellar_digest::{Digest, Hasher};
use rootcellar_proto::bytestream::{ReadRequest, ReadResponse};
use rootcellar_proto::reapi::compressor::Value as Compressor;
use rootcellar_reapi::ReadName;
use rootcellar_store::{Blob, Error, ErrorKind, Result};
use tonic::{Status, Streaming};

use super::Remote;
use crate::client::retry::Pauses;

/// Pieces with fewer bytes are hashed where they are: that takes less time than the way to another thread.
const HASHED_INLINE_BYTES_MAX: usize = 64 * 1024;

/// A read under way.
pub(super) struct Reader {
    remote: Remote,
    digest: Digest,
    range: Range<u64>,
    /// What was received so far ends here.
    at: u64,
    /// `None` if only a part is read.
    hasher: Option<Hasher>,
    messages: Option<Streaming<ReadResponse>>,
    pauses: Pauses,
}

impl Reader {
    /// Prepares to read `range`, which is not empty.
    pub(super) fn new(remote: Remote, digest: Digest, range: Range<u64>) -> Self {
        let size = digest.size_bytes();
        let pauses = remote.connection.retry().pauses();
        Self {
            remote,
            digest,
            at: range.start,
            hasher: (range == (0..size)).then(|| Hasher::new(digest.function(), size)),
            range,
            messages: None,
            pauses,
        }
    }

    /// Waits for the first piece, so that a missing blob is told before it.
    pub(super) async fn open(mut self) -> Result<Blob> {
        let (digest, range) = (self.digest, self.range.clone());
        let first = self.piece().await?;
        if self.is_done() {
            return Ok(Blob::from_bytes(digest, range, first));
        }
        let rest = stream::try_unfold(self, |mut reader| async move {
            if reader.is_done() {
                return Ok(None);
            }
            let piece = reader.piece().await?;
            Ok(Some((piece, reader)))
        });
        let pieces = stream::iter([Ok(first)]).chain(rest);
        Ok(Blob::from_stream(digest, range, pieces.boxed()))
    }

    fn is_done(&self) -> bool {
        self.at == self.range.end
    }

    /// The next piece, which is checked if it is the last.
    async fn piece(&mut self) -> Result<Bytes> {
        let piece = self.receive().await?;
        self.remote.traffic.count_received(piece.len());
        self.at += piece.len() as u64;
        if self.at > self.range.end {
            return Err(self.data_loss("the server sent more bytes than it was asked for"));
        }
        self.hash(&piece).await;
        if self.is_done() {
            self.check_end().await?;
        }
        Ok(piece)
    }

    /// Bytes that are there, from this attempt or another.
    async fn receive(&mut self) -> Result<Bytes> {
        loop {
            match self.message().await {
                Ok(Some(data)) if data.is_empty() => {}
                Ok(Some(data)) => {
                    self.pauses.reset();
                    return Ok(data);
                }
                Ok(None) => {
                    let left = self.range.end - self.at;
                    return Err(self.data_loss(&format!("the server ended {left} bytes before the end")));
                }
                Err(status) => {
                    self.messages = None;
                    let paused = self.pauses.pause_after(status).await;
                    paused.map_err(|status| self.failed(&status))?;
                }
            }
        }
    }

    async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        if self.messages.is_none() {
            let request = self.request();
            let answer = self.remote.connection.byte_stream().read(request).await?;
            self.messages = Some(answer.into_inner());
        }
        let messages = self.messages.as_mut().expect("opened just now if it was not");
        Ok(messages.message().await?.map(|message| message.data))
    }

    /// Asks for what was not received yet.
    fn request(&self) -> ReadRequest {
        let name = ReadName {
            instance: self.remote.connection.instance().clone(),
            compressor: Compressor::Identity,
            digest: self.digest,
        };
        let signed = |bytes: u64| i64::try_from(bytes).expect("no blob has 2^63 bytes");
        let reaches_the_end = self.range.end == self.digest.size_bytes();
        ReadRequest {
            resource_name: name.to_string(),
            read_offset: signed(self.at),
            read_limit: if reaches_the_end {
                0
            } else {
                signed(self.range.end - self.at)
            },
        }
    }

    async fn hash(&mut self, piece: &Bytes) {
        let Some(mut hasher) = self.hasher.take() else {
            return;
        };
        if piece.len() <= HASHED_INLINE_BYTES_MAX {
            hasher.update(piece);
            self.hasher = Some(hasher);
            return;
        }
        let piece = piece.clone();
        let hash = move || {
            hasher.update(&piece);
            hasher
        };
        let hasher = tokio::task::spawn_blocking(hash).await;
        self.hasher = Some(hasher.expect("hashing does not panic, and the runtime outlives its tasks"));
    }

    /// Makes sure that all that came is right, and that nothing follows.
    async fn check_end(&mut self) -> Result<()> {
        let found = self.hasher.take().map(Hasher::finish);
        let is_verified = found.is_some();
        if found.is_some_and(|found| found != Ok(self.digest)) {
            return Err(self.remote.wrong(self.digest));
        }
        loop {
            match self.message().await {
                Ok(None) => return Ok(()),
                Ok(Some(data)) if data.is_empty() => {}
                Ok(Some(_)) => return Err(self.data_loss("the server sent more bytes than it was asked for")),
                // The bytes are proven to be right, whatever happened to the server behind them.
                Err(_) if is_verified => return Ok(()),
                Err(status) => return Err(self.failed(&status)),
            }
        }
    }

    fn failed(&self, status: &Status) -> Error {
        self.remote
            .error("get", self.digest, &self.remote.connection.error(status))
    }

    fn data_loss(&self, reason: &str) -> Error {
        Error::new(ErrorKind::DataLoss, "get", format!("{}: {reason}", self.remote)).on(self.digest)
    }
}
