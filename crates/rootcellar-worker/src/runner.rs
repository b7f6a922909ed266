//! One action, from its digest to its result.
//!
//! ```text
//!   load ──► stage ──► sandbox ──► capture ──► action result ──► cache (exit code 0 only) ──► response
//! ```
//!
//! The response says everything: a command that fails is a result with an exit code, and whatever keeps a command from running to
//! its end is a status. Only a result without a status, of a command that succeeded, goes into the action cache.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rootcellar_proto::reapi::{ActionResult, ExecuteResponse};
use rootcellar_reapi::functions::to_proto;
use rootcellar_reapi::{ActionCache, ActionLimits, Error, ErrorKind, LoadedAction};
use rootcellar_scheduler::{Assignment, WorkSession};
use rootcellar_stage::{Captured, StageOptions, StagedRoot, Stager};
use rootcellar_store::{Clock, LocalStore};

use crate::identity::Slot;
use crate::platform::Environment;
use crate::sandbox::{Outcome, Root, Running, Sandbox, SandboxError, SandboxErrorKind, SandboxSpec, Subtree};
use crate::streams::Streams;
use crate::timeline::Timeline;

/// What a shell says of a command that was killed (128 + SIGKILL).
const KILLED_EXIT_CODE: i32 = 137;

/// Runs actions on this machine. Any number may run at once.
#[derive(Debug)]
pub struct Runner {
    /// Where inputs come from and outputs go.
    pub store: Arc<dyn LocalStore>,
    /// Where results of commands that succeeded go.
    pub cache: Arc<ActionCache>,
    /// Turns input roots into directories.
    pub stager: Arc<dyn Stager>,
    /// Starts sandboxes.
    pub sandbox: Sandbox,
    /// Tells when things happen.
    pub clock: Arc<dyn Clock>,
    /// A directory for what commands write to their standard streams: on disk, and this process's alone.
    pub scratch_dir: PathBuf,
    /// Bounds on actions; the same that the front end checks.
    pub action_limits: ActionLimits,
}

/// What is to be run, as whom, and for whom.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) assignment: Assignment,
    pub(crate) worker: String,
    pub(crate) slot: Slot,
    /// Hears how the run goes on.
    pub(crate) session: Arc<dyn WorkSession>,
}

impl Job {
    async fn report(&self, timeline: &Timeline) {
        let metadata = Arc::new(timeline.so_far());
        if let Err(error) = self.session.progress(self.assignment.lease.id, metadata).await {
            // The lease is over; that it was cancelled is heard elsewhere.
            tracing::debug!(%error, "nobody hears how an action goes on");
        }
    }
}

/// How a command ended.
enum Ended {
    Exited(i32),
    TimedOut(Duration),
}

impl Runner {
    /// Runs a job to its end. A cancelled one ends soon after; all its processes are gone then.
    pub(crate) async fn run(&self, job: &Job) -> ExecuteResponse {
        self.try_run(job).await.unwrap_or_else(|error| {
            tracing::info!(action = %job.assignment.lease.action, %error, "an action did not run to its end");
            ExecuteResponse {
                status: Some(error.to_status()),
                ..ExecuteResponse::default()
            }
        })
    }

    async fn try_run(&self, job: &Job) -> Result<ExecuteResponse, Error> {
        let now = self.clock.now();
        let lease = &job.assignment.lease;
        let queued = now.checked_sub(lease.waited).unwrap_or(now);
        let mut timeline = Timeline::start(self.clock.clone(), &job.worker, queued);
        let action = LoadedAction::load(&*self.store, lease.action, &self.action_limits).await?;

        timeline.fetching_inputs();
        job.report(&timeline).await;
        let root = self.stage(&action, job.slot).await?;
        timeline.inputs_fetched();

        timeline.executing();
        job.report(&timeline).await;
        let streams = Streams::create(&self.scratch_dir).map_err(|error| scratch(&self.scratch_dir, error))?;
        let spec = sandbox_spec(&action, &*root, job.slot)?;
        let ended = self.execute(spec, action.timeout, &streams, job, &mut timeline).await?;

        timeline.uploading_outputs();
        job.report(&timeline).await;
        let captured = match ended {
            Ended::Exited(_) => root.capture(&action.outputs).await?,
            Ended::TimedOut(_) => Captured::default(),
        };
        let (stdout, stderr) = streams.store(&self.store, action.digest.function()).await?;
        timeline.outputs_uploaded();
        drop(root);

        let exit_code = match ended {
            Ended::Exited(code) => code,
            Ended::TimedOut(_) => KILLED_EXIT_CODE,
        };
        let result = ActionResult {
            exit_code,
            stdout_digest: stdout.map(to_proto),
            stderr_digest: stderr.map(to_proto),
            execution_metadata: Some(timeline.complete()),
            ..outputs(captured)
        };
        self.respond(&action, result, ended).await
    }

    async fn stage(&self, action: &LoadedAction, slot: Slot) -> Result<Box<dyn StagedRoot>, Error> {
        let options = StageOptions {
            owner: slot.owner(),
            working_directory: action.working_directory.clone(),
            directories: action.outputs.parents(),
        };
        self.stager.stage(action.input_root, options).await
    }

