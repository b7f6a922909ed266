//! Calls that are about many blobs: what is missing, and batches of small ones.
//!
//! A batch's items succeed or fail by themselves. One for which the server had no room or no time in the batch is tried once
//! more alone, which is tried again in turn.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::FutureExt as _;
use rootcellar_digest::{Digest, DigestSet};
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
use super::batches::{Bounds, Indexed, Job};
use super::gather::{Answers, Gather};
use crate::client::failure::check_status;

type Client = ContentAddressableStorageClient<Channel>;

/// Answers with fewer bytes are hashed where they are: that takes less time than the way to another thread.
const HASHED_INLINE_BYTES_MAX: u64 = 64 * 1024;

/// Callers whose small blobs go together if there are as many: a call costs more than eight of them, and eight are soon looked up even
/// one after the other.
const BLOBS_TOGETHER_MIN: usize = 8;

/// What a server says of a blob that it was asked for.
type ReadAnswer = (rpc::Status, Bytes);

/// The calls that are under way, and who waits to share one.
#[derive(Debug)]
pub(super) struct Shared {
    find_missing: Arc<Gather<Digest, bool>>,
    /// `None` for a blob that the answer leaves out.
    read: Arc<Gather<Digest, Option<ReadAnswer>>>,
    update: Arc<Gather<Verified, Option<rpc::Status>>>,
}

impl Shared {
    pub(super) fn new(calls_max: usize) -> Arc<Self> {
        Arc::new(Self {
            find_missing: Gather::new(calls_max, usize::MAX),
            read: Gather::new(calls_max, BLOBS_TOGETHER_MIN),
            update: Gather::new(calls_max, BLOBS_TOGETHER_MIN),
        })
    }
}

impl Remote {
    /// Tells of each digest whether it is missing.
    pub(super) async fn find_missing_job(&self, job: Job<Digest>, bounds: &Bounds) -> Vec<Indexed<Result<bool>>> {
        let job = match job {
            Job::Alone(item) => vec![item],
            Job::Batch(items) => items,
        };
        let (places, digests): (Vec<usize>, Vec<Digest>) = job.into_iter().unzip();
        let remote = self.clone();
        let call = Arc::new(move |digests| find_missing_call(remote.clone(), digests).boxed());
        let answers = self
            .shared
            .find_missing
            .call(digests.clone(), |digest| *digest, bounds, call);
        match answers.await {
            Ok(are_missing) => places.into_iter().zip(are_missing.into_iter().map(Ok)).collect(),
            Err(error) => {
                let failed = digests
                    .iter()
                    .map(|digest| Err(self.error("find missing", *digest, &error)));
                places.into_iter().zip(failed).collect()
            }
        }
    }

    /// Reads a small blob. `None` if the server does not read batches, or leaves the blob out.
    pub(super) async fn read_one(&self, digest: Digest, bounds: &Bounds) -> Result<Option<Bytes>> {
        let answers = match self.read_answers(vec![digest], bounds).await {
            Ok(answers) => answers,
            Err(error) if error.kind() == api::ErrorKind::Unimplemented => return Ok(None),
            Err(error) => return Err(self.error("get", digest, &error)),
        };
        match check_all(vec![digest], answers).await.remove(0) {
            Checked::LeftOut => Ok(None),
            // A part of the answer keeps all of it, and a slow reader would keep what others read.
            Checked::Right(content) => Ok(Some(Bytes::copy_from_slice(&content))),
            checked => self.read_outcome(digest, checked).await.map(Some),
        }
    }

    async fn read_answers(&self, digests: Vec<Digest>, bounds: &Bounds) -> Answers<Option<ReadAnswer>> {
        let remote = self.clone();
        let call = Arc::new(move |digests| read_call(remote.clone(), digests).boxed());
        self.shared.read.call(digests, |digest| *digest, bounds, call).await
    }

