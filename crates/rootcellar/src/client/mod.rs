//! The commands that talk to a server: any server of the API, through what everybody else uses too.
//!
//! What a command yields goes to standard output, everything else to standard error. A reader of standard output that goes
//! away, such as `head`, ends a command well.

pub(crate) mod exec;
mod fetch;
pub(crate) mod get;
mod missing;
mod outputs;
mod progress;
pub(crate) mod put;
pub(crate) mod tree;
pub(crate) mod upload;

use std::io;
use std::process::ExitCode;

use anyhow::Context as _;
use rootcellar_grpc::client::{Connection, Endpoint};
use rootcellar_reapi::ErrorKind;

use crate::cli;

/// Runs a command to its end, on this thread, which it may block: other threads see to the network.
pub(crate) fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let outcome = runtime.block_on(command);
    // What still runs, such as the read of a blob that nobody wants any more, is not waited for.
    runtime.shutdown_background();
    outcome
}

pub(crate) async fn connect(options: &cli::Endpoint) -> anyhow::Result<Connection> {
    let endpoint = Endpoint::parse(&options.endpoint, &options.instance)?;
    endpoint.connect().await.map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::Unavailable => "start a server with `rootcellar serve`, or name another one with --endpoint",
            _ => "see --endpoint",
        };
        anyhow::anyhow!("{error}\n{advice}")
    })
}

/// The end of a command that wrote to standard output.
fn after_writing(outcome: io::Result<()>) -> anyhow::Result<ExitCode> {
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error).context("writing to standard output"),
    }
}
