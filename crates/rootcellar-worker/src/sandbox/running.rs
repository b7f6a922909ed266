//! The server's side: starting a sandbox, waiting for it, killing it.
//!
//! The server's process never forks: it starts its own program anew (`posix_spawn`) with a socket as stdin, sends the
//! order, and reads a report. The socket is also the lifeline. When the server closes its end, or dies, the helper
//! kills the sandbox.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::error::{Failure, SandboxError, SandboxErrorKind};
use super::message::{FinalReport, REPORT_BYTES_MAX, Report, SPEC_BYTES_MAX, Usage, encode_spec};
use super::namespace;
use super::order::send_header;
use super::probe::{self, PROBE_BYTES_MAX, ProbedPart};
use super::spec::{Identity, SandboxSpec};

/// The hidden first argument that turns the program into the helper.
pub(super) const HELPER_ARGUMENT: &str = "sandbox-init";

/// The second argument that makes the helper try things out instead of taking an order.
pub(super) const PROBE_ARGUMENT: &str = "probe";

/// The second argument that makes the helper enter a user namespace.
pub(super) const NAMESPACE_ARGUMENT: &str = "user-namespace";

/// Starts sandboxes, each in a process of its own.
#[derive(Clone, Debug)]
pub struct Sandbox {
    program: PathBuf,
}

/// Tells how a command ended, what it used and how long it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// What it and everything it started used.
    pub usage: Usage,
    /// How long the command ran, from its start to its end, set-up and tear-down excluded. Zero unless it exited.
    pub wall: Duration,
}

/// Tells how a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran and ended.
    Exited {
        /// The exit code; for a signal, 128 and its number, as shells have it.
        code: i32,
        /// The signal that ended it, if one did.
        signal: Option<i32>,
    },
    /// It could not be started: no such program, not executable, no interpreter, no working directory.
    NotStarted {
        /// What was wrong, in words for whoever sent the action.
        message: String,
    },
    /// [`Running::kill`] ended it.
    Killed,
}

impl Sandbox {
    /// Uses `program` as the helper: one whose `main` begins with [`run_if_helper`](super::run_if_helper).
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
        }
    }

    /// Uses the running program itself as the helper, even when its file has been replaced since.
    pub fn of_this_program() -> Self {
        Self::new("/proc/self/exe")
    }

    /// Starts a sandbox whose command writes to `stdout` and `stderr`. Regular files become the property of the spec's
    /// host user, so that the command can open them by way of `/dev/stdout`.
    ///
    /// Returns as soon as the order is sent; what goes wrong later is an error of [`Running::wait`]. Dropping the future
    /// kills what it has started. Starting a process holds the calling thread for about a millisecond.
    ///
    /// # Errors
    /// `Unfit` for a spec that cannot be run anywhere, `Machine` if the helper cannot be started or dies at once.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub async fn start(&self, spec: SandboxSpec, stdout: File, stderr: File) -> Result<Running, SandboxError> {
        spec.validate()?;
        let bytes = encode_spec(&spec);
        if bytes.len() as u64 > SPEC_BYTES_MAX {
            return Err(SandboxError::unfit(format!(
                "spec of {} bytes, more than {SPEC_BYTES_MAX}",
                bytes.len()
            )));
        }
        let (ours, theirs) = StdUnixStream::pair().map_err(machine("make a socket pair"))?;
        ours.set_nonblocking(true)
            .map_err(machine("make a socket non-blocking"))?;
        let helper = self.spawn(theirs, &[])?;
        send_header(&ours, bytes.len(), &spec, [&stdout, &stderr]).map_err(machine("send the order"))?;
        drop((spec, stdout, stderr));
        let mut socket = UnixStream::from_std(ours).map_err(machine("watch a socket"))?;
        socket.write_all(&bytes).await.map_err(machine("send the order"))?;
        Ok(Running {
            socket,
            helper,
            report: Vec::new(),
        })
    }

    /// Tries on this machine what a sandbox is made of, part by part, without running anything.
    ///
    /// # Errors
    /// `Machine` or `Lost` if not even the helper can be started or heard.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub async fn probe(&self) -> Result<Vec<ProbedPart>, SandboxError> {
        let (ours, theirs) = StdUnixStream::pair().map_err(machine("make a socket pair"))?;
        ours.set_nonblocking(true)
            .map_err(machine("make a socket non-blocking"))?;
        let mut helper = self.spawn(theirs, &[PROBE_ARGUMENT])?;
        let mut bytes = Vec::new();
        let socket = UnixStream::from_std(ours).map_err(machine("watch a socket"))?;
        socket
            .take(PROBE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .await
            .map_err(machine("read the findings"))?;
        let status = helper.wait().await.map_err(machine("wait for the helper"))?;
        probe::decode(&bytes).map_err(lost(status))
    }

    /// Makes a user namespace whose ids are mapped as `identity` says. It lives as long as its descriptor, or a mount that has it.
    ///
    /// # Errors
    /// `Machine` if there cannot be one here; `Unfit` if it would map to the root of the host.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub async fn user_namespace(&self, identity: Identity) -> Result<OwnedFd, SandboxError> {
        let (ours, theirs) = StdUnixStream::pair().map_err(machine("make a socket pair"))?;
        ours.set_nonblocking(true)
            .map_err(machine("make a socket non-blocking"))?;
        let mut helper = self.spawn(theirs, &[NAMESPACE_ARGUMENT])?;
        let pid = helper.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let mut socket = UnixStream::from_std(ours).map_err(machine("watch a socket"))?;
        socket
            .read_exact(&mut [0])
            .await
            .map_err(machine("enter a new user namespace"))?;
        let pid = pid.expect("a helper that has not been waited for has an id");
        let namespace = namespace::take(pid, identity).map_err(Failure::into_error);
        drop(socket);
        helper.wait().await.map_err(machine("wait for the helper"))?;
        namespace
    }

    fn spawn(&self, socket: StdUnixStream, arguments: &[&str]) -> Result<Child, SandboxError> {
        Command::new(&self.program)
            .arg(HELPER_ARGUMENT)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(machine(format!("start {}", self.program.display())))
    }
}