    /// Reads small blobs of one digest function.
    pub(super) async fn read_batch(&self, job: Vec<Indexed<Digest>>, bounds: &Bounds) -> Vec<Indexed<Result<Bytes>>> {
        let (places, digests): (Vec<usize>, Vec<Digest>) = job.into_iter().unzip();
        let answers = match self.read_answers(digests.clone(), bounds).await {
            Ok(answers) => answers,
            Err(error) => {
                let failed = digests.iter().map(|digest| Err(self.error("get", *digest, &error)));
                return places.into_iter().zip(failed).collect();
            }
        };
        let checked = check_all(digests.clone(), answers).await;
        let mut outcomes = Vec::with_capacity(digests.len());
        for ((place, digest), checked) in places.into_iter().zip(digests).zip(checked) {
            outcomes.push((place, self.read_outcome(digest, checked).await));
        }
        outcomes
    }

    async fn read_outcome(&self, digest: Digest, answer: Checked) -> Result<Bytes> {
        if digest.is_empty_blob() {
            return Ok(Bytes::new());
        }
        match answer {
            Checked::LeftOut => Err(self.confused("get", digest, "the answer leaves the blob out")),
            Checked::Right(content) => Ok(content),
            Checked::Wrong => Err(self.wrong(digest)),
            Checked::Refused(status) if is_for_now(&status) => self.get_alone(digest).await,
            Checked::Refused(status) => Err(self.refused("get", digest, &status)),
        }
    }

    /// Stores small blobs of one digest function.
    pub(super) async fn update_batch(&self, job: Vec<Indexed<Verified>>, bounds: &Bounds) -> Vec<Indexed<Result<()>>> {
        let (places, blobs): (Vec<usize>, Vec<Verified>) = job.into_iter().unzip();
        let remote = self.clone();
        let call = Arc::new(move |blobs| update_call(remote.clone(), blobs).boxed());
        let answers = self.shared.update.call(blobs.clone(), Verified::digest, bounds, call);
        let answers = match answers.await {
            Ok(answers) => answers,
            Err(error) => {
                let failed = blobs.iter().map(|blob| Err(self.error("put", blob.digest(), &error)));
                return places.into_iter().zip(failed).collect();
            }
        };
        let mut outcomes = Vec::with_capacity(blobs.len());
        for ((place, blob), answer) in places.into_iter().zip(blobs).zip(answers) {
            outcomes.push((place, self.update_outcome(&blob, answer).await));
        }
        outcomes
    }

