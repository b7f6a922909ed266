//! Reading the directories of a tree out of a store, level by level.
//!
//! Each distinct Directory is fetched once, in batches that bound how much of the answer is in memory at once. One that is not
//! there is noted and passed over, so that a client hears of all that is missing in one go.

use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::Digest;
use rootcellar_store::{BlobStore, ErrorKind as StoreErrorKind};

use super::graph::Found;
use super::{KnownDirectories, TreeDirectory, TreeLimits};
use crate::directory::Directory;
use crate::{Error, Result};

/// Directories fetched in one call at the most.
const BATCH_DIRECTORIES_MAX: usize = 1024;

/// The sum of their sizes at the most, unless a single one is larger.
const BATCH_BYTES_MAX: u64 = 4 << 20;

/// Fetches all that can be reached from `root`. Also tells which directories are missing.
///
/// # Errors
/// `INVALID_ARGUMENT` if a blob is no Directory of canonical order, or the tree goes past `limits`; what the store says if it
/// cannot answer. A missing directory is no error here.
pub(super) async fn fetch(
    store: &dyn BlobStore,
    root: Digest,
    limits: &TreeLimits,
    known: Option<&KnownDirectories>,
) -> Result<(Found, Vec<Digest>)> {
    let mut walk = Walk {
        limits,
        known,
        read: Vec::new(),
        entries: 0,
        found: Found::new(root),
        missing: Vec::new(),
    };
    let mut level = vec![root];
    let mut depth = 0;
    while !level.is_empty() {
        limits.check_depth(depth)?;
        level = walk.next_level(store, &level).await?;
        depth += 1;
    }
    if let Some(known) = known {
        known.add(walk.read);
    }
    Ok((walk.found, walk.missing))
}

struct Walk<'a> {
    limits: &'a TreeLimits,
    known: Option<&'a KnownDirectories>,
    /// What was not known before.
    read: Vec<Arc<TreeDirectory>>,
    /// Children of all directories so far. There are at least as many paths, so this may not go past that limit.
    entries: u64,
    found: Found,
    missing: Vec<Digest>,
}

impl Walk<'_> {
    /// Takes the directories that were mentioned last.
    async fn next_level(&mut self, store: &dyn BlobStore, level: &[Digest]) -> Result<Vec<Digest>> {
        let first = self.found.mentioned() - level.len();
        let known = match self.known {
            Some(known) => known.find(level),
            None => vec![None; level.len()],
        };
        let mut next = Vec::new();
        let (mut unknown, mut numbers) = (Vec::new(), Vec::new());
        for (number, (digest, directory)) in (first..).zip(level.iter().zip(known)) {
            match directory {
                Some(directory) => self.take(number, directory, &mut next)?,
                None => {
                    unknown.push(*digest);
                    numbers.push(number);
                }
            }
        }
        let (mut rest, mut numbers) = (unknown.as_slice(), numbers.into_iter());
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_len(rest));
            let answers = get_directories(store, batch, self.limits).await?;
            for ((digest, answer), number) in batch.iter().zip(answers).zip(&mut numbers) {
                match answer {
                    Some(encoded) => {
                        let directory = Arc::new(read_sorted(*digest, encoded)?);
                        if self.known.is_some() {
                            self.read.push(directory.clone());
                        }
                        self.take(number, directory, &mut next)?;
                    }
                    None => self.missing.push(*digest),
                }
            }
            rest = after;
        }
        Ok(next)
    }

    fn take(&mut self, number: usize, directory: Arc<TreeDirectory>, next: &mut Vec<Digest>) -> Result<()> {
        self.entries += directory.directory.len() as u64;
        self.limits.check_entries(self.entries)?;
        self.found.take(number, directory, next);
        self.limits.check_directories(self.found.mentioned())
    }
}

/// Reads a Directory that has to be in canonical order.
///
/// # Errors
/// `INVALID_ARGUMENT` if it is not, or is no Directory.
pub(super) fn read_sorted(digest: Digest, encoded: Bytes) -> Result<TreeDirectory> {
    let directory = read(digest, &encoded)?;
    if !directory.is_sorted() {
        return Err(Error::invalid_argument(format!(
            "directory {digest}: its nodes or properties are not sorted by name"
        )));
    }
    Ok(TreeDirectory {
        digest,
        encoded,
        directory,
    })
}

/// Reads a Directory of any order.
pub(super) fn read(digest: Digest, encoded: &[u8]) -> Result<Directory> {
    Directory::parse(digest.function(), encoded).map_err(|error| error.about(format_args!("directory {digest}")))
}

/// How many of `digests`, from the first on, are fetched together.
pub(super) fn batch_len<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> usize {
    let mut bytes = 0;
    let fits = |digest: &&Digest| {
        bytes += digest.size_bytes();
        bytes <= BATCH_BYTES_MAX
    };
    digests
        .into_iter()
        .take(BATCH_DIRECTORIES_MAX)
        .take_while(fits)
        .count()
        .max(1)
}

/// Reads a batch of directories; what is missing, or was found damaged and is missing from now on, is `None`.
///
/// # Errors
/// `INVALID_ARGUMENT` if one is larger than a directory may be; what the store says if it cannot answer.
pub(super) async fn get_directories(
    store: &dyn BlobStore,
    batch: &[Digest],
    limits: &TreeLimits,
) -> Result<Vec<Option<Bytes>>> {
    for digest in batch {
        limits
            .check_directory_bytes(digest.size_bytes())
            .map_err(|error| error.about(format_args!("directory {digest}")))?;
    }
    let answers = store.get_many(batch).await;
    answers
        .into_iter()
        .map(|answer| present(answer).map_err(Error::from))
        .collect()
}

fn present(answer: rootcellar_store::Result<Bytes>) -> rootcellar_store::Result<Option<Bytes>> {
    match answer {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), StoreErrorKind::NotFound | StoreErrorKind::DataLoss) => Ok(None),
        Err(error) => Err(error),
    }
}
