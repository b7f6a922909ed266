//! Results of actions: what is in them, and what has to be in the store for them to be of use.
//!
//! An output directory comes as a Tree message, as Directory messages on their own, or as both. A result of BuildStream's has only
//! the latter, and it is as complete as any other: whichever is there is walked.

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;
use rootcellar_store::BlobStore;

use crate::closure::{ClosureLimits, Gathering};
use crate::quoted::Quoted;
use crate::{Error, Result, functions};

/// Checks a result and gathers its closure: every blob of its output files, output directories, standard output and standard
/// error, each once.
///
/// A claim that a Tree is topologically sorted is taken back where it does not hold.
///
/// # Errors
/// [`Error::missing_blobs`] with all of the closure that is known to be missing;
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if a digest is absent or malformed, if a directory is none, or if its
/// two digests mean different directories; [`ResourceExhausted`](crate::ErrorKind::ResourceExhausted) past `limits`.
pub async fn closure(
    store: &dyn BlobStore,
    function: DigestFunction,
    result: &mut reapi::ActionResult,
    limits: &ClosureLimits,
) -> Result<Vec<Digest>> {
    let mut gathering = Gathering::new(store, limits);
    gathering.add(streams(function, result)?)?;
    for file in &result.output_files {
        let digest = file_digest(function, file).map_err(|error| error.about(subject("output file", &file.path)))?;
        gathering.add([digest])?;
    }
    for directory in &mut result.output_directories {
        add_directory(&mut gathering, function, directory)
            .await
            .map_err(|error| error.about(subject("output directory", &directory.path)))?;
    }
    gathering.complete().await
}

fn subject(kind: &str, path: &str) -> String {
    format!("{kind} {}", Quoted(path))
}

fn streams(function: DigestFunction, result: &reapi::ActionResult) -> Result<Vec<Digest>> {
    let stdout = ("stdout_digest", &result.stdout_digest);
    let stderr = ("stderr_digest", &result.stderr_digest);
    let mut digests = Vec::new();
    for (field, digest) in [stdout, stderr] {
        if let Some(digest) = digest {
            digests.push(functions::from_proto(function, digest).map_err(|error| error.about(field))?);
        }
    }
    Ok(digests)
}

fn file_digest(function: DigestFunction, file: &reapi::OutputFile) -> Result<Digest> {
    let digest = file.digest.as_ref();
    functions::from_proto(
        function,
        digest.ok_or_else(|| Error::invalid_argument("it has no digest"))?,
    )
}

async fn add_directory(
    gathering: &mut Gathering<'_>,
    function: DigestFunction,
    directory: &mut reapi::OutputDirectory,
) -> Result<()> {
    let read = |digest: &Option<reapi::Digest>| {
        let digest = digest.as_ref();
        digest.map(|digest| functions::from_proto(function, digest)).transpose()
    };
    let (tree, root) = (read(&directory.tree_digest)?, read(&directory.root_directory_digest)?);
    if tree.is_none() && root.is_none() {
        return Err(Error::invalid_argument(
            "it has neither tree_digest nor root_directory_digest",
        ));
    }
    let mut walked = None;
    if let Some(tree) = tree {
        walked = gathering.add_tree(tree).await?;
    }
    directory.is_topologically_sorted &= walked.is_some_and(|tree| tree.is_topologically_sorted);
    let Some(root) = root else {
        return Ok(());
    };
    match walked {
        Some(tree) if tree.root != root => Err(Error::invalid_argument(format!(
            "root_directory_digest is {root}, and the root of its Tree is {}",
            tree.root
        ))),
        _ => gathering.add_directory(root).await.map(drop),
    }
}

#[cfg(test)]
mod tests;
