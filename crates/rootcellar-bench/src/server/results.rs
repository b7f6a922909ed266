//! `UpdateActionResult` and `GetActionResult`: results with some output files, as a compiler has them. The actions of results that are
//! got are in the store, as clients have it; those of results that are put are not.

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use prost::Message as _;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi;
use rootcellar_reapi::functions::to_proto;

use super::contents::{Contents, FUNCTION};
use super::drive::{Done, Load};
use super::failure::Failure;
use super::lookups::random_digest;
use super::peer::Peer;
use super::settings::Settings;
use crate::random::Random;

/// Output files that results name.
const OUTPUTS: usize = 1000;
const OUTPUT_BYTES: u64 = 1000;
const OUTPUTS_A_RESULT: usize = 3;
/// Results that reads choose from.
const RESULTS: usize = 2000;
/// Bytes of an Action message, about.
const ACTION_BYTES: u64 = 142;
/// A result in memory, about.
const RESULT_BYTES: u64 = 1500;

/// Makes results of actions that nobody ran.
struct Results {
    outputs: Vec<Digest>,
    random: Random,
    instance: String,
}

impl Results {
    /// Uploads the output files.
    async fn new(peer: &Peer, settings: &Settings, mut random: Random) -> Result<Self, Failure> {
        let mut contents = Contents::new(OUTPUT_BYTES, &mut random);
        let blobs = contents.blobs(settings.shrunk(OUTPUTS));
        peer.upload(blobs.iter().map(|blob| (blob.digest, contents.whole(*blob))))
            .await?;
        Ok(Self {
            outputs: blobs.iter().map(|blob| blob.digest).collect(),
            random,
            instance: peer.instance_name(),
        })
    }

    /// The result of an action that nobody knows.
    fn next(&mut self) -> reapi::UpdateActionResultRequest {
        let action = random_digest(&mut self.random, ACTION_BYTES);
        self.next_of(action)
    }

    fn next_of(&mut self, action: Digest) -> reapi::UpdateActionResultRequest {
        let output = |number| {
            let index = self.random.below(self.outputs.len() as u64);
            let digest = self.outputs[usize::try_from(index).expect("an index")];
            output_file(number, digest)
        };
        let result = reapi::ActionResult {
            output_files: (0..OUTPUTS_A_RESULT).map(output).collect(),
            ..reapi::ActionResult::default()
        };
        reapi::UpdateActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(to_proto(action)),
            action_result: Some(result),
            ..reapi::UpdateActionResultRequest::default()
        }
    }
}

/// An output file of a result.
pub(super) fn output_file(number: usize, digest: Digest) -> reapi::OutputFile {
    reapi::OutputFile {
        path: output_path(number),
        digest: Some(to_proto(digest)),
        ..reapi::OutputFile::default()
    }
}

pub(super) fn output_path(number: usize) -> String {
    format!("out/some/package/module-{number}.o")
}

/// Puts results of actions that are all new.
pub(super) struct AcPut(Results);

impl Load for AcPut {
    type Call = reapi::UpdateActionResultRequest;

    async fn ready(peer: &Peer, settings: &Settings, random: Random) -> Result<Self, Failure> {
        Results::new(peer, settings, random).await.map(Self)
    }

    fn call_bytes(&self) -> u64 {
        RESULT_BYTES
    }

    fn round(&mut self, most: usize) -> Vec<Self::Call> {
        (0..most).map(|_| self.0.next()).collect()
    }

    async fn make(peer: &Peer, call: Self::Call) -> Result<Done, Failure> {
        peer.action_cache().update_action_result(call).await?;
        Ok(Done { items: 1, bytes: 0 })
    }
}

/// Gets results that are there.
pub(super) struct AcGet {
    actions: Vec<reapi::Digest>,
    random: Random,
    instance: String,
}

/// Uploads actions that are all different, and their command.
async fn upload_actions(peer: &Peer, count: usize, random: &mut Random) -> Result<Vec<Digest>, Failure> {
    let command = reapi::Command {
        arguments: vec!["/usr/bin/cc".to_owned(), "-o".to_owned(), output_path(0)],
        output_paths: (0..OUTPUTS_A_RESULT).map(output_path).collect(),
        ..reapi::Command::default()
    };
    let stored = |bytes: Vec<u8>| (Digest::of(FUNCTION, &bytes), Bytes::from(bytes));
    let command = stored(command.encode_to_vec());
    let mut action = || {
        stored(
            reapi::Action {
                command_digest: Some(to_proto(command.0)),
                input_root_digest: Some(to_proto(random_digest(random, ACTION_BYTES))),
                ..reapi::Action::default()
            }
            .encode_to_vec(),
        )
    };
    let actions: Vec<(Digest, Bytes)> = (0..count).map(|_| action()).collect();
    let digests = actions.iter().map(|(digest, _)| *digest).collect();
    peer.upload(actions.into_iter().chain([command])).await?;
    Ok(digests)
}

impl Load for AcGet {
    type Call = reapi::GetActionResultRequest;

    /// Puts what will be got.
    async fn ready(peer: &Peer, settings: &Settings, random: Random) -> Result<Self, Failure> {
        let mut results = Results::new(peer, settings, random).await?;
        let actions = upload_actions(peer, settings.shrunk(RESULTS), &mut results.random).await?;
        let requests: Vec<_> = actions.iter().map(|action| results.next_of(*action)).collect();
        let put = |request| async move { peer.action_cache().update_action_result(request).await.map(drop) };
        stream::iter(requests.into_iter().map(Ok))
            .try_for_each_concurrent(settings.concurrency, put)
            .await?;
        Ok(Self {
            actions: actions.into_iter().map(to_proto).collect(),
            random: results.random,
            instance: results.instance,
        })
    }

    fn call_bytes(&self) -> u64 {
        RESULT_BYTES
    }

    fn round(&mut self, most: usize) -> Vec<Self::Call> {
        let call = |_| {
            let index = self.random.below(self.actions.len() as u64);
            reapi::GetActionResultRequest {
                instance_name: self.instance.clone(),
                action_digest: Some(self.actions[usize::try_from(index).expect("an index")].clone()),
                ..reapi::GetActionResultRequest::default()
            }
        };
        (0..most).map(call).collect()
    }

    async fn make(peer: &Peer, call: Self::Call) -> Result<Done, Failure> {
        let result = peer.action_cache().get_action_result(call).await?.into_inner();
        match result.output_files.len() {
            OUTPUTS_A_RESULT => Ok(Done { items: 1, bytes: 0 }),
            found => Err(Failure::wrong(format!(
                "{found} output files came of {OUTPUTS_A_RESULT}"
            ))),
        }
    }
}