    async fn update_outcome(&self, blob: &Verified, answer: Option<rpc::Status>) -> Result<()> {
        let digest = blob.digest();
        if digest.is_empty_blob() {
            return Ok(());
        }
        match answer {
            None => Err(self.confused("put", digest, "the answer leaves the blob out")),
            Some(status) if status.code == i32::from(Code::Ok) => Ok(()),
            Some(status) if status.code == i32::from(Code::Unavailable) => self.write(blob).await,
            Some(status) => Err(self.refused("put", digest, &status)),
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

/// Asks which of some digests are missing.
async fn find_missing_call(remote: Remote, digests: Vec<Digest>) -> api::Result<Vec<bool>> {
    let function = digests[0].function();
    let request = FindMissingBlobsRequest {
        instance_name: remote.connection.instance_name(),
        blob_digests: distinct(digests.iter().copied()).map(to_proto).collect(),
        digest_function: value(function).into(),
    };
    let call = |mut client: Client, request| async move { client.find_missing_blobs(request).await };
    let answer = remote.connection.unary(remote.connection.cas(), request, call).await?;
    let missing = answer.missing_blob_digests.iter();
    let missing: DigestSet = missing
        .map(|digest| from_proto(function, digest))
        .collect::<api::Result<_>>()?;
    Ok(digests.iter().map(|digest| missing.contains(digest)).collect())
}

async fn read_call(remote: Remote, digests: Vec<Digest>) -> api::Result<Vec<Option<ReadAnswer>>> {
    let function = digests[0].function();
    let wanted = distinct(digests.iter().copied().filter(|digest| !digest.is_empty_blob()));
    let wanted: Vec<reapi::Digest> = wanted.map(to_proto).collect();
    if wanted.is_empty() {
        return Ok(vec![None; digests.len()]);
    }
    let request = BatchReadBlobsRequest {
        instance_name: remote.connection.instance_name(),
        digests: wanted,
        digest_function: value(function).into(),
        ..Default::default()
    };
    let call = |mut client: Client, request| async move { client.batch_read_blobs(request).await };
    let answer = remote.connection.unary(remote.connection.cas(), request, call).await?;
    let mut answers = HashMap::with_capacity(answer.responses.len());
    for item in answer.responses {
        remote.traffic.count_received(item.data.len());
        let digest = from_proto(function, &item.digest.unwrap_or_default())?;
        answers.insert(digest, (item.status.unwrap_or_default(), item.data));
    }
    Ok(digests.iter().map(|digest| answers.get(digest).cloned()).collect())
}

async fn update_call(remote: Remote, blobs: Vec<Verified>) -> api::Result<Vec<Option<rpc::Status>>> {
    let function = blobs[0].digest().function();
    let (mut requests, mut seen) = (Vec::with_capacity(blobs.len()), DigestSet::default());
    for blob in &blobs {
        let digest = blob.digest();
        if digest.is_empty_blob() || !seen.insert(digest) {
            continue;
        }
        let data = blob.open(ByteRange::ALL)?.into_bytes().await?;
        remote.traffic.count_sent(data.len());
        requests.push(UpdateItem {
            digest: Some(to_proto(digest)),
            data,
            ..Default::default()
        });
    }
    if requests.is_empty() {
        return Ok(vec![None; blobs.len()]);
    }
    let request = BatchUpdateBlobsRequest {
        instance_name: remote.connection.instance_name(),
        requests,
        digest_function: value(function).into(),
    };
    let call = |mut client: Client, request| async move { client.batch_update_blobs(request).await };
    let answer = remote.connection.unary(remote.connection.cas(), request, call).await?;
    let read = |item: reapi::batch_update_blobs_response::Response| {
        let digest = from_proto(function, &item.digest.unwrap_or_default())?;
        Ok((digest, item.status.unwrap_or_default()))
    };
    let answers: HashMap<Digest, rpc::Status> = answer.responses.into_iter().map(read).collect::<api::Result<_>>()?;
    Ok(blobs.iter().map(|blob| answers.get(&blob.digest()).cloned()).collect())
}

/// Each digest once: some callers may want the same.
fn distinct(digests: impl Iterator<Item = Digest>) -> impl Iterator<Item = Digest> {
    let mut seen = DigestSet::default();
    digests.filter(move |digest| seen.insert(*digest))
}

/// An item of an answer.
enum Checked {
    /// The content, hashed.
    Right(Bytes),
    /// The content was something else.
    Wrong,
    /// No content.
    Refused(rpc::Status),
    /// There is no such item.
    LeftOut,
}

/// Hashes what came.
async fn check_all(digests: Vec<Digest>, answers: Vec<Option<ReadAnswer>>) -> Vec<Checked> {
    let contents = answers.iter().flatten();
    let total: u64 = contents.map(|(_, content)| content.len() as u64).sum();
    let hash = move || digests.into_iter().zip(answers).map(check).collect();
    if total <= HASHED_INLINE_BYTES_MAX {
        return hash();
    }
    tokio::task::spawn_blocking(hash)
        .await
        .expect("hashing does not panic, and the runtime outlives its tasks")
}

fn check((digest, answer): (Digest, Option<ReadAnswer>)) -> Checked {
    match answer {
        None => Checked::LeftOut,
        Some((status, _)) if status.code != i32::from(Code::Ok) => Checked::Refused(status),
        Some((_, content)) if Digest::of(digest.function(), &content) == digest => Checked::Right(content),
        Some(_) => Checked::Wrong,
    }
}

/// Whether a blob that a batch does not yield may be had alone: there was no room in the answer, or no time.
fn is_for_now(status: &rpc::Status) -> bool {
    matches!(Code::from_i32(status.code), Code::ResourceExhausted | Code::Unavailable)
}
