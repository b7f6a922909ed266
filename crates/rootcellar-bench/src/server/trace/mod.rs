//! A trace: the calls of a build from nothing, and of builds after it in which little has changed.
//!
//! A step is an action as a client sees it, without its execution:
//!
//! ```text
//!   FindMissingBlobs of its inputs ── upload what is missing ── GetActionResult ─┬─ there ──► read the output
//!                                                                               └─ not ────► upload the output, UpdateActionResult
//! ```
//!
//! Whether a result is there is known from the plan: any other answer is a failure.

mod plan;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi;
use rootcellar_reapi::functions::to_proto;

use self::plan::Plan;
use super::batches::item_bytes;
use super::contents::{BLOB_BYTES_MIN, FUNCTION};
use super::drive::{Done, Load};
use super::failure::Failure;
use super::peer::{BATCH_BYTES_MAX, Peer};
use super::results::{output_file, output_path};
use super::settings::Settings;
use crate::random::Random;

const COMPILES: usize = 400;
const BUILDS: usize = 11;
/// What the first build has the server keep of a step, about.
const STEP_STORED_BYTES: u64 = 256 << 10;

/// Plays a plan.
pub(super) struct Trace {
    plan: Plan,
    builds_played: usize,
    /// What each file holds now.
    files: Vec<File>,
    /// The messages of each action, with its inputs as they are now.
    actions: Vec<Messages>,
    message_bytes: usize,
    random: Random,
}

/// A file, or a message that is stored as one.
type File = Arc<(Digest, Bytes)>;

/// What says what an action is.
#[derive(Clone)]
struct Messages {
    command: File,
    root: File,
    action: File,
}

/// One action of a build.
pub(super) struct Step {
    messages: Messages,
    inputs: Vec<File>,
    output: File,
    is_cached: bool,
    message_bytes: usize,
}

impl Trace {
    /// Gives all files that change other contents, which makes other actions of those that have them.
    fn change(&mut self, build: &plan::Build) {
        for file in &build.changed {
            let size = self.plan.sizes[*file].max(BLOB_BYTES_MIN);
            self.files[*file] = stored(self.random.bytes(size));
        }
        let messages = |action| Messages::of(action, &self.files);
        self.actions = self.plan.actions.iter().map(messages).collect();
    }
}

fn stored(bytes: Bytes) -> File {
    Arc::new((Digest::of(FUNCTION, &bytes), bytes))
}

impl Messages {
    /// An action that compiles its inputs, all of which lie in one directory.
    fn of(action: &plan::Action, files: &[File]) -> Self {
        let node = |input: &usize| reapi::FileNode {
            name: format!("file-{input:06}"),
            digest: Some(to_proto(files[*input].0)),
            ..reapi::FileNode::default()
        };
        let root = stored(rootcellar_reapi::encode_directory(reapi::Directory {
            files: action.inputs.iter().map(node).collect(),
            ..reapi::Directory::default()
        }));
        let command = reapi::Command {
            arguments: vec!["/usr/bin/cc".to_owned(), "-o".to_owned(), output_path(0)],
            output_paths: vec![output_path(0)],
            ..reapi::Command::default()
        };
        let command = stored(command.encode_to_vec().into());
        let action = reapi::Action {
            command_digest: Some(to_proto(command.0)),
            input_root_digest: Some(to_proto(root.0)),
            ..reapi::Action::default()
        };
        Self {
            command,
            root,
            action: stored(action.encode_to_vec().into()),
        }
    }
}

impl Load for Trace {
    type Call = Step;

    const ENDS: bool = true;

    async fn ready(_peer: &Peer, settings: &Settings, random: Random) -> Result<Self, Failure> {
        let plan = Plan::new(settings.seed, settings.shrunk(COMPILES), BUILDS);
        Ok(Self {
            files: vec![stored(Bytes::new()); plan.sizes.len()],
            actions: Vec::new(),
            builds_played: 0,
            plan,
            message_bytes: settings.message_bytes,
            random,
        })
    }

    fn call_bytes(&self) -> u64 {
        // What a step needs is kept by the trace.
        1
    }

    fn stored_bytes(&self) -> u64 {
        STEP_STORED_BYTES
    }

    /// A build: none of it may begin before the one before it has ended.
    fn round(&mut self, _most: usize) -> Vec<Self::Call> {
        let Some(build) = self.plan.builds.get(self.builds_played).cloned() else {
            return Vec::new();
        };
        self.builds_played += 1;
        self.change(&build);
        let step = |(action, messages): (&plan::Action, &Messages)| Step {
            messages: messages.clone(),
            inputs: action.inputs.iter().map(|input| self.files[*input].clone()).collect(),
            output: self.files[action.output].clone(),
            is_cached: !build.changed.contains(&action.output),
            message_bytes: self.message_bytes,
        };
        self.plan.actions.iter().zip(&self.actions).map(step).collect()
    }

    async fn make(peer: &Peer, step: Self::Call) -> Result<Done, Failure> {
        let mut bytes = step.upload_missing(peer).await?;
        bytes += match step.is_cached {
            true => step.take_result(peer).await?,
            false => step.make_result(peer).await?,
        };
        Ok(Done { items: 1, bytes })
    }
}

