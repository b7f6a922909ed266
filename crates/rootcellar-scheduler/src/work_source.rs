//! The one door through which workers come to the scheduler, in this process or from afar.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use rootcellar_proto::reapi::{ExecuteResponse, ExecutedActionMetadata};
use tokio_util::sync::CancellationToken;

use crate::{Lease, LeaseId, Result, WorkerSpec};

/// Where workers find work.
#[async_trait]
pub trait WorkSource: Debug + Send + Sync + 'static {
    /// Joins as a worker, until the session is dropped.
    ///
    /// # Errors
    /// [`Error::Full`](crate::Error::Full) if there are too many workers.
    async fn join(&self, spec: WorkerSpec) -> Result<Box<dyn WorkSession>>;
}

/// A worker's stay with a [`WorkSource`].
///
/// 1. Every assignment ends with one `finish`, also when it was cancelled: that frees its slot.
/// 2. Dropping the session is leaving: its leases are lost, their executions go to other workers, and it counts against
///    them as a crash would.
/// 3. A worker with a heartbeat timeout calls some method more often than that, while it waits for work, too.
/// 4. An error says that the stay is over ([`Error::NoSuchWorker`](crate::Error::NoSuchWorker): join again), except for
///    [`Error::NoSuchLease`](crate::Error::NoSuchLease), which says that of one lease.
/// 5. Every method can be dropped while it waits. An assignment that a dropped `next` would have returned is another's.
#[async_trait]
pub trait WorkSession: Debug + Send + Sync + 'static {
    /// Waits for something to do. Several calls may wait at the same time, one for each free slot. `None` says that there
    /// will be nothing more: finish what runs, and leave.
    async fn next(&self) -> Result<Option<Assignment>>;

    /// Tells what is known so far of an execution, for clients that watch.
    async fn progress(&self, lease: LeaseId, metadata: Arc<ExecutedActionMetadata>) -> Result<()>;

    /// Ends a lease with the response that its clients get. After a cancellation, the response is ignored.
    async fn finish(&self, lease: LeaseId, response: Arc<ExecuteResponse>) -> Result<()>;

    /// Tells that the worker is alive.
    async fn heartbeat(&self) -> Result<()>;
}

/// Something to do.
#[derive(Debug)]
pub struct Assignment {
    /// What it is.
    pub lease: Lease,
    /// Cancelled when the result is not wanted any longer: kill the command, clean up, and finish.
    pub cancelled: CancellationToken,
}
