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

use rootcellar_proto::reapi::{ActionResult, ExecuteResponse};
use rootcellar_reapi::functions::to_proto;
use rootcellar_reapi::{ActionCache, ActionLimits, Error, ErrorKind, LoadedAction};
use rootcellar_scheduler::{Assignment, WorkSession};
use rootcellar_stage::{Captured, StageOptions, StagedRoot, Stager};
use rootcellar_store::{Clock, LocalStore};

use crate::cgroups::Cgroups;
use crate::execution::{Ended, Execution, How};
use crate::identity::Slot;
use crate::sandbox::Sandbox;
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
    /// Bounds on what each may use, and what sees to them.
    pub cgroups: Cgroups,
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
        let scratched = |error| scratch(&self.scratch_dir, error);
        let streams = Streams::create(&self.scratch_dir).map_err(scratched)?;
        let (stdout, stderr) = streams.for_command().map_err(scratched)?;
        let execution = Execution {
            action: &action,
            root: &*root,
            slot: job.slot,
            sandbox: &self.sandbox,
            cgroups: &self.cgroups,
        };
        let ended = execution.run(&job.assignment, stdout, stderr).await?;
        timeline.executed(ended.wall);
        timeline.used(&ended.usage);

        timeline.uploading_outputs();
        job.report(&timeline).await;
        let captured = match ended.how {
            How::Exited(_) => root.capture(&action.outputs).await?,
            How::TimedOut(_) => Captured::default(),
        };
        let (stdout, stderr) = streams.store(&self.store, action.digest.function()).await?;
        timeline.outputs_uploaded();
        drop(root);
        tracing::info!(action = %action.digest, parts = %timeline.parts(), "an action ran");

        let exit_code = match ended.how {
            How::Exited(code) => code,
            How::TimedOut(_) => KILLED_EXIT_CODE,
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

    async fn respond(
        &self,
        action: &LoadedAction,
        result: ActionResult,
        ended: Ended,
    ) -> Result<ExecuteResponse, Error> {
        let mut response = ExecuteResponse {
            status: Some(ok()),
            message: ended.message,
            ..ExecuteResponse::default()
        };
        match ended.how {
            How::TimedOut(timeout) => {
                let reason = format!(
                    "the command was killed after its timeout of {} s",
                    timeout.as_secs_f64()
                );
                response.status = Some(Error::new(ErrorKind::DeadlineExceeded, reason).to_status());
            }
            How::Exited(_) => {
                let kept = self.cache.put_executed(action, &result).await?;
                tracing::debug!(action = %action.digest, result.exit_code, kept, "an action ran to its end");
            }
        }
        response.result = Some(result);
        Ok(response)
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
