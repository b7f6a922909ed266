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

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::ErrorKind;
    use crate::forgetful_store::ForgetfulStore;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn file(path: &str, digest: Option<Digest>, contents: &'static str) -> reapi::OutputFile {
        reapi::OutputFile {
            path: path.to_owned(),
            digest: digest.map(functions::to_proto),
            contents: Bytes::from_static(contents.as_bytes()),
            ..Default::default()
        }
    }

    fn everything() -> Inlining {
        Inlining {
            stdout: true,
            stderr: true,
            output_files: ["b", "nothing", "a", "b"].map(str::to_owned).into(),
        }
    }

    /// A result with stdout of 5 bytes, stderr of none, and files `a` and `b` of 100 bytes each.
    async fn stored(store: &ForgetfulStore) -> reapi::ActionResult {
        let stdout = store.keep(FUNCTION, "hello").await;
        let (a, b) = (
            store.keep(FUNCTION, vec![b'a'; 100]).await,
            store.keep(FUNCTION, vec![b'b'; 100]).await,
        );
        reapi::ActionResult {
            stdout_digest: Some(functions::to_proto(stdout)),
            stderr_digest: Some(functions::to_proto(Digest::empty(FUNCTION))),
            output_files: vec![file("a", Some(a), ""), file("b", Some(b), "")],
            ..Default::default()
        }
    }

    fn inlined_bytes(result: &reapi::ActionResult) -> [usize; 4] {
        let [a, b] = [0, 1].map(|index| result.output_files[index].contents.len());
        [result.stdout_raw.len(), result.stderr_raw.len(), a, b]
    }

    #[tokio::test]
    async fn what_is_asked_for_is_put_in_and_keeps_its_digest() {
        let store = ForgetfulStore::new();
        let bare = stored(&store).await;
        let mut result = bare.clone();
        everything().apply(&store, FUNCTION, &mut result, 1 << 20).await;
        assert_eq!(inlined_bytes(&result), [5, 0, 100, 100]);
        assert_eq!(result.stdout_digest, bare.stdout_digest);
        assert_eq!(result.output_files[0].digest, bare.output_files[0].digest);

        let mut unasked = bare.clone();
        Inlining::default().apply(&store, FUNCTION, &mut unasked, 1 << 20).await;
        assert_eq!(unasked, bare);
    }

    #[tokio::test]
    async fn a_result_never_grows_past_its_bound() {
        let store = ForgetfulStore::new();
        let bare = stored(&store).await;
        let bare_len = bare.encoded_len();
        for room in 0..300 {
            let mut result = bare.clone();
            let result_bytes_max = bare_len + room;
            everything()
                .apply(&store, FUNCTION, &mut result, result_bytes_max as u64)
                .await;
            assert!(result.encoded_len() <= result_bytes_max, "with {room} bytes of room");
        }
        let mut result = bare.clone();
        everything()
            .apply(&store, FUNCTION, &mut result, (bare_len + 160) as u64)
            .await;
        assert_eq!(inlined_bytes(&result), [5, 0, 0, 100], "first come, first served");
        everything().apply(&store, FUNCTION, &mut result, 0).await;
    }

    #[tokio::test]
    async fn content_that_is_gone_is_left_out() {
        let store = ForgetfulStore::new();
        let mut result = stored(&store).await;
        store.forget(Digest::of(FUNCTION, b"hello"));
        everything().apply(&store, FUNCTION, &mut result, 1 << 20).await;
        assert_eq!(inlined_bytes(&result), [0, 0, 100, 100]);
    }

    #[tokio::test]
    async fn what_a_client_inlines_moves_to_the_store() {
        let store = ForgetfulStore::new();
        let sent = reapi::ActionResult {
            stdout_raw: "out".into(),
            stderr_raw: "err".into(),
            stderr_digest: Some(functions::to_proto(Digest::of(FUNCTION, b"err"))),
            output_files: vec![
                file("f", None, "content"),
                file("g", Some(Digest::of(FUNCTION, b"x")), ""),
            ],
            ..Default::default()
        };
        let mut result = sent.clone();
        move_to_store(&store, FUNCTION, &mut result).await.unwrap();
        assert!(result.stdout_raw.is_empty() && result.stderr_raw.is_empty());
        for content in ["out", "err", "content"] {
            let digest = Digest::of(FUNCTION, content.as_bytes());
            assert!(store.find_missing(&[digest]).await.unwrap().is_empty(), "{content}");
        }
        let inlining = Inlining {
            output_files: vec!["f".to_owned()],
            ..everything()
        };
        inlining.apply(&store, FUNCTION, &mut result, 1 << 20).await;
        assert_eq!(result.stdout_raw, sent.stdout_raw);
        assert_eq!(result.stderr_raw, sent.stderr_raw);
        assert_eq!(result.output_files[0].contents, sent.output_files[0].contents);
    }

    #[tokio::test]
    async fn content_and_digest_must_agree() {
        let store = ForgetfulStore::new();
        let mut result = reapi::ActionResult {
            output_files: vec![file("f", Some(Digest::of(FUNCTION, b"one")), "two")],
            ..Default::default()
        };
        let error = move_to_store(&store, FUNCTION, &mut result).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
