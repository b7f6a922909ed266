//! `ByteStream.Write` and `ByteStream.Read` of large blobs.

use rootcellar_proto::bytestream::{ReadRequest, WriteRequest};

use super::contents::{Blob, Check, Contents};
use super::drive::{Done, Load};
use super::failure::Failure;
use super::peer::Peer;
use super::settings::Settings;
use crate::random::Random;

/// Bytes that are there to be read.
const READ_BYTES: u64 = 256 << 20;
/// They are not more than so many blobs, and not less than two.
const READ_BLOBS_MAX: u64 = 1000;

/// Uploads blobs that are all new.
pub(super) struct StreamWrite {
    peer: Peer,
    contents: Contents,
    large_bytes: u64,
    message_bytes: usize,
}

impl Load for StreamWrite {
    type Call = Vec<WriteRequest>;

    async fn ready(peer: &Peer, settings: &Settings, mut random: Random) -> Result<Self, Failure> {
        Ok(Self {
            peer: peer.clone(),
            contents: Contents::new(settings.large_bytes, &mut random),
            large_bytes: settings.large_bytes,
            message_bytes: settings.message_bytes,
        })
    }

    fn call_bytes(&self) -> u64 {
        // All blobs share their contents but for the last message.
        self.message_bytes as u64
    }

    fn stored_bytes(&self) -> u64 {
        self.large_bytes
    }

    fn round(&mut self, most: usize) -> Vec<Self::Call> {
        let call = |_| {
            let blob = self.contents.blob();
            let pieces = self.contents.pieces(blob, self.message_bytes);
            self.peer.write_requests(blob.digest, pieces)
        };
        (0..most).map(call).collect()
    }

    async fn make(peer: &Peer, call: Self::Call) -> Result<Done, Failure> {
        let bytes = peer.write(call).await?;
        Ok(Done { items: 1, bytes })
    }
}

/// Reads blobs that are there.
pub(super) struct StreamRead {
    peer: Peer,
    head: [u8; 16],
    blobs: Vec<Blob>,
    next: usize,
}

/// A blob to read, and what has to come.
pub(super) struct ReadCall {
    pub(super) request: ReadRequest,
    pub(super) head: [u8; 16],
    pub(super) blob: Blob,
}

impl Load for StreamRead {
    type Call = ReadCall;

    /// Uploads what will be read.
    async fn ready(peer: &Peer, settings: &Settings, mut random: Random) -> Result<Self, Failure> {
        let count = (READ_BYTES / settings.shrink / settings.large_bytes).clamp(2, READ_BLOBS_MAX);
        let mut contents = Contents::new(settings.large_bytes, &mut random);
        let blobs = contents.blobs(usize::try_from(count).expect("it is small"));
        for blob in &blobs {
            let pieces = contents.pieces(*blob, settings.message_bytes);
            peer.write(peer.write_requests(blob.digest, pieces)).await?;
        }
        Ok(Self {
            peer: peer.clone(),
            head: contents.head(),
            blobs,
            next: 0,
        })
    }

    fn call_bytes(&self) -> u64 {
        512
    }

    fn round(&mut self, most: usize) -> Vec<Self::Call> {
        let call = |_| {
            let blob = self.blobs[self.next % self.blobs.len()];
            self.next += 1;
            ReadCall {
                request: self.peer.read_request(blob.digest),
                head: self.head,
                blob,
            }
        };
        (0..most).map(call).collect()
    }

    async fn make(peer: &Peer, call: Self::Call) -> Result<Done, Failure> {
        let mut check = Check::new(call.head);
        let mut messages = peer.byte_stream().read(call.request).await?.into_inner();
        while let Some(message) = messages.message().await? {
            check.take(&message.data);
        }
        let (bytes, expected) = (check.bytes(), call.blob.digest.size_bytes());
        if bytes != expected {
            return Err(Failure::wrong(format!("{bytes} bytes came of {expected}")));
        }
        if peer.keeps && check.number() != Some(call.blob.number) {
            return Err(Failure::wrong("a blob came with other bytes"));
        }
        Ok(Done { items: 1, bytes })
    }
}
