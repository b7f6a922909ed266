//! Runs a command in a directory as its root file system, as often as asked, and says how long that takes.
//!
//! `run_in_root ROOT TIMES COMMAND [ARGUMENT...]`, where ROOT has the directories `proc`, `dev` and `tmp`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rootcellar_worker::sandbox::{Finished, Identity, Root, Sandbox, SandboxError, SandboxSpec, run_if_helper};

/// A user of the host that owns nothing.
const NOBODY: u32 = 65_534;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run_if_helper();
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: run_in_root ROOT TIMES COMMAND [ARGUMENT...]";
    let root = PathBuf::from(arguments.next().ok_or(usage)?);
    let times: usize = arguments.next().ok_or(usage)?.parse()?;
    let command: Vec<String> = arguments.collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut durations = Vec::new();
    for _ in 0..times {
        let begin = Instant::now();
        let finished = runtime.block_on(run(root.clone(), &command))?;
        durations.push(begin.elapsed());
        writeln!(io::stderr(), "{finished:?}")?;
    }
    durations.sort_unstable();
    if let (Some(least), Some(median)) = (durations.first(), durations.get(times / 2)) {
        writeln!(
            io::stderr(),
            "{times} runs, least {}, median {}",
            ms(*least),
            ms(*median)
        )?;
    }
    Ok(())
}

async fn run(root: PathBuf, command: &[String]) -> Result<Finished, SandboxError> {
    let identity = match Identity::own(0, 0) {
        Identity { host_uid: 0, .. } => Identity {
            uid: 0,
            gid: 0,
            host_uid: NOBODY,
            host_gid: NOBODY,
        },
        own => own,
    };
    let spec = SandboxSpec::new(Root::Path(root), identity, command);
    let streams = tempfile::tempfile().and_then(|file| Ok((file.try_clone()?, file)));
    let (stdout, stderr) = streams.expect("the example has somewhere to write");
    Sandbox::of_this_program()
        .start(spec, stdout, stderr)
        .await?
        .wait()
        .await
}

fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}
