//! `BatchUpdateBlobs` and `BatchReadBlobs` of small blobs.

use rootcellar_proto::reapi;
use rootcellar_reapi::functions::to_proto;

use super::contents::{Blob, Check, Contents};
use super::drive::{Done, Load};
use super::failure::Failure;
use super::peer::Peer;
use super::settings::Settings;
use crate::random::Random;

/// Blobs that reads choose from.
const READ_BLOBS: usize = 20_000;
/// A digest in a message, with what the allocator takes for it.
pub(super) const DIGEST_BYTES: u64 = 144;

/// Uploads blobs that are all new.
pub(super) struct BatchUpdate {
    peer: Peer,
    contents: Contents,
    blobs_a_call: usize,
    small_bytes: u64,
}

impl Load for BatchUpdate {
    type Call = reapi::BatchUpdateBlobsRequest;

    async fn ready(peer: &Peer, settings: &Settings, mut random: Random) -> Result<Self, Failure> {
        Ok(Self {
            peer: peer.clone(),
            contents: Contents::new(settings.small_bytes, &mut random),
            blobs_a_call: settings.blobs_a_call,
            small_bytes: settings.small_bytes,
        })
    }

    fn call_bytes(&self) -> u64 {
        self.stored_bytes() + self.blobs_a_call as u64 * DIGEST_BYTES
    }

    fn stored_bytes(&self) -> u64 {
        self.blobs_a_call as u64 * self.small_bytes
    }

    fn round(&mut self, most: usize) -> Vec<Self::Call> {
        let (peer, contents, blobs_a_call) = (&self.peer, &mut self.contents, self.blobs_a_call);
        let call = |_| {
            let blobs = contents.blobs(blobs_a_call);
            peer.batch(blobs.into_iter().map(|blob| (blob.digest, contents.whole(blob))))
        };
        (0..most).map(call).collect()
    }

    async fn make(peer: &Peer, call: Self::Call) -> Result<Done, Failure> {
        let done = Done {
            items: call.requests.len() as u64,
            bytes: call.requests.iter().map(|item| item.data.len() as u64).sum(),
        };
        peer.update(call).await?;
        Ok(done)
    }
}

/// Reads blobs that are there, in a random order.
pub(super) struct BatchRead {
    peer: Peer,
    head: [u8; 16],
    blobs: Vec<Blob>,
    random: Random,
    blobs_a_call: usize,
}

/// A batch to read, and what has to come.
pub(super) struct ReadCall {
    request: reapi::BatchReadBlobsRequest,
    head: [u8; 16],
    /// The sum of the blobs' numbers: the answers may come in any order.
    numbers: u64,
}

impl Load for BatchRead {
    type Call = ReadCall;

    /// Uploads what will be read.
    async fn ready(peer: &Peer, settings: &Settings, mut random: Random) -> Result<Self, Failure> {
        let mut contents = Contents::new(settings.small_bytes, &mut random);
        let blobs = contents.blobs(settings.shrunk(READ_BLOBS));
        peer.upload(blobs.iter().map(|blob| (blob.digest, contents.whole(*blob))))
            .await?;
        Ok(Self {
            peer: peer.clone(),
            head: contents.head(),
            blobs,
            random,
            blobs_a_call: settings.blobs_a_call,
        })
    }

    fn call_bytes(&self) -> u64 {
        self.blobs_a_call as u64 * DIGEST_BYTES
    }

    fn round(&mut self, most: usize) -> Vec<Self::Call> {
        (0..most).map(|_| self.call()).collect()
    }

    async fn make(peer: &Peer, call: Self::Call) -> Result<Done, Failure> {
        let asked = call.request.digests.len();
        let answer = peer.cas().batch_read_blobs(call.request).await?.into_inner();
        if answer.responses.len() != asked {
            let answered = answer.responses.len();
            return Err(Failure::wrong(format!("{answered} answers to {asked} digests")));
        }
        let (mut bytes, mut numbers) = (0, 0_u64);
        for item in &answer.responses {
            bytes += item_bytes(item)?;
            if peer.keeps {
                numbers = numbers.wrapping_add(number_of(item, call.head)?);
            }
        }
        if peer.keeps && numbers != call.numbers {
            return Err(Failure::wrong("these are not the blobs that were asked for"));
        }
        Ok(Done {
            items: asked as u64,
            bytes,
        })
    }
}

impl BatchRead {
    fn call(&mut self) -> ReadCall {
        let mut numbers = 0_u64;
        let digests = (0..self.blobs_a_call).map(|_| {
            let index = self.random.below(self.blobs.len() as u64);
            let blob = self.blobs[usize::try_from(index).expect("an index")];
            numbers = numbers.wrapping_add(blob.number);
            to_proto(blob.digest)
        });
        let request = reapi::BatchReadBlobsRequest {
            instance_name: self.peer.instance_name(),
            digests: digests.collect(),
            ..reapi::BatchReadBlobsRequest::default()
        };
        ReadCall {
            request,
            head: self.head,
            numbers,
        }
    }
}

/// The length of a blob that was read, which is that of its digest.
pub(super) fn item_bytes(item: &reapi::batch_read_blobs_response::Response) -> Result<u64, Failure> {
    if let Some(failure) = Failure::of_item(item.status.as_ref()) {
        return Err(failure);
    }
    let bytes = item.data.len() as u64;
    let stated = item.digest.as_ref().map_or(0, |digest| digest.size_bytes);
    match u64::try_from(stated) == Ok(bytes) {
        true => Ok(bytes),
        false => Err(Failure::wrong(format!("a blob of {stated} bytes came with {bytes}"))),
    }
}

fn number_of(item: &reapi::batch_read_blobs_response::Response, head: [u8; 16]) -> Result<u64, Failure> {
    let mut check = Check::new(head);
    check.take(&item.data);
    check
        .number()
        .ok_or_else(|| Failure::wrong("a blob came with other bytes"))
}
