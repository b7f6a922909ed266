//! `BatchUpdateBlobs` and `BatchReadBlobs`: each item succeeds or fails by itself.
//!
//! The call as a whole fails only if its items together are larger than the limit that is announced.

use bytes::Bytes;
use prost::Message as _;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi::batch_read_blobs_response::Response as ReadItem;
use rootcellar_proto::reapi::batch_update_blobs_request::Request as UpdateRequest;
use rootcellar_proto::reapi::batch_update_blobs_response::Response as UpdateItem;
use rootcellar_proto::reapi::compressor::Value as Compressor;
use rootcellar_proto::reapi::{
    self, BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse,
};
use rootcellar_proto::rpc;
use rootcellar_reapi::{Error, ErrorKind, Result};
use rootcellar_store::Verified;
use tonic::Status;

use super::raw_request::RawReadRequest;
use super::reply::Reply;
use crate::server::core::Core;
use crate::server::frames::undecodable;
use crate::status::refuse;

/// Batches with fewer bytes are hashed where they are: that takes less time than the way to another thread.
const HASHED_INLINE_BYTES_MAX: u64 = 64 * 1024;

/// Stores the blobs of a batch whose content is what their digests say.
pub(super) async fn update(core: &Core, request: BatchUpdateBlobsRequest) -> Result<BatchUpdateBlobsResponse> {
    core.check_instance(&request.instance_name)?;
    core.functions.named(request.digest_function)?;
    let total = request.requests.iter().map(|item| item.data.len() as u64).sum();
    check_total(core, total)?;

    let parse = |item: UpdateRequest| {
        let parsed = parse(core, request.digest_function, &item);
        (item.digest, parsed.map(|digest| (digest, item.data)))
    };
    let (digests, parsed): (Vec<_>, Vec<_>) = request.requests.into_iter().map(parse).unzip();
    let outcomes = put(core, verify(parsed, total).await).await;
    let responses = digests.into_iter().zip(outcomes);
    Ok(BatchUpdateBlobsResponse {
        responses: responses
            .map(|(digest, outcome)| UpdateItem {
                digest,
                status: Some(status(outcome.err())),
            })
            .collect(),
    })
}

/// Reads an item's digest, and checks what can be checked before hashing.
fn parse(core: &Core, function: i32, item: &UpdateRequest) -> Result<Digest> {
    let digest = core.functions.digest(function, "digest", item.digest.as_ref())?;
    core.check_size(digest.size_bytes())?;
    if item.compressor != i32::from(Compressor::Identity) {
        let reason = format!("compressor {} is not announced for batches here", item.compressor);
        return Err(Error::invalid_argument(reason));
    }
    Ok(digest)
}

async fn verify(parsed: Vec<Result<(Digest, Bytes)>>, total: u64) -> Vec<Result<Verified>> {
    let hash = move || -> Vec<Result<Verified>> {
        let mut blobs = Vec::with_capacity(parsed.len());
        let parsed: Vec<Result<()>> = parsed
            .into_iter()
            .map(|item| item.map(|blob| blobs.push(blob)))
            .collect();
        let mut checked = Verified::check_each(blobs).into_iter();
        let mut next = || checked.next().expect("each blob was checked");
        parsed.into_iter().map(|item| item.and_then(|()| Ok(next()?))).collect()
    };
    if total <= HASHED_INLINE_BYTES_MAX {
        return hash();
    }
    tokio::task::spawn_blocking(hash)
        .await
        .expect("hashing does not panic, and the runtime outlives its tasks")
}

/// Puts what is right as one batch; the outcomes come in the order of `items`.
async fn put(core: &Core, items: Vec<Result<Verified>>) -> Vec<Result<()>> {
    let mut outcomes = Vec::with_capacity(items.len());
    let (mut blobs, mut places) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    for item in items {
        outcomes.push(item.map(|blob| {
            places.push((outcomes.len(), blob.digest()));
            blobs.push(blob);
        }));
    }
    let stored = core.store.put_many(blobs).await;
    assert_eq!(
        stored.len(),
        places.len(),
        "a store answers once for each blob of a batch"
    );
    let arrived = places.iter().zip(&stored).filter(|(_, outcome)| outcome.is_ok());
    core.arrivals.announce_all(arrived.map(|((_, digest), _)| *digest));
    for ((at, _), outcome) in places.into_iter().zip(stored) {
        outcomes[at] = outcome.map_err(Error::from);
    }
    outcomes
}

/// Reads the blobs of a batch.
pub(super) async fn read(core: &Core, request: BatchReadBlobsRequest) -> Result<BatchReadBlobsResponse> {
    let fields = request.digests.iter().map(|digest| (&*digest.hash, digest.size_bytes));
    let parsed = parse_read(core, &request.instance_name, request.digest_function, fields)?;
    let digests: Vec<_> = parsed.iter().flatten().copied().collect();
    let outcomes = core.store.get_many(&digests).await;
    assert_eq!(
        outcomes.len(),
        digests.len(),
        "a store answers once for each digest of a batch"
    );
    let mut outcomes = outcomes.into_iter();
    let mut next = move || outcomes.next().expect("as many outcomes as digests were asked for");
    let contents = parsed.into_iter().map(|item| item.and_then(|_| Ok(next()?)));
    Ok(reply(
        request.digests.into_iter().zip(contents),
        core.limits.reply_bytes_max,
    ))
}

