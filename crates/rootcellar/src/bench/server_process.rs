//! Servers that a benchmark starts: each in a directory of its own, and both end with the benchmark.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take until it accepts a connection.
const START_MAX: Duration = Duration::from_secs(30);
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// A server, in a directory that goes with it.
pub(super) struct ServerProcess {
    child: Child,
    url: String,
    /// What ends it. One that may take its time is told to end; the other ones have nothing that anybody wants.
    end: Signal,
    /// Where it says the rest of what it has to say.
    _output: Option<BufReader<ChildStdout>>,
    _dir: tempfile::TempDir,
}

impl ServerProcess {
    /// Starts a server of our own on a free port, with these arguments besides those that say where it listens and stores.
    pub(super) fn rootcellar(dir: &Path, arguments: &[&OsStr]) -> anyhow::Result<Self> {
        let dir = fresh(dir)?;
        let mut command = own_program();
        command
            .args(["--log", "warn", "serve", "--listen", "127.0.0.1:0", "--dir"])
            .arg(dir.path());
        command.args(arguments);
        Self::announced(command, dir, Signal::TERM)
    }

    /// Starts the server that only does what has to be done (`bare_server`).
    pub(super) fn bare(dir: &Path) -> anyhow::Result<Self> {
        let dir = fresh(dir)?;
        let mut command = own_program();
        command.args(["bench", "bare-server"]).arg(dir.path());
        // It ends when this end of the pipe is closed, however that comes.
        command.stdin(Stdio::piped());
        Self::announced(command, dir, Signal::KILL)
    }

    /// Starts BuildBox's casd, as a server with a cache on disk and no other server behind it. It takes no port that is free, so one is
    /// looked for that was free a moment ago.
    pub(super) fn casd(program: &Path, dir: &Path) -> anyhow::Result<Self> {
        let dir = fresh(dir)?;
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = address.context("looking for a free port")?;
        let child = Command::new(program)
            .arg("--bind")
            .arg(address.to_string())
            .args(["--log-level", "error"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut server = Self {
            child,
            url: format!("http://{address}"),
            end: Signal::KILL,
            _output: None,
            _dir: dir,
        };
        server.wait_until_it_listens(address)?;
        Ok(server)
    }

    /// Starts a server that says where it listens.
    fn announced(mut command: Command, dir: tempfile::TempDir, end: Signal) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("starting a server")?;
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let is_address = |line: &String| line.trim_start().starts_with("listens");
        let listens = output.by_ref().lines().map_while(Result::ok).find(is_address);
        let address = listens.as_deref().and_then(|line| line.split_whitespace().nth(1));
        let url = format!("http://{}", address.unwrap_or_default());
        let is_up = address.is_some();
        let server = Self {
            child,
            url,
            end,
            _output: Some(output),
            _dir: dir,
        };
        match is_up {
            true => Ok(server),
            false => bail!("the server did not start: what it said stands above"),
        }
    }

    fn wait_until_it_listens(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait().context("asking for a server")? {
                bail!("the server ended with {status} before it listened: what it said stands above");
            }
            if begin.elapsed() > START_MAX {
                bail!(
                    "the server does not listen at {address} after {} s",
                    START_MAX.as_secs()
                );
            }
            std::thread::sleep(BETWEEN_TRIES);
        }
        Ok(())
    }

    /// Where clients find it.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn process_id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let ended = pid.map(|pid| kill_process(pid, self.end));
        if ended.is_some_and(|ended| ended.is_err()) || self.child.wait().is_err() {
            tracing::warn!("the server of the benchmark may still run");
        }
    }
}

fn own_program() -> Command {
    Command::new("/proc/self/exe")
}

fn fresh(dir: &Path) -> anyhow::Result<tempfile::TempDir> {
    tempfile::tempdir_in(dir).with_context(|| dir.display().to_string())
}