/// A sandbox that has been started. Dropping it kills the sandbox, without waiting for the end of its processes.
#[derive(Debug)]
pub struct Running {
    socket: UnixStream,
    helper: Child,
    /// What has arrived of the report.
    report: Vec<u8>,
}

impl Running {
    /// Kills every process of the sandbox. [`wait`](Self::wait) then returns when they are gone.
    pub fn kill(&mut self) {
        if let Err(error) = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write) {
            // A socket without another end means that the launcher is gone already, and the sandbox with it.
            tracing::debug!(%error, "kill of a sandbox that has ended");
        }
    }

    /// Waits until the command has ended and every process of the sandbox is gone.
    ///
    /// Dropping the future loses nothing: it can be called again.
    ///
    /// # Errors
    /// `Unfit` or `Machine` if the sandbox could not be built, with the step that failed; `Lost` if it ended without a report.
    pub async fn wait(&mut self) -> Result<Finished, SandboxError> {
        while self.read_more().await.map_err(machine("read the report"))? {}
        let status = self.helper.wait().await.map_err(machine("wait for the helper"))?;
        let report = FinalReport::decode(&self.report).map_err(lost(status))?;
        finished(report)
    }

    /// Reads a part of the report; false at its end. A helper that dies before it has read all of its order breaks the
    /// socket, which is an end as well.
    async fn read_more(&mut self) -> std::io::Result<bool> {
        let room = REPORT_BYTES_MAX.saturating_sub(self.report.len() as u64);
        match (&mut self.socket).take(room).read_buf(&mut self.report).await {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(false),
            read => read.map(|count| count > 0),
        }
    }
}

fn finished(FinalReport { report, usage }: FinalReport) -> Result<Finished, SandboxError> {
    let (outcome, wall) = match report {
        Report::Failed(failure) => return Err(failure.into_error()),
        Report::NotStarted { message } => (Outcome::NotStarted { message }, Duration::ZERO),
        Report::Ended { wait_status, wall } => (exited(wait_status), wall),
        Report::Killed => (Outcome::Killed, Duration::ZERO),
    };
    Ok(Finished { outcome, usage, wall })
}

fn exited(wait_status: i32) -> Outcome {
    if libc::WIFSIGNALED(wait_status) {
        let signal = libc::WTERMSIG(wait_status);
        return Outcome::Exited {
            code: 128 + signal,
            signal: Some(signal),
        };
    }
    Outcome::Exited {
        code: libc::WEXITSTATUS(wait_status),
        signal: None,
    }
}

fn machine(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> SandboxError {
    move |source| SandboxError::new(SandboxErrorKind::Machine, step, Some(source))
}

fn lost(status: ExitStatus) -> impl FnOnce(std::io::Error) -> SandboxError {
    move |source| {
        let step = format!("the helper ended without a report ({status})");
        SandboxError::new(SandboxErrorKind::Lost, step, Some(source))
    }
}
