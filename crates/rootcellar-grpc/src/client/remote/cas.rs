//! Calls that are about many blobs: what is missing, and batches of small ones.
//!
//! A batch's items succeed or fail by themselves. One for which the server had no room or no time in the batch is tried once
//! more alone, which is tried again in turn.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::batch_update_blobs_request::Request as UpdateItem;
use rootcellar_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use rootcellar_proto::reapi::{self, BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest};
use rootcellar_proto::rpc;
use rootcellar_reapi as api;
use rootcellar_reapi::functions::{from_proto, to_proto, value};
use rootcellar_store::{ByteRange, Error, ErrorKind, Result, Verified};
use tonic::Code;
use tonic::transport::Channel;

use super::Remote;
use super::batches::{Indexed, Job};
use crate::client::failure::check_status;

type Client = ContentAddressableStorageClient<Channel>;

/// Answers with fewer bytes are hashed where they are: that takes less time than the way to another thread.
const HASHED_INLINE_BYTES_MAX: u64 = 64 * 1024;

impl Remote {
    /// Tells of each digest whether it is missing.
    pub(super) async fn find_missing_job(&self, job: Job<Digest>) -> Vec<Indexed<Result<bool>>> {
        let job = match job {
            Job::Alone(item) => vec![item],
            Job::Batch(items) => items,
        };
        let outcome = self.find_missing_call(&job).await;
        let answer = |digest| match &outcome {
            Ok(missing) => Ok(missing.contains(&digest)),
            Err(error) => Err(self.error("find missing", digest, error)),
        };
        job.into_iter().map(|(index, digest)| (index, answer(digest))).collect()
    }

    async fn find_missing_call(&self, job: &[Indexed<Digest>]) -> api::Result<HashSet<Digest>> {
        let function = function_of(job.iter().map(|(_, digest)| *digest));
        let request = FindMissingBlobsRequest {
            instance_name: self.connection.instance_name(),
            blob_digests: job.iter().map(|(_, digest)| to_proto(*digest)).collect(),
            digest_function: value(function).into(),
        };
        let call = |mut client: Client, request| async move { client.find_missing_blobs(request).await };
        let answer = self.connection.unary(self.connection.cas(), request, call).await?;
        let missing = answer.missing_blob_digests.iter();
        missing.map(|digest| from_proto(function, digest)).collect()
    }

    /// Reads small blobs with one call.
    pub(super) async fn read_batch(&self, job: Vec<Indexed<Digest>>) -> Vec<Indexed<Result<Bytes>>> {
        let answers = match self.read_call(&job).await {
            Ok(answers) => answers,
            Err(error) => {
                let failed = |(index, digest)| (index, Err(self.error("get", digest, &error)));
                return job.into_iter().map(failed).collect();
            }
        };
        let checked = check_all(answers).await;
        let mut outcomes = Vec::with_capacity(job.len());
        for (index, digest) in job {
            outcomes.push((index, self.read_outcome(digest, checked.get(&digest)).await));
        }
        outcomes
    }

    async fn read_call(&self, job: &[Indexed<Digest>]) -> api::Result<HashMap<Digest, (rpc::Status, Bytes)>> {
        let wanted = || {
            job.iter()
                .map(|(_, digest)| *digest)
                .filter(|digest| !digest.is_empty_blob())
        };
        if wanted().next().is_none() {
            return Ok(HashMap::new());
        }
        let function = function_of(wanted());
        let request = BatchReadBlobsRequest {
            instance_name: self.connection.instance_name(),
            digests: wanted().map(to_proto).collect(),
            digest_function: value(function).into(),
            ..Default::default()
        };
        let call = |mut client: Client, request| async move { client.batch_read_blobs(request).await };
        let answer = self.connection.unary(self.connection.cas(), request, call).await?;
        let mut answers = HashMap::with_capacity(answer.responses.len());
        for item in answer.responses {
            self.traffic.count_received(item.data.len());
            let digest = from_proto(function, &item.digest.unwrap_or_default())?;
            answers.insert(digest, (item.status.unwrap_or_default(), item.data));
        }
        Ok(answers)
    }

    async fn read_outcome(&self, digest: Digest, answer: Option<&Checked>) -> Result<Bytes> {
        if digest.is_empty_blob() {
            return Ok(Bytes::new());
        }
        match answer {
            None => Err(self.confused("get", digest, "the answer leaves the blob out")),
            Some(Checked::Right(content)) => Ok(content.clone()),
            Some(Checked::Wrong) => Err(self.wrong(digest)),
            Some(Checked::Refused(status)) if is_for_now(status) => self.get_whole(digest).await,
            Some(Checked::Refused(status)) => Err(self.refused("get", digest, status)),
        }
    }

