//! A connection to a server, and what loads need to make ready: uploads.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use rootcellar_digest::Digest;
use rootcellar_proto::bytestream::byte_stream_client::ByteStreamClient;
use rootcellar_proto::bytestream::{ReadRequest, WriteRequest};
use rootcellar_proto::reapi;
use rootcellar_proto::reapi::action_cache_client::ActionCacheClient;
use rootcellar_proto::reapi::batch_update_blobs_request::Request as UpdateItem;
use rootcellar_proto::reapi::capabilities_client::CapabilitiesClient;
use rootcellar_proto::reapi::compressor::Value as Compressor;
use rootcellar_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use rootcellar_reapi::functions::to_proto;
use rootcellar_reapi::{InstanceName, ReadName, WriteName};
use tonic::transport::{Channel, Endpoint};

use super::failure::Failure;
use super::settings::{Role, Target};

/// Answers are as long as servers make them: a tree of a thousand directories may come in one.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one batch of an upload, below what any server takes in a message.
pub(super) const BATCH_BYTES_MAX: u64 = 2 << 20;
const BATCH_BLOBS_MAX: usize = 1000;

/// How much a server may send before it is read, and in which pieces: the same for all that are measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    pub(super) stream_bytes: u32,
    pub(super) connection_bytes: u32,
}

impl Windows {
    /// Room for large blobs on a fast link, as the client of this project has it.
    pub(super) const WIDE: Self = Self {
        stream_bytes: 2 << 20,
        connection_bytes: 16 << 20,
    };
    /// What HTTP/2 gives a stream by default, with connections wide enough for many of them.
    pub(super) const NARROW: Self = Self {
        stream_bytes: 64 << 10,
        connection_bytes: 64 << 20,
    };
}

const FRAME_BYTES_MAX: u32 = 64 << 10;

/// A connection. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    channel: Channel,
    instance: InstanceName,
    /// Whether what it hands out is what it was given.
    pub(super) keeps: bool,
}

impl Peer {
    /// Connects so many times, and asks each time what the server can do.
    pub(super) async fn connect(target: &Target, connections: usize, windows: Windows) -> Result<Vec<Self>, Failure> {
        let instance =
            InstanceName::parse(&target.instance).map_err(|error| Failure::unreachable(error.to_string()))?;
        let endpoint = endpoint(&target.url, windows)?;
        let mut peers = Vec::new();
        for _ in 0..connections.max(1) {
            let channel = endpoint.connect().await.map_err(|error| {
                let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                Failure::unreachable(format!("no server answers at {}: {reason}", target.url))
            })?;
            let peer = Self {
                channel,
                instance: instance.clone(),
                keeps: target.role != Role::Bare,
            };
            peer.greet().await?;
            peers.push(peer);
        }
        Ok(peers)
    }

    async fn greet(&self) -> Result<(), Failure> {
        let request = reapi::GetCapabilitiesRequest {
            instance_name: self.instance_name(),
        };
        CapabilitiesClient::new(self.channel.clone())
            .get_capabilities(request)
            .await?;
        Ok(())
    }

