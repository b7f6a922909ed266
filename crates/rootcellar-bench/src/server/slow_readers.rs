//! A thousand clients that ask for large blobs and then do not read on: what a server keeps in memory for them.

use std::time::Duration;

use tokio::task::JoinSet;
use tonic::Streaming;

use rootcellar_proto::bytestream::{ReadRequest, ReadResponse};

use super::contents::Contents;
use super::failure::{Failure, Failures};
use super::peer::{Peer, Windows};
use super::process;
use super::settings::{Settings, Target};
use crate::random::Random;

pub(super) const READERS: usize = 1000;
pub(super) const BLOB_BYTES: u64 = 64 << 20;
const BLOBS: usize = 4;
const CONNECTIONS: usize = 16;
/// For the server to do what it is going to do for them.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// What that costs a server.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) readers: usize,
    /// Anonymous memory before.
    pub(super) idle_bytes: Option<u64>,
    /// The most of it while the readers wait.
    pub(super) most_bytes: Option<u64>,
    pub(super) failures: Failures,
}

/// Opens the reads, lets each have one message, and looks at the server while they wait.
pub(super) async fn measure(target: &Target, settings: &Settings, random: &mut Random) -> Result<Held, Failure> {
    let peers = Peer::connect(target, CONNECTIONS, Windows::NARROW).await?;
    let mut contents = Contents::new(BLOB_BYTES, random);
    let mut requests = Vec::new();
    for blob in contents.blobs(BLOBS) {
        let pieces = contents.pieces(blob, settings.message_bytes);
        peers[0].write(peers[0].write_requests(blob.digest, pieces)).await?;
        requests.push(peers[0].read_request(blob.digest));
    }
    tokio::time::sleep(BETWEEN_LOOKS * LOOKS).await;
    let memory = || target.process.and_then(process::anonymous_bytes);
    let mut held = Held {
        idle_bytes: memory(),
        ..Held::default()
    };
    let mut opening = JoinSet::new();
    let clients = peers.iter().cycle().cloned().zip(requests.iter().cycle().cloned());
    for (peer, request) in clients.take(settings.shrunk(READERS)) {
        opening.spawn(open(peer, request));
    }
    let mut readers = Vec::new();
    while let Some(opened) = opening.join_next().await {
        match opened.expect("a reader of the benchmark does not panic") {
            Ok(reader) => readers.push(reader),
            Err(failure) => held.failures.add(failure),
        }
        held.most_bytes = held.most_bytes.max(sometimes(readers.len(), memory));
    }
    for _ in 0..LOOKS {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        held.most_bytes = held.most_bytes.max(memory());
    }
    held.readers = readers.len();
    Ok(held)
}

/// Looking costs time, too.
fn sometimes(number: usize, memory: impl Fn() -> Option<u64>) -> Option<u64> {
    const EVERY: usize = 50;
    number.is_multiple_of(EVERY).then(memory).flatten()
}

async fn open(peer: Peer, request: ReadRequest) -> Result<Streaming<ReadResponse>, Failure> {
    let mut messages = peer.byte_stream().read(request).await?.into_inner();
    match messages.message().await? {
        Some(first) if !first.data.is_empty() => Ok(messages),
        _ => Err(Failure::wrong("a read ended before it began")),
    }
}
