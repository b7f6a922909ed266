//! `exec`: runs a command on the server, in a directory of ours as its root.

mod request;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use prost::Message as _;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_grpc::client::{
    Connection, ExecuteOptions, Execution, Executor, Progress as Update, Remote, check_status,
};
use rootcellar_proto::reapi::execution_stage::Value as Stage;
use rootcellar_proto::reapi::{self, ActionResult, ExecuteResponse};
use rootcellar_reapi::functions::from_proto;
use rootcellar_reapi::{Error, ErrorKind};

use super::connect;
use super::fetch::{self, Failure};
use super::get::bytes_to_fetch;
use super::missing::Missing;
use super::outputs::{self, Places};
use super::progress::Progress;
use super::tree::Shown;
use super::upload::Upload;
use crate::cli;

/// What a shell says of a command that was interrupted.
const INTERRUPTED: u8 = 130;

/// Ends as the command ended: with its output, and its exit code.
pub(crate) async fn run(options: cli::Exec) -> anyhow::Result<ExitCode> {
    let places = check_fetch(&options)?;
    let connection = connect(&options.endpoint).await?;
    let function = options.endpoint.digest_function;
    let remote = Remote::new(connection.clone());
    let action = upload(&remote, &options).await?;
    let Some(response) = execute(&connection, action, &options).await? else {
        writeln!(io::stderr(), "rootcellar: the action is cancelled").context("writing to standard error")?;
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let result = response.result.clone().unwrap_or_default();
    write_streams(&remote, function, &result).await?;
    report(function, &response, &result)?;
    if let Err(error) = check_status(&response.status.unwrap_or_default()) {
        return Err(explain(&error));
    }
    if let Some(dir) = &options.fetch {
        fetch_outputs(remote, function, &places, &result, dir).await?;
    }
    Ok(exit_code(result.exit_code))
}

/// Makes sure that there will be a place for what is to be fetched, before anything runs.
fn check_fetch(options: &cli::Exec) -> anyhow::Result<Places> {
    let places = Places::new(&options.working_directory)?;
    if let Some(dir) = &options.fetch {
        fetch::check_is_new(dir)?;
        for output in &options.outputs {
            places.of(output).context("--fetch")?;
        }
    }
    Ok(places)
}

/// Uploads the root, the command and the action.
async fn upload(remote: &Remote, options: &cli::Exec) -> anyhow::Result<Digest> {
    let _progress = Progress::uploading(remote.traffic());
    let upload = Upload::new(remote.clone(), options.endpoint.digest_function)?;
    let root = upload.directory(&options.root).await;
    let root = root.with_context(|| format!("--root {}", options.root.display()))?;
    let command = upload.bytes(request::command(options).encode_to_vec().into()).await?;
    let action = request::action(options, command, root);
    upload.bytes(Bytes::from(action.encode_to_vec())).await
}

/// Runs the action; `None` if the user does not want to wait for it.
async fn execute(
    connection: &Connection,
    action: Digest,
    options: &cli::Exec,
) -> anyhow::Result<Option<Box<ExecuteResponse>>> {
    let mut how = ExecuteOptions::default();
    how.skip_cache_lookup = options.no_cache;
    let mut execution = Executor::new(connection.clone()).execute(action, &how);
    let progress = Progress::waiting();
    progress.say("asking");
    loop {
        let update = tokio::select! {
            update = execution.next() => update.map_err(|error| explain(&error))?,
            signal = tokio::signal::ctrl_c() => {
                signal.context("watching for Ctrl-C")?;
                progress.say("cancelling");
                return cancel(&execution).await;
            }
        };
        match update {
            Update::Stage(stage) => progress.say(in_words(stage)),
            Update::Done(response) => return Ok(Some(response)),
        }
    }
}

async fn cancel(execution: &Execution) -> anyhow::Result<Option<Box<ExecuteResponse>>> {
    execution
        .cancel()
        .await
        .context("the action goes on: the server was not to be told otherwise")?;
    Ok(None)
}

fn in_words(stage: Stage) -> &'static str {
    match stage {
        Stage::Unknown => "under way",
        Stage::CacheCheck => "looking for a result",
        Stage::Queued => "queued",
        Stage::Executing => "running",
        Stage::Completed => "done",
    }
}