    async fn execute(
        &self,
        spec: SandboxSpec,
        timeout: Option<Duration>,
        streams: &Streams,
        job: &Job,
        timeline: &mut Timeline,
    ) -> Result<Ended, Error> {
        let (stdout, stderr) = streams
            .for_command()
            .map_err(|error| scratch(&self.scratch_dir, error))?;
        let mut running = self.sandbox.start(spec, stdout, stderr).await.map_err(sandbox_error)?;
        let end = tokio::select! {
            finished = running.wait() => Some(finished.map_err(sandbox_error)?),
            () = sleep_for(timeout) => None,
            () = job.assignment.cancelled.cancelled() => {
                kill(running).await?;
                return Err(Error::new(ErrorKind::Cancelled, "the operation was cancelled"));
            }
        };
        let Some(finished) = end else {
            let timeout = timeout.expect("only a timeout ends the sleep");
            kill(running).await?;
            timeline.executed(timeout);
            return Ok(Ended::TimedOut(timeout));
        };
        timeline.executed(finished.wall);
        match finished.outcome {
            Outcome::Exited { code, .. } => Ok(Ended::Exited(code)),
            Outcome::NotStarted { message } => Err(Error::invalid_argument(format!(
                "the command cannot be started in its input root, which is all that it sees: {message}"
            ))),
            Outcome::Killed => Err(Error::new(
                ErrorKind::Unavailable,
                "the sandbox was killed from outside",
            )),
        }
    }

    async fn respond(
        &self,
        action: &LoadedAction,
        result: ActionResult,
        ended: Ended,
    ) -> Result<ExecuteResponse, Error> {
        let mut response = ExecuteResponse {
            status: Some(ok()),
            ..ExecuteResponse::default()
        };
        match ended {
            Ended::TimedOut(timeout) => {
                let reason = format!(
                    "the command was killed after its timeout of {} s",
                    timeout.as_secs_f64()
                );
                response.status = Some(Error::new(ErrorKind::DeadlineExceeded, reason).to_status());
            }
            Ended::Exited(_) => {
                let kept = self.cache.put_executed(action, &result).await?;
                tracing::debug!(action = %action.digest, result.exit_code, kept, "an action ran to its end");
            }
        }
        response.result = Some(result);
        Ok(response)
    }
}

fn sandbox_spec(action: &LoadedAction, staged: &dyn StagedRoot, slot: Slot) -> Result<SandboxSpec, Error> {
    let environment = Environment::of(&action.platform)?;
    let identity = slot.identity(environment.uid, environment.gid);
    let root = match staged.mount() {
        Some(mount) => Root::Mount(mount.try_clone_to_owned().map_err(duplicating)?),
        None => Root::Path(staged.path().to_owned()),
    };
    let mut spec = SandboxSpec::new(root, identity, action.arguments.iter());
    let variables = action.environment.iter();
    spec.environment = variables
        .map(|variable| (variable.name.clone().into(), variable.value.clone().into()))
        .collect();
    spec.working_directory = Path::new("/").join(action.working_directory.as_str());
    let access = staged.access();
    spec.read_only = access.root_read_only;
    spec.subtrees = access.subtrees.iter().map(subtree).collect();
    spec.network = environment.network;
    spec.personality = environment.personality;
    Ok(spec)
}

fn subtree(part: &rootcellar_stage::Subtree) -> Subtree {
    Subtree {
        path: part.path.clone(),
        read_only: part.read_only,
    }
}

fn duplicating(error: std::io::Error) -> Error {
    rootcellar_store::Error::io("run", "duplicating the descriptor of a root", error).into()
}

/// Kills a sandbox, and returns when all its processes are gone.
async fn kill(mut running: Running) -> Result<(), Error> {
    running.kill();
    running.wait().await.map(drop).map_err(sandbox_error)
}

async fn sleep_for(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

#[expect(deprecated, reason = "clients older than API 2.1 read the older lists")]
fn outputs(captured: Captured) -> ActionResult {
    ActionResult {
        output_files: captured.files,
        output_directories: captured.directories,
        output_symlinks: captured.symlinks,
        output_file_symlinks: captured.file_symlinks,
        output_directory_symlinks: captured.directory_symlinks,
        ..ActionResult::default()
    }
}

fn ok() -> rootcellar_proto::rpc::Status {
    rootcellar_proto::rpc::Status::default()
}

fn scratch(dir: &Path, error: std::io::Error) -> Error {
    rootcellar_store::Error::io("run", format!("making files in {}", dir.display()), error).into()
}

fn sandbox_error(error: SandboxError) -> Error {
    let kind = match error.kind() {
        SandboxErrorKind::Unfit => ErrorKind::InvalidArgument,
        SandboxErrorKind::Machine => ErrorKind::Internal,
        SandboxErrorKind::Lost => ErrorKind::Unavailable,
    };
    Error::new(kind, "the sandbox").caused_by(error)
}
