//! `FindMissingBlobs`: long lists of digests, half of them present.

use rootcellar_digest::Digest;
use rootcellar_proto::reapi;
use rootcellar_reapi::functions::to_proto;

use super::batches::DIGEST_BYTES;
use super::contents::{Contents, FUNCTION};
use super::drive::{Done, Load};
use super::failure::Failure;
use super::peer::Peer;
use super::settings::Settings;
use crate::random::Random;

/// Blobs that are there.
const PRESENT: usize = 20_000;
const PRESENT_BYTES: u64 = 100;

/// Asks for digests.
pub(super) struct FindMissing {
    peer: Peer,
    present: Vec<Digest>,
    random: Random,
    digests_a_call: usize,
}

impl FindMissing {
    fn call(&mut self) -> LookupCall {
        let present = self.digests_a_call / 2;
        let missing = self.digests_a_call - present;
        let mut digests: Vec<Digest> = Vec::with_capacity(self.digests_a_call);
        for _ in 0..present {
            let index = self.random.below(self.present.len() as u64);
            digests.push(self.present[usize::try_from(index).expect("an index")]);
        }
        for _ in 0..missing {
            digests.push(random_digest(&mut self.random, PRESENT_BYTES));
        }
        self.random.shuffle(&mut digests);
        LookupCall {
            request: reapi::FindMissingBlobsRequest {
                instance_name: self.peer.instance_name(),
                blob_digests: digests.into_iter().map(to_proto).collect(),
                ..reapi::FindMissingBlobsRequest::default()
            },
            missing,
        }
    }
}

/// The name of a blob that nobody has.
pub(super) fn random_digest(random: &mut Random, size_bytes: u64) -> Digest {
    Digest::new(FUNCTION, &random.bytes(32), size_bytes).expect("so long is a hash of this function")
}

/// Digests to ask for, and how many have to be missing.
pub(super) struct LookupCall {
    request: reapi::FindMissingBlobsRequest,
    missing: usize,
}

impl Load for FindMissing {
    type Call = LookupCall;

    /// Uploads what will be present.
    async fn ready(peer: &Peer, settings: &Settings, mut random: Random) -> Result<Self, Failure> {
        let mut contents = Contents::new(PRESENT_BYTES, &mut random);
        let blobs = contents.blobs(settings.shrunk(PRESENT));
        peer.upload(blobs.iter().map(|blob| (blob.digest, contents.whole(*blob))))
            .await?;
        let find_missing = Self {
            peer: peer.clone(),
            present: blobs.iter().map(|blob| blob.digest).collect(),
            random,
            digests_a_call: settings.digests_a_call,
        };
        Ok(find_missing)
    }

    fn call_bytes(&self) -> u64 {
        self.digests_a_call as u64 * DIGEST_BYTES
    }

    fn round(&mut self, most: usize) -> Vec<Self::Call> {
        (0..most).map(|_| self.call()).collect()
    }

    async fn make(peer: &Peer, call: Self::Call) -> Result<Done, Failure> {
        let items = call.request.blob_digests.len() as u64;
        let answer = peer.cas().find_missing_blobs(call.request).await?.into_inner();
        let found = answer.missing_blob_digests.len();
        match found == call.missing {
            true => Ok(Done { items, bytes: 0 }),
            false => Err(Failure::wrong(format!(
                "{found} are said to be missing, not {}",
                call.missing
            ))),
        }
    }
}
