//! The program: reads the command line, the configuration and the environment, and assembles the libraries.
//!
//! It is the only crate that does so. `serve` is the server; the other commands are a client of any server of the API, so that
//! everything can be tried without another one.

mod bench;
mod cli;
mod client;
mod config;
mod doctor;
mod fsck;
mod rebalance;
mod serve;
mod size;
mod stagers;
mod storage;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // A sandbox begins as this program, started anew with a hidden first argument: it must not even parse the command line.
    rootcellar_worker::sandbox::run_if_helper();
    let arguments = cli::Arguments::parse();
    match run(arguments) {
        Ok(exit_code) => exit_code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: cli::Arguments) -> anyhow::Result<ExitCode> {
    // A benchmark opens hundreds of stores, and each would say so.
    let default = match &arguments.command {
        cli::Command::Bench(_) => "error",
        _ => "warn,rootcellar=info",
    };
    start_logging(arguments.log.as_deref().unwrap_or(default))?;
    match arguments.command {
        cli::Command::Serve(options) => serve::run(&options),
        cli::Command::Put(options) => client::block_on(client::put::run(options)),
        cli::Command::Get(options) => client::block_on(client::get::run(options)),
        cli::Command::Tree(options) => client::block_on(client::tree::run(options)),
        cli::Command::Exec(options) => client::block_on(client::exec::run(options)),
        cli::Command::Fsck(options) => fsck::run(&options),
        cli::Command::Config(command) => config::command::run(&command),
        cli::Command::Rebalance(options) => client::block_on(rebalance::run(options)),
        cli::Command::Doctor(options) => client::block_on(doctor::run(options)),
        cli::Command::Bench(cli::Bench::Layouts(options)) => bench::layouts(&options),
        cli::Command::Bench(cli::Bench::Actions(options)) => client::block_on(bench::actions(options)),
        cli::Command::Bench(cli::Bench::Staging(options)) => bench::staging_costs(&options),
        cli::Command::Bench(cli::Bench::Server(options)) => client::block_on(bench::servers(options)),
        cli::Command::Bench(cli::Bench::BareServer(options)) => client::block_on(bench::bare_server(options)),
    }
}

/// Logs go to standard error, and are coloured only where a person reads them.
fn start_logging(filter: &str) -> anyhow::Result<()> {
    use std::io::IsTerminal as _;

    let filter = tracing_subscriber::EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("--log: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Where the log cannot be written, as on a disk that is full, saying so there would end the thread that says it.
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

/// Writes an error and the causes below it. Errors of the libraries tell their causes themselves: those are not told again.
#[expect(clippy::print_stderr, reason = "errors of a command go to standard error")]
fn report(error: &anyhow::Error) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    eprintln!("rootcellar: {text}");
}
