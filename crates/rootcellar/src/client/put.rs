//! `put`: stores files and directories, and prints their digests.

use std::io::{self, Write as _};
use std::process::ExitCode;

use rootcellar_grpc::client::Remote;

use super::progress::Progress;
use super::upload::Upload;
use super::{after_writing, connect};
use crate::cli;

/// Prints a line for each path, as programs that compute checksums do: the digest, two spaces, the path.
pub(crate) async fn run(options: cli::Put) -> anyhow::Result<ExitCode> {
    let remote = Remote::new(connect(&options.endpoint).await?);
    let progress = Progress::uploading(remote.traffic());
    let upload = Upload::new(remote, options.endpoint.digest_function)?;
    for path in &options.paths {
        progress.say(path.display().to_string());
        let digest = upload.path(path).await?;
        let written = progress.aside(|| writeln!(io::stdout(), "{digest}  {}", path.display()));
        if written.is_err() {
            return after_writing(written);
        }
    }
    Ok(ExitCode::SUCCESS)
}