/// An answer of `BatchReadBlobs`.
pub(super) enum ReadReply {
    /// Encoded, with its prefix.
    Encoded(Bytes),
    /// Still to be encoded.
    Message(BatchReadBlobsResponse),
}

/// Reads the blobs of a batch into the message that answers it, if all of them are there, as is usual.
pub(super) async fn read_encoded(core: &Core, request: RawReadRequest) -> Result<ReadReply, Status> {
    let Some((digests, mut laid_out)) = lay_out(core, &request).map_err(refuse)? else {
        let message = read(core, request.decoded().map_err(|error| undecodable(&error))?).await;
        return message.map(ReadReply::Message).map_err(refuse);
    };
    let outcomes = core.store.get_many_into(&digests, &mut laid_out.holes()).await;
    assert_eq!(
        outcomes.len(),
        digests.len(),
        "a store answers once for each digest of a batch"
    );
    if outcomes.iter().all(std::result::Result::is_ok) {
        return Ok(ReadReply::Encoded(laid_out.into_bytes()));
    }
    let contents = outcomes.into_iter().zip(laid_out.into_contents());
    let contents = contents.map(|(outcome, content)| Ok(outcome.map(|()| content)?));
    let asked = request.decoded().map_err(|error| undecodable(&error))?.digests;
    let message = reply(asked.into_iter().zip(contents), core.limits.reply_bytes_max);
    Ok(ReadReply::Message(message))
}

/// The answer with all blobs, if there can be one.
fn lay_out(core: &Core, request: &RawReadRequest) -> Result<Option<(Vec<Digest>, Reply)>> {
    let Some(plain) = request.plain_digests() else {
        return Ok(None);
    };
    let parsed = parse_read(core, &request.instance_name, request.digest_function, plain.into_iter())?;
    let Ok(digests) = parsed.into_iter().collect::<Result<Vec<Digest>>>() else {
        return Ok(None);
    };
    let sizes = digests.iter().map(Digest::size_bytes);
    let laid_out = Reply::lay_out(request.digests.iter().zip(sizes), core.limits.reply_bytes_max);
    Ok(laid_out.map(|laid_out| (digests, laid_out)))
}

/// The digests of a batch that may be read, from hashes and sizes.
fn parse_read<'a>(
    core: &Core,
    instance_name: &str,
    function: i32,
    digests: impl Iterator<Item = (&'a str, i64)>,
) -> Result<Vec<Result<Digest>>> {
    core.check_instance(instance_name)?;
    core.functions.named(function)?;
    let parse = |(hash, size_bytes)| core.functions.digest_of(function, "digest", hash, size_bytes);
    let parsed: Vec<_> = digests.map(parse).collect();
    let sizes = parsed.iter().flatten().map(Digest::size_bytes);
    check_total(core, sizes.fold(0, u64::saturating_add))?;
    Ok(parsed)
}

/// Fills a reply of at most `bytes_max`. Thousands of tiny blobs can be within the limit of a batch and yet, with their
/// digests, not fit into a message (BR-5): those at the end come without data, to be asked for again.
fn reply(items: impl Iterator<Item = (reapi::Digest, Result<Bytes>)>, bytes_max: usize) -> BatchReadBlobsResponse {
    let mut responses: Vec<_> = items.map(|(digest, content)| read_item(digest, content)).collect();
    let bare: usize = responses.iter().map(bare_len).sum();
    let mut left = bytes_max.saturating_sub(bare);
    for item in &mut responses {
        let extra = item.encoded_len().saturating_sub(bare_len(item));
        match left.checked_sub(extra) {
            Some(less) => left = less,
            None => *item = without_room(item.digest.take(), item.status.take()),
        }
    }
    BatchReadBlobsResponse { responses }
}

/// Bytes that an item takes at least: its digest, a code, and the tags and lengths around them.
fn bare_len(item: &ReadItem) -> usize {
    const TAGS_AND_CODE_BYTES: usize = 16;
    item.digest.as_ref().map_or(0, reapi::Digest::encoded_len) + TAGS_AND_CODE_BYTES
}

/// An item for which there is no room: without data, or with less words about its error.
fn without_room(digest: Option<reapi::Digest>, status: Option<rpc::Status>) -> ReadItem {
    let code = match status.unwrap_or_default().code {
        0 => rpc::Code::ResourceExhausted.into(),
        code => code,
    };
    ReadItem {
        digest,
        status: Some(rpc::Status {
            code,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn read_item(digest: reapi::Digest, content: Result<Bytes>) -> ReadItem {
    let (data, error) = match content {
        Ok(data) => (data, None),
        Err(error) => (Bytes::new(), Some(error)),
    };
    ReadItem {
        digest: Some(digest),
        data,
        compressor: Compressor::Identity.into(),
        status: Some(status(error)),
    }
}

/// The status of one item. That a blob is not there is common, and said in few bytes.
fn status(error: Option<Error>) -> rpc::Status {
    match error {
        None => rpc::Status::default(),
        Some(error) if error.kind() == ErrorKind::NotFound => rpc::Status {
            code: rpc::Code::NotFound.into(),
            message: "not found".to_owned(),
            details: Vec::new(),
        },
        Some(error) => error.to_status(),
    }
}

fn check_total(core: &Core, total: u64) -> Result<()> {
    let max = core.limits.batch_total_bytes_max;
    if total > max {
        let reason = format!("the blobs of the batch have {total} bytes together; at most {max} are allowed");
        return Err(Error::invalid_argument(reason));
    }
    Ok(())
}