    /// Stores small blobs with one call.
    pub(super) async fn update_batch(&self, job: Vec<Indexed<Verified>>) -> Vec<Indexed<Result<()>>> {
        let answers = match self.update_call(&job).await {
            Ok(answers) => answers,
            Err(error) => return self.all_failed(job, &error),
        };
        let mut outcomes = Vec::with_capacity(job.len());
        for (index, blob) in job {
            outcomes.push((index, self.update_outcome(&blob, &answers).await));
        }
        outcomes
    }

    fn all_failed(&self, job: Vec<Indexed<Verified>>, error: &api::Error) -> Vec<Indexed<Result<()>>> {
        let failed = |(index, blob): (usize, Verified)| (index, Err(self.error("put", blob.digest(), error)));
        job.into_iter().map(failed).collect()
    }

    async fn update_call(&self, job: &[Indexed<Verified>]) -> api::Result<HashMap<Digest, rpc::Status>> {
        let mut requests = Vec::with_capacity(job.len());
        for (_, blob) in job.iter().filter(|(_, blob)| !blob.digest().is_empty_blob()) {
            let data = blob.open(ByteRange::ALL)?.into_bytes().await?;
            self.traffic.count_sent(data.len());
            requests.push(UpdateItem {
                digest: Some(to_proto(blob.digest())),
                data,
                ..Default::default()
            });
        }
        if requests.is_empty() {
            return Ok(HashMap::new());
        }
        let function = function_of(job.iter().map(|(_, blob)| blob.digest()));
        let request = BatchUpdateBlobsRequest {
            instance_name: self.connection.instance_name(),
            requests,
            digest_function: value(function).into(),
        };
        let call = |mut client: Client, request| async move { client.batch_update_blobs(request).await };
        let answer = self.connection.unary(self.connection.cas(), request, call).await?;
        let read = |item: reapi::batch_update_blobs_response::Response| {
            let digest = from_proto(function, &item.digest.unwrap_or_default())?;
            Ok((digest, item.status.unwrap_or_default()))
        };
        answer.responses.into_iter().map(read).collect()
    }

    async fn update_outcome(&self, blob: &Verified, answers: &HashMap<Digest, rpc::Status>) -> Result<()> {
        let digest = blob.digest();
        if digest.is_empty_blob() {
            return Ok(());
        }
        match answers.get(&digest) {
            None => Err(self.confused("put", digest, "the answer leaves the blob out")),
            Some(status) if status.code == i32::from(Code::Ok) => Ok(()),
            Some(status) if status.code == i32::from(Code::Unavailable) => self.write(blob).await,
            Some(status) => Err(self.refused("put", digest, status)),
        }
    }

    fn refused(&self, operation: &'static str, digest: Digest, status: &rpc::Status) -> Error {
        match check_status(status) {
            Err(error) => self.error(operation, digest, &error.about(&self.connection)),
            Ok(()) => self.confused(operation, digest, "an item is refused with the status OK"),
        }
    }

    /// The error of a blob whose bytes are others than its digest says.
    pub(super) fn wrong(&self, digest: Digest) -> Error {
        let reason = format!("{self}: the server sent bytes that do not belong to the digest");
        Error::new(ErrorKind::DataLoss, "get", reason).on(digest)
    }
}

/// An item of an answer.
enum Checked {
    /// The content, hashed.
    Right(Bytes),
    /// The content was something else.
    Wrong,
    /// No content.
    Refused(rpc::Status),
}

/// Hashes what came.
async fn check_all(answers: HashMap<Digest, (rpc::Status, Bytes)>) -> HashMap<Digest, Checked> {
    let total: u64 = answers.values().map(|(_, content)| content.len() as u64).sum();
    let hash = move || answers.into_iter().map(check).collect();
    if total <= HASHED_INLINE_BYTES_MAX {
        return hash();
    }
    tokio::task::spawn_blocking(hash)
        .await
        .expect("hashing does not panic, and the runtime outlives its tasks")
}

fn check((digest, (status, content)): (Digest, (rpc::Status, Bytes))) -> (Digest, Checked) {
    let checked = match status.code {
        0 if Digest::of(digest.function(), &content) == digest => Checked::Right(content),
        0 => Checked::Wrong,
        _ => Checked::Refused(status),
    };
    (digest, checked)
}

/// Whether a blob that a batch does not yield may be had alone: there was no room in the answer, or no time.
fn is_for_now(status: &rpc::Status) -> bool {
    matches!(Code::from_i32(status.code), Code::ResourceExhausted | Code::Unavailable)
}

/// The function of a call's digests, of which there is at least one.
fn function_of(mut digests: impl Iterator<Item = Digest>) -> DigestFunction {
    let first = digests.next().expect("a call is about one digest at least");
    first.function()
}
