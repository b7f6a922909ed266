//! `rootcellar bench`: which workloads and layouts, and where the report goes. What is measured, and how, is `rootcellar-bench`'s.

mod actions;
mod bare_server;
mod server_process;
mod servers;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rootcellar_bench::figures::{Ground, QUESTIONS, Question};
use rootcellar_bench::{CandidateKind, DiskCandidate, MIXES, Mix, Report, Workload, measure, staging};
use rootcellar_store::layout::{LayoutKind, kind_named};

use rootcellar_worker::sandbox::Sandbox;

use crate::cli;
use crate::size::Size;
use crate::stagers;

const LAYOUTS: [&str; 3] = ["loose", "packed", "hybrid"];
/// A system to build in, very many small files, and what a compiler makes.
const DEFAULT_MIXES: [&str; 3] = ["deb-root", "node-modules", "c-debug"];
/// What everything is divided by for a quick look.
const QUICK: u64 = 10;
/// A smaller store that is full has not even room for a batch beside what it could let go.
const MIX_BYTES_MIN: u64 = 16 << 20;
const SEED: u64 = 1;

/// Measures storage layouts, and reports.
pub(crate) fn layouts(options: &cli::BenchLayouts) -> anyhow::Result<ExitCode> {
    if options.mixes.iter().any(|mix| mix == "list") {
        list_mixes();
        return Ok(ExitCode::SUCCESS);
    }
    let layouts = layouts_named(&options.layouts)?;
    let mixes = mixes(&options.mixes)?;
    let questions = questions(&options.only)?;
    let shrink = if options.quick { QUICK } else { 1 };
    let mix_bytes = options.size.0 / shrink;
    if mix_bytes < MIX_BYTES_MIN {
        bail!(
            "--size {}: at least {} is needed here",
            options.size,
            Size(MIX_BYTES_MIN * shrink)
        );
    }
    fs::create_dir_all(&options.dir).with_context(|| options.dir.display().to_string())?;
    let mut report = Report::new();
    // First: after the workloads some of them come out dearer (docs/benchmarks.md).
    if options.figures {
        let ground = Ground {
            dir: &options.dir,
            shrink,
        };
        for (name, question) in questions {
            say(&format!("figures: {name}"));
            report.figures.extend(question(&ground));
        }
    }
    if options.only.is_empty() {
        let workload = |mix: &Mix| {
            say(&format!("making a workload of {}: {}", mix.name, mix.origin));
            Workload::of_mix(mix, SEED, mix_bytes)
        };
        let workloads: Vec<Workload> = mixes.iter().map(workload).collect();
        let candidates: Vec<DiskCandidate> = layouts.into_iter().map(DiskCandidate::new).collect();
        let kinds: Vec<&dyn CandidateKind> = candidates.iter().map(|candidate| candidate as _).collect();
        report.samples = measure(&kinds, &workloads, &options.dir, None, say);
    }
    show(&report, &options.report)?;
    Ok(ExitCode::SUCCESS)
}

/// Measures staging, and reports.
pub(crate) fn staging_costs(options: &cli::BenchStaging) -> anyhow::Result<ExitCode> {
    check_known(&options.only, &staging::QUESTIONS)?;
    let is_asked = |name: &str| options.only.is_empty() || options.only.iter().any(|asked| asked == name);
    fs::create_dir_all(&options.dir).with_context(|| options.dir.display().to_string())?;
    let ground = Ground {
        dir: &options.dir,
        shrink: if options.quick { QUICK } else { 1 },
    };
    let mut report = Report::new();
    report.figures = staging::figures(&ground, stagers::own_means(&Sandbox::of_this_program()), is_asked, say)
        .map_err(anyhow::Error::msg)?;
    show(&report, &options.report)?;
    Ok(ExitCode::SUCCESS)
}

/// Measures actions, and reports.
pub(crate) async fn actions(options: cli::BenchActions) -> anyhow::Result<ExitCode> {
    let report = actions::measure(&options).await?;
    show(&report, &options.report)?;
    Ok(ExitCode::SUCCESS)
}

/// Measures servers, and reports.
pub(crate) async fn servers(options: cli::BenchServer) -> anyhow::Result<ExitCode> {
    let outcome = servers::run(&options).await?;
    show(&outcome.report, &options.report)?;
    Ok(match outcome.failed_calls {
        0 => ExitCode::SUCCESS,
        failed => {
            say(&format!("{failed} calls failed"));
            ExitCode::FAILURE
        }
    })
}

/// Is a server that others are measured against.
pub(crate) async fn bare_server(options: cli::BareServer) -> anyhow::Result<ExitCode> {
    bare_server::run(&options).await
}

fn layouts_named(names: &[String]) -> anyhow::Result<Vec<Arc<dyn LayoutKind>>> {
    let all: Vec<String> = LAYOUTS.map(str::to_owned).to_vec();
    let names = if names.is_empty() { &all } else { names };
    let named = |name: &String| {
        kind_named(name).with_context(|| format!("there is no layout {name:?}; there are {}", LAYOUTS.join(", ")))
    };
    names.iter().map(named).collect()
}

fn mixes(names: &[String]) -> anyhow::Result<Vec<Mix>> {
    let default: Vec<String> = DEFAULT_MIXES.map(str::to_owned).to_vec();
    let names = if names.is_empty() { &default } else { names };
    let named = |name: &String| {
        let known = MIXES.map(|mix| mix.name).join(", ");
        Mix::named(name).with_context(|| format!("there is no mix {name:?}; there are {known}"))
    };
    names.iter().map(named).collect()
}

fn questions(only: &[String]) -> anyhow::Result<Vec<(&'static str, Question)>> {
    check_known(only, &QUESTIONS.map(|(name, _)| name))?;
    let is_asked = |name: &str| only.is_empty() || only.iter().any(|asked| asked == name);
    Ok(QUESTIONS.into_iter().filter(|(name, _)| is_asked(name)).collect())
}

fn check_known(names: &[String], known: &[&str]) -> anyhow::Result<()> {
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => bail!("there is no question {unknown:?}; there are {}", known.join(", ")),
        None => Ok(()),
    }
}

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn list_mixes() {
    for mix in MIXES {
        println!("{:<14} {}", mix.name, mix.origin);
    }
}

/// Tells a person who waits what is going on.
#[expect(clippy::print_stderr, reason = "progress goes to standard error")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn show(report: &Report, options: &cli::ReportFiles) -> anyhow::Result<()> {
    print!("{}", report.to_text());
    if let Some(file) = &options.json {
        write(file, &report.to_json())?;
    }
    if let Some(file) = &options.html {
        write(file, &report.to_html())?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}