    pub(super) fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(super) fn byte_stream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(super) fn action_cache(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(super) fn instance_name(&self) -> String {
        self.instance.as_str().to_owned()
    }

    /// The question for all of a blob.
    pub(super) fn read_request(&self, digest: Digest) -> ReadRequest {
        let name = ReadName {
            instance: self.instance.clone(),
            compressor: Compressor::Identity,
            digest,
        };
        ReadRequest {
            resource_name: name.to_string(),
            ..ReadRequest::default()
        }
    }

    /// The messages of an upload that nobody else makes.
    pub(super) fn write_requests(&self, digest: Digest, pieces: Vec<Bytes>) -> Vec<WriteRequest> {
        let name = WriteName {
            instance: self.instance.clone(),
            upload: upload_name(digest),
            compressor: Compressor::Identity,
            digest,
        };
        let (mut name, mut offset, count) = (Some(name.to_string()), 0, pieces.len());
        let message = |(index, data): (usize, Bytes)| {
            let message = WriteRequest {
                resource_name: name.take().unwrap_or_default(),
                write_offset: offset,
                finish_write: index + 1 == count,
                data,
            };
            offset += i64::try_from(message.data.len()).expect("pieces are small");
            message
        };
        pieces.into_iter().enumerate().map(message).collect()
    }

    /// Writes a blob, and checks that all of it was taken.
    pub(super) async fn write(&self, messages: Vec<WriteRequest>) -> Result<u64, Failure> {
        let bytes: u64 = messages.iter().map(|message| message.data.len() as u64).sum();
        let answer = self.byte_stream().write(stream::iter(messages)).await?.into_inner();
        match u64::try_from(answer.committed_size) {
            Ok(committed) if committed == bytes => Ok(bytes),
            _ => Err(Failure::wrong(format!(
                "{} bytes of {bytes} were committed",
                answer.committed_size
            ))),
        }
    }

    /// A batch of blobs.
    pub(super) fn batch(&self, blobs: impl IntoIterator<Item = (Digest, Bytes)>) -> reapi::BatchUpdateBlobsRequest {
        let item = |(digest, data)| UpdateItem {
            digest: Some(to_proto(digest)),
            data,
            ..UpdateItem::default()
        };
        reapi::BatchUpdateBlobsRequest {
            instance_name: self.instance_name(),
            requests: blobs.into_iter().map(item).collect(),
            ..reapi::BatchUpdateBlobsRequest::default()
        }
    }

    /// Sends a batch, and checks that every blob of it was taken.
    pub(super) async fn update(&self, batch: reapi::BatchUpdateBlobsRequest) -> Result<(), Failure> {
        let asked = batch.requests.len();
        let answer = self.cas().batch_update_blobs(batch).await?.into_inner();
        if let Some(failure) = answer
            .responses
            .iter()
            .find_map(|item| Failure::of_item(item.status.as_ref()))
        {
            return Err(failure);
        }
        match answer.responses.len() {
            answered if answered == asked => Ok(()),
            answered => Err(Failure::wrong(format!("{answered} answers to {asked} blobs"))),
        }
    }

    /// Uploads small blobs, in as many batches as that takes.
    pub(super) async fn upload(&self, blobs: impl IntoIterator<Item = (Digest, Bytes)>) -> Result<(), Failure> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (digest, data) in blobs {
            if batch.len() == BATCH_BLOBS_MAX || bytes + data.len() as u64 > BATCH_BYTES_MAX {
                self.update(self.batch(std::mem::take(&mut batch))).await?;
                bytes = 0;
            }
            bytes += data.len() as u64;
            batch.push((digest, data));
        }
        match batch.is_empty() {
            true => Ok(()),
            false => self.update(self.batch(batch)).await,
        }
    }
}

/// A name that is shaped like a UUID, as some servers want it, and is another one for each blob.
fn upload_name(digest: Digest) -> String {
    let hex = digest.hash_hex().to_string();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]].join("-")
}

fn endpoint(url: &str, windows: Windows) -> Result<Endpoint, Failure> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|_| Failure::unreachable(format!("{url:?} is no URL: write http://HOST:PORT")))?;
    Ok(endpoint
        .initial_stream_window_size(windows.stream_bytes)
        .initial_connection_window_size(windows.connection_bytes)
        .max_frame_size(FRAME_BYTES_MAX)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcellar_reapi::Functions;

    use crate::Random;
    use crate::server::contents::Contents;

    fn peer(instance: &str) -> Peer {
        Peer {
            channel: Channel::from_static("http://127.0.0.1:1").connect_lazy(),
            instance: InstanceName::parse(instance).unwrap(),
            keeps: true,
        }
    }

    #[tokio::test]
    async fn resource_names_are_those_of_the_protocol() {
        let functions = Functions::default();
        let mut contents = Contents::new(1000, &mut Random::new(1));
        let blob = contents.blob();
        for instance in ["", "main", "a/b"] {
            let peer = peer(instance);
            let read = ReadName::parse(&peer.read_request(blob.digest).resource_name, &functions).unwrap();
            assert_eq!((read.instance.as_str(), read.digest), (instance, blob.digest));
            let messages = peer.write_requests(blob.digest, contents.pieces(blob, 300));
            let write = WriteName::parse(&messages[0].resource_name, &functions).unwrap();
            assert_eq!((write.instance.as_str(), write.digest), (instance, blob.digest));
            assert_eq!(write.upload.len(), 36);
        }
    }

    #[tokio::test]
    async fn a_write_names_its_blob_once_and_ends_once() {
        let mut contents = Contents::new(1000, &mut Random::new(1));
        let blob = contents.blob();
        let messages = peer("").write_requests(blob.digest, contents.pieces(blob, 300));
        let offsets: Vec<_> = messages.iter().map(|message| message.write_offset).collect();
        assert_eq!(offsets, [0, 300, 600, 900]);
        assert!(messages[1..].iter().all(|message| message.resource_name.is_empty()));
        let ends: Vec<_> = messages.iter().map(|message| message.finish_write).collect();
        assert_eq!(ends, [false, false, false, true]);
    }
}
