//! The workers of this process: each takes one action at a time, for as long as there is work to come.

use std::sync::Arc;

use rootcellar_proto::reapi::ExecuteResponse;
use rootcellar_reapi::{Error, ErrorKind};
use rootcellar_scheduler::{Assignment, Offer, WorkSession, WorkSource, WorkerSpec};
use tokio::task::JoinSet;

use crate::identity::Slot;
use crate::runner::{Job, Runner};

/// A number of workers, each a task that is joined in the end.
#[derive(Debug)]
pub struct Workers {
    tasks: JoinSet<()>,
}

impl Workers {
    /// Starts `count` workers that offer `offer`, named `name` and a number.
    ///
    /// # Errors
    /// What the source says if it takes no more workers.
    pub async fn start(
        source: &dyn WorkSource,
        runner: &Arc<Runner>,
        offer: &Offer,
        name: &str,
        count: u32,
    ) -> rootcellar_scheduler::Result<Self> {
        let mut tasks = JoinSet::new();
        for slot in 0..count {
            let worker = format!("{name}/{slot}");
            let session: Arc<dyn WorkSession> = source.join(WorkerSpec::new(&worker, offer.clone())).await?.into();
            tasks.spawn(work(session, runner.clone(), worker, Slot(slot)));
        }
        Ok(Self { tasks })
    }

    /// Waits until all have ended, which they do when their source has no more work to come.
    pub async fn join(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a worker did not end as it should");
            }
        }
    }
}

async fn work(session: Arc<dyn WorkSession>, runner: Arc<Runner>, worker: String, slot: Slot) {
    loop {
        match session.next().await {
            Ok(Some(assignment)) => run(&session, &runner, &worker, slot, assignment).await,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(worker, %error, "a worker gives up");
                return;
            }
        }
    }
}

/// Runs one assignment on a task of its own, so that a panic costs an action and not a worker.
async fn run(session: &Arc<dyn WorkSession>, runner: &Arc<Runner>, worker: &str, slot: Slot, assignment: Assignment) {
    let lease = assignment.lease.id;
    let job = Job {
        assignment,
        worker: worker.to_owned(),
        slot,
        session: session.clone(),
    };
    let runner = runner.clone();
    let response = match tokio::spawn(async move { runner.run(&job).await }).await {
        Ok(response) => response,
        Err(error) => panicked(&error),
    };
    if let Err(error) = session.finish(lease, Arc::new(response)).await {
        tracing::warn!(worker, %error, "nobody takes the result of an action");
    }
}

fn panicked(error: &tokio::task::JoinError) -> ExecuteResponse {
    tracing::error!(%error, "running an action panicked");
    let error = Error::new(
        ErrorKind::Internal,
        "the worker met an error of its own; its log has more",
    );
    ExecuteResponse {
        status: Some(error.to_status()),
        ..ExecuteResponse::default()
    }
}
