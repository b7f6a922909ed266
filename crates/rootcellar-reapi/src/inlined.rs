//! Content that travels inside a result instead of beside it.
//!
//! On the way in, what a client inlined moves to the store, so that a cached result is small and all content is named by a digest.
//! On the way out, what a client asks for is put back in, as far as the message has room: asking is a hint, and the digest is there
//! in any case.

use std::collections::HashMap;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;
use rootcellar_store::{BlobStore, Verified};

use crate::{Result, functions};

/// Bytes that a message grows by for an inlined content, beside the content: a tag, a length, and longer lengths around it.
const INLINED_OVERHEAD_BYTES: u64 = 16;

/// What a client would like to find in a result itself (REAPI, `inline_*` of `GetActionResult` and `Execute`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inlining {
    /// The standard output.
    pub stdout: bool,
    /// The standard error.
    pub stderr: bool,
    /// Output files, by the paths that the command asked for. A path that is no output file is passed over.
    pub output_files: Vec<String>,
}

impl From<&reapi::GetActionResultRequest> for Inlining {
    fn from(request: &reapi::GetActionResultRequest) -> Self {
        Self {
            stdout: request.inline_stdout,
            stderr: request.inline_stderr,
            output_files: request.inline_output_files.clone(),
        }
    }
}

impl From<&reapi::ExecuteRequest> for Inlining {
    fn from(request: &reapi::ExecuteRequest) -> Self {
        Self {
            stdout: request.inline_stdout,
            stderr: request.inline_stderr,
            output_files: request.inline_output_files.clone(),
        }
    }
}

impl Inlining {
    /// Puts contents into a result as far as it stays within `result_bytes_max`: standard output first, then standard error, then
    /// files in the order they were asked for. Digests stay. Content that cannot be read is left out.
    pub async fn apply(
        &self,
        store: &dyn BlobStore,
        function: DigestFunction,
        result: &mut reapi::ActionResult,
        result_bytes_max: u64,
    ) {
        let mut budget = result_bytes_max.saturating_sub(prost::Message::encoded_len(result) as u64);
        let mut wanted = self.wanted(function, result);
        wanted.retain(|(_, digest)| spend(&mut budget, *digest));
        let digests: Vec<Digest> = wanted.iter().map(|(_, digest)| *digest).collect();
        let contents = store.get_many(&digests).await;
        for ((place, digest), content) in wanted.into_iter().zip(contents) {
            match content {
                Ok(content) => *place.field(result) = content,
                // A hint that is not followed is no failure; whoever needs the content asks for it by its digest.
                Err(error) => tracing::debug!(%digest, %error, "content is not inlined"),
            }
        }
    }

    fn wanted(&self, function: DigestFunction, result: &reapi::ActionResult) -> Vec<(Place, Digest)> {
        let stdout = (self.stdout && result.stdout_raw.is_empty()).then_some((Place::Stdout, &result.stdout_digest));
        let stderr = (self.stderr && result.stderr_raw.is_empty()).then_some((Place::Stderr, &result.stderr_digest));
        let mut files: HashMap<&str, usize> = HashMap::new();
        for (index, file) in result.output_files.iter().enumerate() {
            if file.contents.is_empty() {
                files.insert(&file.path, index);
            }
        }
        let asked = self.output_files.iter().filter_map(|path| files.remove(path.as_str()));
        let files = asked.map(|index| (Place::File(index), &result.output_files[index].digest));
        let places = stdout.into_iter().chain(stderr).chain(files);
        places
            .filter_map(|(place, digest)| {
                let digest = functions::from_proto(function, digest.as_ref()?).ok()?;
                (digest.size_bytes() > 0).then_some((place, digest))
            })
            .collect()
    }
}

/// A field of a result that holds content.
#[derive(Debug, Clone, Copy)]
enum Place {
    Stdout,
    Stderr,
    File(usize),
}

impl Place {
    fn field(self, result: &mut reapi::ActionResult) -> &mut Bytes {
        match self {
            Self::Stdout => &mut result.stdout_raw,
            Self::Stderr => &mut result.stderr_raw,
            Self::File(index) => &mut result.output_files[index].contents,
        }
    }
}

/// Takes the room for a blob from the budget, if there is enough.
fn spend(budget: &mut u64, digest: Digest) -> bool {
    let left = digest
        .size_bytes()
        .checked_add(INLINED_OVERHEAD_BYTES)
        .and_then(|cost| budget.checked_sub(cost));
    *budget = left.unwrap_or(*budget);
    left.is_some()
}

/// Moves what is inlined in a result to the store; a digest takes its place.
///
/// # Errors
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if content and digest of a field disagree; what the store met.
pub(crate) async fn move_to_store(
    store: &dyn BlobStore,
    function: DigestFunction,
    result: &mut reapi::ActionResult,
) -> Result<()> {
    let mut blobs = Vec::new();
    let stdout = (&mut result.stdout_raw, &mut result.stdout_digest);
    let stderr = (&mut result.stderr_raw, &mut result.stderr_digest);
    let files = result
        .output_files
        .iter_mut()
        .map(|file| (&mut file.contents, &mut file.digest));
    for (content, digest) in [stdout, stderr].into_iter().chain(files) {
        if content.is_empty() {
            continue;
        }
        let content = std::mem::take(content);
        let blob = match digest {
            Some(digest) => Verified::check(functions::from_proto(function, digest)?, content)?,
            None => Verified::of(function, content),
        };
        *digest = Some(functions::to_proto(blob.digest()));
        blobs.push(blob);
    }
    for outcome in store.put_many(blobs).await {
        outcome?;
    }
    Ok(())
}
