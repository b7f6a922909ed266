//! How fast a server runs actions that do nothing: what is left is what the server takes for itself.
//!
//! The client is this process, on the same machine. Every action is another one, so that nothing comes out of a cache; command and
//! action are uploaded before the time is taken, as clients do it while they wait for others.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use prost::Message as _;
use rootcellar_bench::Report;
use rootcellar_bench::report::{Figure, Goal};
use rootcellar_digest::Digest;
use rootcellar_grpc::client::{Connection, ExecuteOptions, Executor, Progress, Remote, check_status};
use rootcellar_proto::reapi;
use rootcellar_reapi::functions::to_proto;
use tokio::task::JoinSet;

use super::server_process::ServerProcess;
use crate::cli;
use crate::client::connect;
use crate::client::upload::Upload;

const IN_FLIGHT: usize = 8;
/// Run before the time is taken.
const WARM_UP: usize = 20;

/// Runs actions, and reports.
pub(super) async fn measure(options: &cli::BenchActions) -> anyhow::Result<Report> {
    let mut endpoint = options.endpoint.clone();
    let server = match options.start {
        true => Some(ServerProcess::rootcellar(&options.dir, &[])?),
        false => None,
    };
    if let Some(server) = &server {
        endpoint.endpoint = server.url().to_owned();
    }
    let connection = connect(&endpoint).await?;
    let run = Run::prepare(&connection, options).await?;
    run.alone(&run.actions[..WARM_UP]).await?;
    let (alone, together) = run.actions[WARM_UP..].split_at(options.count);
    let mut report = Report::new();
    report.figures = vec![
        latency(run.alone(alone).await?),
        rate(run.together(together).await?, options.count),
    ];
    drop(server);
    Ok(report)
}

fn latency(mut times: Vec<Duration>) -> Figure {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
    Figure {
        question: "an action that does nothing, one at a time: ms, median".to_owned(),
        value: at(50),
        goal: Goal::AtMost(10.0),
        detail: format!(
            "of {}; 10% below {:.1}, 90% below {:.1}, all below {:.1} ms",
            times.len(),
            at(10),
            at(90),
            at(100)
        ),
    }
}

fn rate(time: Duration, count: usize) -> Figure {
    Figure {
        question: format!("the same, {IN_FLIGHT} at a time: actions a second"),
        value: rate_of(count, time),
        goal: Goal::AtLeast(120.0),
        detail: format!("{count} in {:.2} s", time.as_secs_f64()),
    }
}

fn rate_of(count: usize, time: Duration) -> f64 {
    let count = u32::try_from(count).map_or(f64::INFINITY, f64::from);
    count / time.as_secs_f64()
}

/// Actions that are uploaded.
struct Run {
    connection: Connection,
    actions: Vec<Digest>,
}

impl Run {
    async fn prepare(connection: &Connection, options: &cli::BenchActions) -> anyhow::Result<Self> {
        let upload = Upload::new(Remote::new(connection.clone()), options.endpoint.digest_function)?;
        let root = match &options.root {
            Some(root) => upload.directory(root).await?,
            None => upload.directory(smallest_root()?.path()).await?,
        };
        let mut actions = Vec::new();
        for number in 0..WARM_UP + 2 * options.count {
            actions.push(upload_action(&upload, options, root, number).await?);
        }
        Ok(Self {
            connection: connection.clone(),
            actions,
        })
    }

    /// One after the other; tells how long each took.
    async fn alone(&self, actions: &[Digest]) -> anyhow::Result<Vec<Duration>> {
        let executor = Executor::new(self.connection.clone());
        let mut times = Vec::new();
        for action in actions {
            let begin = Instant::now();
            execute(&executor, *action).await?;
            times.push(begin.elapsed());
        }
        Ok(times)
    }

    /// So many at a time; tells how long all took.
    async fn together(&self, actions: &[Digest]) -> anyhow::Result<Duration> {
        let (actions, next) = (Arc::new(actions.to_vec()), Arc::new(AtomicUsize::new(0)));
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (executor, actions, next) = (Executor::new(self.connection.clone()), actions.clone(), next.clone());
            tasks.spawn(async move {
                while let Some(action) = actions.get(next.fetch_add(1, Ordering::Relaxed)) {
                    execute(&executor, *action).await?;
                }
                Ok::<(), anyhow::Error>(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.context("a task of the client")??;
        }
        Ok(begin.elapsed())
    }
}

async fn upload_action(
    upload: &Upload,
    options: &cli::BenchActions,
    root: Digest,
    number: usize,
) -> anyhow::Result<Digest> {
    let command = reapi::Command {
        arguments: options.argv.clone(),
        environment_variables: vec![reapi::command::EnvironmentVariable {
            name: "NUMBER".to_owned(),
            value: format!("{number}-{:?}", Instant::now()),
        }],
        ..reapi::Command::default()
    };
    let command = upload.bytes(command.encode_to_vec().into()).await?;
    let action = reapi::Action {
        command_digest: Some(to_proto(command)),
        input_root_digest: Some(to_proto(root)),
        ..reapi::Action::default()
    };
    upload.bytes(action.encode_to_vec().into()).await
}

async fn execute(executor: &Executor, action: Digest) -> anyhow::Result<()> {
    let mut execution = executor.execute(action, &ExecuteOptions::default());
    loop {
        let Progress::Done(response) = execution.next().await? else {
            continue;
        };
        check_status(&response.status.unwrap_or_default())?;
        match response.result.map_or(0, |result| result.exit_code) {
            0 => return Ok(()),
            code => bail!("the command ended with exit code {code}"),
        }
    }
}

/// A root with nothing in it but `/bin/true`.
fn smallest_root() -> anyhow::Result<tempfile::TempDir> {
    let program =
        smallest_program().context("--root is needed: there is no program for this machine's processor here")?;
    let root = tempfile::tempdir()?;
    std::fs::create_dir(root.path().join("bin"))?;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(root.path().join("bin/true"))?;
    file.write_all(&program)?;
    Ok(root)
}

/// A program that ends well and does nothing else: headers (elf(5)) and the system call.
fn smallest_program() -> Option<Vec<u8>> {
    const ADDRESS: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let (machine, code): (u16, &[u8]) = match std::env::consts::ARCH {
        // xor edi, edi; mov eax, 60; syscall
        "x86_64" => (62, &[0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]),
        // mov x0, 0; mov x8, 93; svc 0
        "aarch64" => (183, &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4]),
        _ => return None,
    };
    let size = HEADERS + code.len() as u64;
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut halves = |numbers: &[u16]| numbers.iter().for_each(|number| program.extend(number.to_le_bytes()));
    halves(&[2, machine, 1, 0]);
    for number in [ADDRESS + HEADERS, 64, 0] {
        program.extend(number.to_le_bytes());
    }
    for number in [0_u16, 0, 64, 56, 1, 0, 0, 0] {
        program.extend(number.to_le_bytes());
    }
    // One segment, to be loaded, read and executed.
    program.extend(1_u32.to_le_bytes());
    program.extend(5_u32.to_le_bytes());
    for number in [0, ADDRESS, ADDRESS, size, size, 0x1000] {
        program.extend(number.to_le_bytes());
    }
    program.extend(code);
    Some(program)
}