/// An error of the server, with what to do next.
fn explain(error: &Error) -> anyhow::Error {
    match (error.missing(), error.kind()) {
        ([], ErrorKind::Unimplemented) => anyhow::anyhow!("{error}\nthis server runs no actions"),
        ([], _) => anyhow::anyhow!("{error}"),
        (missing, _) => anyhow::anyhow!(
            "the server lost blobs that were uploaded just now: it may be too small to keep them; try again{}",
            Missing(missing)
        ),
    }
}

/// Writes what the command wrote.
async fn write_streams(remote: &Remote, function: DigestFunction, result: &ActionResult) -> anyhow::Result<()> {
    let stdout = (&result.stdout_raw, &result.stdout_digest);
    write_stream(remote, function, stdout, &mut io::stdout().lock())
        .await
        .context("its standard output")?;
    let stderr = (&result.stderr_raw, &result.stderr_digest);
    write_stream(remote, function, stderr, &mut io::stderr().lock())
        .await
        .context("its standard error")
}

async fn write_stream(
    remote: &Remote,
    function: DigestFunction,
    (raw, digest): (&Bytes, &Option<reapi::Digest>),
    to: &mut impl Write,
) -> anyhow::Result<()> {
    let outcome = match digest {
        Some(digest) if raw.is_empty() => fetch::write_blob(remote, from_proto(function, digest)?, to).await,
        _ => to.write_all(raw).and_then(|()| to.flush()).map_err(Failure::Write),
    };
    match outcome {
        Ok(()) => Ok(()),
        // Its reader has seen enough; the exit code is still of interest.
        Err(Failure::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Failure::Write(error)) => Err(error.into()),
        Err(Failure::Read(error)) => Err(error.into()),
    }
}

/// Tells on standard error what there is beside the output.
fn report(function: DigestFunction, response: &ExecuteResponse, result: &ActionResult) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    if !response.message.is_empty() {
        lines.push(response.message.clone());
    }
    if response.cached_result {
        lines.push("the result was in the action cache".to_owned());
    }
    let shown = |digest: Option<&reapi::Digest>| match digest.map(|digest| from_proto(function, digest)) {
        // As `get` wants it.
        Some(Ok(digest)) => digest.to_string(),
        Some(Err(error)) => format!("({error})"),
        None => "(no digest)".to_owned(),
    };
    for file in &result.output_files {
        lines.push(format!("output {} {}", shown(file.digest.as_ref()), Shown(&file.path)));
    }
    for directory in &result.output_directories {
        let digest = directory
            .root_directory_digest
            .as_ref()
            .or(directory.tree_digest.as_ref());
        lines.push(format!("output {} {}/", shown(digest), Shown(&directory.path)));
    }
    for link in outputs::links(result) {
        lines.push(format!("output {} -> {}", Shown(&link.path), Shown(&link.target)));
    }
    let mut stderr = io::stderr().lock();
    lines
        .iter()
        .try_for_each(|line| writeln!(stderr, "rootcellar: {line}"))
        .context("writing to standard error")
}

async fn fetch_outputs(
    remote: Remote,
    function: DigestFunction,
    places: &Places,
    result: &ActionResult,
    dir: &Path,
) -> anyhow::Result<()> {
    let tree = outputs::tree(&remote, function, places, result).await?;
    let received = remote.traffic().received_bytes();
    let _progress = Progress::downloading(remote.traffic(), received.saturating_add(bytes_to_fetch(&tree)));
    fetch::write_directory(Arc::new(remote), &tree, dir).await
}

/// The command's exit code as that of this program, which has 8 bits.
fn exit_code(exit_code: i32) -> ExitCode {
    u8::try_from(exit_code).map_or(ExitCode::from(u8::MAX), ExitCode::from)
}
