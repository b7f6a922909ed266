//! `rootcellar rebalance`: moves blobs to where they belong after the shards were changed.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use rootcellar_store::{Rebalanced, Spool, SystemClock};

use crate::cli;
use crate::config::Config;
use crate::size::Size;
use crate::storage;

/// Looks through all shards, and says how it went.
pub(crate) async fn run(options: cli::Rebalance) -> anyhow::Result<ExitCode> {
    let serve = cli::Serve {
        config: Some(options.config.clone()),
        ..cli::Serve::default()
    };
    let config = Config::load(&serve)?;
    let copies = tempfile::tempdir().context("a directory for what is copied")?;
    let spool = Spool::new(copies.path());
    let found = storage::build_sharded(&config, Arc::new(SystemClock), spool).await?;
    let (sharded, closers) = found.with_context(|| format!("{} has no [storage.sharded]", options.config.display()))?;
    let progress = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{elapsed} {msg}")?);
    let outcome = sharded.rebalance(|done| progress.set_message(words(&done))).await;
    progress.finish_and_clear();
    for closer in &closers {
        closer.close().await?;
    }
    let done = outcome?;
    print(&words(&done));
    Ok(if done.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn words(done: &Rebalanced) -> String {
    let Rebalanced {
        shards,
        blobs,
        copied,
        bytes,
        misplaced,
        failed,
    } = done;
    let size = Size(*bytes);
    format!(
        "{shards} shards and {blobs} blobs looked through: {copied} copied ({size}), {misplaced} where they need not be, {failed} failed"
    )
}

#[expect(clippy::print_stdout, reason = "it is what the command is for")]
fn print(text: &str) {
    println!("{text}");
}