impl Step {
    /// Uploads what the server says it has not; tells how much that was.
    async fn upload_missing(&self, peer: &Peer) -> Result<u64, Failure> {
        let Messages { command, root, action } = &self.messages;
        let all = || self.inputs.iter().chain([command, root, action]);
        let request = reapi::FindMissingBlobsRequest {
            instance_name: peer.instance_name(),
            blob_digests: all().map(|file| to_proto(file.0)).collect(),
            ..reapi::FindMissingBlobsRequest::default()
        };
        let answer = peer.cas().find_missing_blobs(request).await?.into_inner();
        let missing: HashSet<String> = answer
            .missing_blob_digests
            .into_iter()
            .map(|digest| digest.hash)
            .collect();
        let is_missing = |file: &&File| missing.contains(&file.0.hash_hex().to_string());
        let wanted: Vec<File> = all().filter(is_missing).cloned().collect();
        self.upload(peer, wanted).await
    }

    async fn upload(&self, peer: &Peer, files: Vec<File>) -> Result<u64, Failure> {
        let bytes = files.iter().map(|file| file.0.size_bytes()).sum();
        let (large, small): (Vec<File>, Vec<File>) = files.into_iter().partition(is_large);
        let small: Vec<(Digest, Bytes)> = small.iter().map(|file| (file.0, file.1.clone())).collect();
        peer.upload(small).await?;
        for file in large {
            let pieces = file.1.chunks(self.message_bytes);
            let pieces = pieces.map(|piece| file.1.slice_ref(piece)).collect();
            peer.write(peer.write_requests(file.0, pieces)).await?;
        }
        Ok(bytes)
    }

    async fn get_result(&self, peer: &Peer) -> Result<reapi::ActionResult, Failure> {
        let request = reapi::GetActionResultRequest {
            instance_name: peer.instance_name(),
            action_digest: Some(to_proto(self.messages.action.0)),
            ..reapi::GetActionResultRequest::default()
        };
        Ok(peer.action_cache().get_action_result(request).await?.into_inner())
    }

    /// Gets the result that has to be there, and reads its output.
    async fn take_result(&self, peer: &Peer) -> Result<u64, Failure> {
        let result = self.get_result(peer).await?;
        let named = result.output_files.first().and_then(|file| file.digest.as_ref());
        if named != Some(&to_proto(self.output.0)) {
            return Err(Failure::wrong("a result names another output than was put"));
        }
        match is_large(&self.output) {
            true => self.read_large(peer).await,
            false => self.read_small(peer).await,
        }
    }

    async fn read_large(&self, peer: &Peer) -> Result<u64, Failure> {
        let request = peer.read_request(self.output.0);
        let mut messages = peer.byte_stream().read(request).await?.into_inner();
        let (mut bytes, mut begins_alike) = (0, None);
        while let Some(message) = messages.message().await? {
            begins_alike.get_or_insert_with(|| self.output.1.starts_with(&message.data[..message.data.len().min(16)]));
            bytes += message.data.len() as u64;
        }
        self.check(bytes, begins_alike.unwrap_or(false))
    }

    async fn read_small(&self, peer: &Peer) -> Result<u64, Failure> {
        let request = reapi::BatchReadBlobsRequest {
            instance_name: peer.instance_name(),
            digests: vec![to_proto(self.output.0)],
            ..reapi::BatchReadBlobsRequest::default()
        };
        let answer = peer.cas().batch_read_blobs(request).await?.into_inner();
        let Some(item) = answer.responses.first() else {
            return Err(Failure::wrong("no answer came to a digest"));
        };
        self.check(
            item_bytes(item)?,
            self.output.1.starts_with(&item.data[..item.data.len().min(16)]),
        )
    }

    fn check(&self, bytes: u64, begins_alike: bool) -> Result<u64, Failure> {
        match bytes == self.output.0.size_bytes() && begins_alike {
            true => Ok(bytes),
            false => Err(Failure::wrong("an output came with other bytes")),
        }
    }

    /// Sees that the result is not there, and puts it there.
    async fn make_result(&self, peer: &Peer) -> Result<u64, Failure> {
        match self.get_result(peer).await {
            Ok(_) => return Err(Failure::wrong("there is a result of an action that is new")),
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure),
        }
        let bytes = self.upload(peer, vec![self.output.clone()]).await?;
        let result = reapi::ActionResult {
            output_files: vec![output_file(0, self.output.0)],
            ..reapi::ActionResult::default()
        };
        let request = reapi::UpdateActionResultRequest {
            instance_name: peer.instance_name(),
            action_digest: Some(to_proto(self.messages.action.0)),
            action_result: Some(result),
            ..reapi::UpdateActionResultRequest::default()
        };
        peer.action_cache().update_action_result(request).await?;
        Ok(bytes)
    }
}

/// Whether a file does not fit into a batch.
fn is_large(file: &File) -> bool {
    file.0.size_bytes() > BATCH_BYTES_MAX
}
