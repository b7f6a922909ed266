//! The server's side: starting a sandbox, waiting for it, killing it.
//!
//! The server's process never forks: the spawner does. The server has a socket to the new process, sends the
//! order, and reads a report. The socket is also the lifeline. When the server closes its end, or dies, the helper
//! kills the sandbox.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::error::{Failure, SandboxError, SandboxErrorKind};
use super::identity;
use super::message::{FinalReport, REPORT_BYTES_MAX, Report, SPEC_BYTES_MAX, Usage, encode_spec};
use super::namespace;
use super::order::send_header;
use super::probe::{self, PROBE_BYTES_MAX, ProbedPart};
use super::spawner::{Role, Spawner};
use super::spec::{Identity, SandboxSpec};

/// The hidden first argument that turns the program into the helper.
pub(super) const HELPER_ARGUMENT: &str = "sandbox-init";

/// Starts sandboxes, each in a process of its own, by way of one that all its clones share.
#[derive(Clone, Debug)]
pub struct Sandbox {
    spawner: Arc<Spawner>,
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
            spawner: Arc::new(Spawner::of(program.into())),
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
    /// kills what it has started. The first one starts the spawner, which holds the calling thread for about a millisecond.
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
        let ours = self.launch(Role::Launcher)?;
        ours.set_nonblocking(true)
            .map_err(machine("make a socket non-blocking"))?;
        send_header(&ours, bytes.len(), &spec, [&stdout, &stderr]).map_err(machine("send the order"))?;
        drop((spec, stdout, stderr));
        let mut socket = UnixStream::from_std(ours).map_err(machine("watch a socket"))?;
        socket.write_all(&bytes).await.map_err(machine("send the order"))?;
        Ok(Running {
            socket,
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
        let ours = self.launch(Role::Probe)?;
        ours.set_nonblocking(true)
            .map_err(machine("make a socket non-blocking"))?;
        let mut bytes = Vec::new();
        let socket = UnixStream::from_std(ours).map_err(machine("watch a socket"))?;
        socket
            .take(PROBE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .await
            .map_err(machine("read the findings"))?;
        probe::decode(&bytes).map_err(lost)
    }

    /// Makes a user namespace whose ids are mapped as `identity` says. It lives as long as its descriptor, or a mount that has it. Blocks
    /// for a millisecond.
    ///
    /// # Errors
    /// `Machine` if there cannot be one here; `Unfit` if it would map to the root of the host.
    pub fn user_namespace(&self, identity: Identity) -> Result<OwnedFd, SandboxError> {
        let mut helper = self.launch(Role::Namespace)?;
        // It stays until the socket ends.
        namespace::map(&mut helper, identity)
            .and_then(namespace::open)
            .map_err(Failure::into_error)
    }

    /// Starts a process that makes mounts, as the root of a user namespace of this process's user (`rootcellar_stage::serve_mounts`).
    /// Blocks for a millisecond.
    ///
    /// # Errors
    /// `Unfit` for the root of the host, who mounts without; `Machine` if there cannot be one here.
    pub fn mount_helper(&self) -> Result<StdUnixStream, SandboxError> {
        let own = Identity::own(0, 0);
        if identity::is_root_of_host(own).map_err(Failure::into_error)? {
            return Err(SandboxError::unfit("this is for servers that are not root"));
        }
        let mut helper = self.launch(Role::Mounter)?;
        namespace::map(&mut helper, own).map_err(Failure::into_error)?;
        helper
            .write_all(&[1])
            .map_err(machine("tell the process that mounts to begin"))?;
        Ok(helper)
    }

    /// Starts a process that plays `role`, and returns the socket to it.
    fn launch(&self, role: Role) -> Result<StdUnixStream, SandboxError> {
        let launch = || {
            let (ours, theirs) = StdUnixStream::pair()?;
            self.spawner.start(role, &theirs)?;
            Ok(ours)
        };
        launch().map_err(machine("start the sandbox helper"))
    }
}

/// A sandbox that has been started. Dropping it kills the sandbox, without waiting for the end of its processes.
#[derive(Debug)]
pub struct Running {
    socket: UnixStream,
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
        let report = FinalReport::decode(&self.report).map_err(lost)?;
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

fn lost(source: std::io::Error) -> SandboxError {
    let step = "the helper ended without a report";
    SandboxError::new(SandboxErrorKind::Lost, step, Some(source))
}
