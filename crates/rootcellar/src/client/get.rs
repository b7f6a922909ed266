//! `get`: fetches a blob, or a directory with all below it.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use rootcellar_digest::Digest;
use rootcellar_grpc::client::Remote;
use rootcellar_reapi::InputTree;

use super::fetch::{self, Failure};
use super::missing::load_tree;
use super::progress::Progress;
use super::{after_writing, connect};
use crate::cli;

/// Writes to standard output, a file or a directory, as the options say.
pub(crate) async fn run(options: cli::Get) -> anyhow::Result<ExitCode> {
    if let Some(path) = &options.directory {
        fetch::check_is_new(path)?;
    }
    let remote = Remote::new(connect(&options.endpoint).await?);
    match (&options.directory, &options.output) {
        (Some(path), _) => directory(remote, options.digest, path).await,
        (None, Some(path)) => {
            let _progress = Progress::downloading(remote.traffic(), options.digest.size_bytes());
            fetch::write_file(&remote, options.digest, path).await?;
            Ok(ExitCode::SUCCESS)
        }
        (None, None) => to_stdout(&remote, options.digest).await,
    }
}

/// Shows no progress: it could only be drawn over what is written.
async fn to_stdout(remote: &Remote, digest: Digest) -> anyhow::Result<ExitCode> {
    match fetch::write_blob(remote, digest, &mut io::stdout().lock()).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Failure::Read(error)) => Err(error.into()),
        Err(Failure::Write(error)) => after_writing(Err(error)),
    }
}

async fn directory(remote: Remote, root: Digest, path: &Path) -> anyhow::Result<ExitCode> {
    let traffic = remote.traffic();
    let tree = load_tree(&remote, root).await?;
    let _progress = Progress::downloading(traffic, bytes_to_fetch(&tree));
    fetch::write_directory(Arc::new(remote), &tree, path).await?;
    Ok(ExitCode::SUCCESS)
}

/// What is received in all by the time that `tree` is written: its directories, which are here already, and its files, each
/// as often as it is in the tree.
pub(super) fn bytes_to_fetch(tree: &InputTree) -> u64 {
    let directories = tree
        .directories()
        .iter()
        .map(|directory| directory.encoded.len() as u64);
    let mut pending = vec![tree.root()];
    let mut bytes: u64 = directories.sum();
    while let Some(directory) = pending.pop() {
        let files = directory.files().iter().map(|file| file.digest.size_bytes());
        bytes = files.fold(bytes, u64::saturating_add);
        pending.extend(directory.directories().iter().map(|node| tree.child(&node.digest)));
    }
    bytes
}
