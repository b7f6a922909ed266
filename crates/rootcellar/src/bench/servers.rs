//! `rootcellar bench server`: which servers, which load. What is done to them is `rootcellar-bench`'s.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use rootcellar_bench::server::{BLOB_BYTES_MIN, Bound, Outcome, Role, Settings, Target, Workload, measure};

use super::server_process::ServerProcess;
use super::{QUICK, say};
use crate::cli;
use crate::size::Size;

/// The largest message of an upload: what a gRPC server takes by default, with room for a header.
const MESSAGE_BYTES_MAX: u64 = 4_000_000;

/// Starts what is to be started, measures, and ends it.
pub(super) async fn run(options: &cli::BenchServer) -> anyhow::Result<Outcome> {
    let settings = settings(options)?;
    let mut servers = Vec::new();
    let targets = targets(options, &mut servers)?;
    if targets.is_empty() {
        bail!("no server is named: give --start, --endpoint URL, --casd PROGRAM or --bare, or some of them");
    }
    Ok(measure(&targets, &settings, say).await)
}

fn settings(options: &cli::BenchServer) -> anyhow::Result<Settings> {
    let shrink = if options.quick { QUICK } else { 1 };
    let (small, large, message) = (options.blob_size.0, options.stream_size.0, options.message_size.0);
    for (name, size) in [
        ("--blob-size", small),
        ("--stream-size", large),
        ("--message-size", message),
    ] {
        if size < BLOB_BYTES_MIN {
            bail!(
                "{name} {}: at least {} is needed here",
                Size(size),
                Size(BLOB_BYTES_MIN)
            );
        }
    }
    let of_a_call = small.saturating_mul(u64::from(options.blobs));
    for (name, size) in [("--blob-size times --blobs", of_a_call), ("--message-size", message)] {
        if size > MESSAGE_BYTES_MAX {
            bail!("{name} is {}: servers take messages of at most 4 MiB", Size(size));
        }
    }
    Ok(Settings {
        workloads: workloads(&options.only)?,
        concurrency: usize::try_from(options.concurrency)?,
        connections: usize::try_from(options.connections)?,
        bound: bound(options, shrink),
        seed: options.seed,
        salt: salt(options.seed),
        shrink,
        small_bytes: small,
        blobs_a_call: usize::try_from(options.blobs)?,
        large_bytes: large,
        message_bytes: usize::try_from(message)?,
        digests_a_call: usize::try_from(options.digests)?,
        scratch: options.dir.clone(),
    })
}

fn workloads(only: &[String]) -> anyhow::Result<Vec<Workload>> {
    if only.is_empty() {
        return Ok(Workload::ALL
            .into_iter()
            .filter(|workload| workload.is_default())
            .collect());
    }
    let named = |name: &String| {
        let known = Workload::ALL.map(Workload::name).join(", ");
        Workload::named(name).with_context(|| format!("there is no workload {name:?}; there are {known}"))
    };
    only.iter().map(named).collect()
}

fn bound(options: &cli::BenchServer, shrink: u64) -> Bound {
    match options.count {
        Some(count) => Bound::Calls((count / shrink).max(1)),
        None => {
            let millis = options.seconds.saturating_mul(1000) / shrink;
            Bound::Time(Duration::from_millis(millis))
        }
    }
}

/// Another number for each run: a server that has seen a blob before does less than it should.
fn salt(seed: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(now.as_nanos()).unwrap_or_default();
    seed ^ nanos ^ (u64::from(std::process::id()) << 48)
}

/// All servers, those that run already first. What is started is kept in `servers`, and ends with it.
fn targets(options: &cli::BenchServer, servers: &mut Vec<ServerProcess>) -> anyhow::Result<Vec<Target>> {
    if options.pids.len() > options.endpoints.len() {
        bail!("there are more --pid than --endpoint: each is the process of the endpoint in the same place");
    }
    let mut targets = Vec::new();
    for (index, url) in options.endpoints.iter().enumerate() {
        targets.push(Target {
            name: short_name(url),
            url: url.clone(),
            instance: options.instance.clone(),
            process: options.pids.get(index).copied(),
            role: Role::Other,
        });
    }
    let mut start = |name: &str, role, server: ServerProcess| {
        targets.push(Target {
            name: name.to_owned(),
            url: server.url().to_owned(),
            instance: String::new(),
            process: Some(server.process_id()),
            role,
        });
        servers.push(server);
    };
    std::fs::create_dir_all(&options.dir).with_context(|| options.dir.display().to_string())?;
    let dir = options.dir.as_path();
    if options.start {
        start(
            "ours",
            Role::Ours,
            ServerProcess::rootcellar(dir, &[OsStr::new("--no-execution")])?,
        );
    }
    for file in &options.start_with {
        let server = ServerProcess::rootcellar(dir, &[OsStr::new("--config"), file.as_os_str()])?;
        start(&file_name(file), Role::Ours, server);
    }
    if options.bare {
        start("bare", Role::Bare, ServerProcess::bare(dir)?);
    }
    if let Some(program) = &options.casd {
        start("casd", Role::Peer, ServerProcess::casd(program, dir)?);
    }
    check_names(&targets)?;
    Ok(targets)
}

/// Tables and files tell servers apart by their names.
fn check_names(targets: &[Target]) -> anyhow::Result<()> {
    for (index, target) in targets.iter().enumerate() {
        if targets[..index].iter().any(|other| other.name == target.name) {
            bail!("two servers are called {:?}", target.name);
        }
    }
    Ok(())
}

fn short_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.trim_end_matches('/').to_owned()
}

fn file_name(file: &Path) -> String {
    file.file_stem()
        .map_or_else(|| "ours".to_owned(), |stem| stem.to_string_lossy().into_owned())
}
