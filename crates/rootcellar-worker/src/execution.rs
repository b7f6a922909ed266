//! The command of one action: from its root to how it ended and what it used.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rootcellar_proto::usage::ResourceUsage;
use rootcellar_reapi::{Error, ErrorKind, LoadedAction};
use rootcellar_scheduler::Assignment;
use rootcellar_stage::StagedRoot;

use crate::cgroups::{Cgroups, Controller, Snapshot};
use crate::disk;
use crate::identity::Slot;
use crate::platform::Environment;
use crate::sandbox::{Outcome, Root, Running, Sandbox, SandboxError, SandboxErrorKind, SandboxSpec, Subtree, Usage};

/// What a command runs in.
#[derive(Debug)]
pub(crate) struct Execution<'a> {
    pub(crate) action: &'a LoadedAction,
    pub(crate) root: &'a dyn StagedRoot,
    pub(crate) slot: Slot,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) cgroups: &'a Cgroups,
}

/// How a command ended, and what it used.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) how: How,
    pub(crate) usage: ResourceUsage,
    /// How long it ran.
    pub(crate) wall: Duration,
    /// What a person should know of it: nothing, mostly.
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    Exited(i32),
    TimedOut(Duration),
}

impl Execution<'_> {
    /// Runs the command, which writes to `stdout` and `stderr`, up to its end: all its processes are gone then.
    pub(crate) async fn run(&self, assignment: &Assignment, stdout: File, stderr: File) -> Result<Ended, Error> {
        let group = self.cgroups.group(self.slot).map_err(|error| grouping(&error))?;
        let mut spec = self.spec()?;
        spec.cgroups = group.joins();
        let before = group.begin();
        let ran = self.watch(spec, assignment, stdout, stderr).await;
        let after = group.snapshot();
        let lacked_memory = after.oom_kills > before.oom_kills;
        let (how, usage, wall) = ran.map_err(|error| match error.kind() {
            // Memory that no process holds, such as files in `/tmp`, can bring the kernel to kill the sandbox's init too.
            ErrorKind::Unavailable if lacked_memory => {
                Error::new(ErrorKind::ResourceExhausted, self.out_of_memory()).caused_by(error)
            }
            _ => error,
        })?;
        Ok(Ended {
            how,
            usage: resource_usage(usage, after),
            wall,
            message: match lacked_memory {
                true => self.out_of_memory(),
                false => String::new(),
            },
        })
    }

    async fn watch(
        &self,
        spec: SandboxSpec,
        assignment: &Assignment,
        stdout: File,
        stderr: File,
    ) -> Result<(How, Usage, Duration), Error> {
        let mut running = self.sandbox.start(spec, stdout, stderr).await.map_err(sandbox_error)?;
        let end = tokio::select! {
            finished = running.wait() => Some(finished.map_err(sandbox_error)?),
            () = sleep_for(self.action.timeout) => None,
            reason = disk::watch(self.root, self.cgroups.limits().disk_bytes) => {
                kill(running).await?;
                return Err(reason);
            }
            () = assignment.cancelled.cancelled() => {
                kill(running).await?;
                return Err(Error::new(ErrorKind::Cancelled, "the operation was cancelled"));
            }
        };
        let Some(finished) = end else {
            let timeout = self.action.timeout.expect("only a timeout ends the sleep");
            return Ok((How::TimedOut(timeout), kill(running).await?, timeout));
        };
        match finished.outcome {
            Outcome::Exited { code, .. } => Ok((How::Exited(code), finished.usage, finished.wall)),
            Outcome::NotStarted { message } => Err(Error::invalid_argument(format!(
                "the command cannot be started in its input root, which is all that it sees: {message}"
            ))),
            Outcome::Killed => Err(Error::new(
                ErrorKind::Unavailable,
                "the sandbox was killed from outside",
            )),
        }
    }

    fn spec(&self) -> Result<SandboxSpec, Error> {
        let Self { action, root, .. } = self;
        let environment = Environment::of(&action.platform)?;
        let identity = self.slot.identity(environment.uid, environment.gid);
        let becomes_root = match root.mount() {
            Some(mount) => Root::Mount(mount.try_clone_to_owned().map_err(duplicating)?),
            None => Root::Path(root.path().to_owned()),
        };
        let mut spec = SandboxSpec::new(becomes_root, identity, action.arguments.iter());
        let variables = action.environment.iter();
        spec.environment = variables
            .map(|variable| (variable.name.clone().into(), variable.value.clone().into()))
            .collect();
        spec.working_directory = Path::new("/").join(action.working_directory.as_str());
        spec.read_only = root.access().root_read_only;
        spec.subtrees = root.access().subtrees.iter().map(subtree).collect();
        spec.network = environment.network;
        spec.personality = environment.personality;
        let limits = self.cgroups.limits();
        spec.limits.file_bytes = limits.disk_bytes;
        // Where no control group bounds all processes together, each is bounded by itself.
        spec.limits.processes = limits.processes.filter(|_| !self.cgroups.has(Controller::Processes));
        spec.limits.data_bytes = limits.memory_bytes.filter(|_| !self.cgroups.has(Controller::Memory));
        Ok(spec)
    }

    fn out_of_memory(&self) -> String {
        match self.cgroups.limits().memory_bytes {
            Some(bytes) => {
                format!("a process was killed: the action needed more than its limit of {bytes} bytes of memory")
            }
            None => "a process was killed: no memory was left".to_owned(),
        }
    }
}

fn subtree(part: &rootcellar_stage::Subtree) -> Subtree {
    Subtree {
        path: part.path.clone(),
        read_only: part.read_only,
    }
}

/// Kills a sandbox, and returns when all its processes are gone. Tells what they used.
async fn kill(mut running: Running) -> Result<Usage, Error> {
    running.kill();
    let finished = running.wait().await.map_err(sandbox_error)?;
    Ok(finished.usage)
}

fn resource_usage(usage: Usage, counted: Snapshot) -> ResourceUsage {
    // Processor time is less than i64 seconds.
    ResourceUsage {
        user_time: usage.user.try_into().ok(),
        system_time: usage.system.try_into().ok(),
        max_process_bytes: usage.max_rss_bytes,
        memory_peak_bytes: counted.memory_peak_bytes,
    }
}

async fn sleep_for(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

fn duplicating(error: std::io::Error) -> Error {
    rootcellar_store::Error::io("run", "duplicating the descriptor of a root", error).into()
}

fn grouping(error: &std::io::Error) -> Error {
    let reason = format!("making the worker's control group: {error}");
    Error::new(ErrorKind::Internal, reason)
}

fn sandbox_error(error: SandboxError) -> Error {
    let kind = match error.kind() {
        SandboxErrorKind::Unfit => ErrorKind::InvalidArgument,
        SandboxErrorKind::Machine => ErrorKind::Internal,
        SandboxErrorKind::Lost => ErrorKind::Unavailable,
    };
    Error::new(kind, "the sandbox").caused_by(error)
}
