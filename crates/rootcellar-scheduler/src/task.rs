//! What is to be done, who offers to do it, and the names of both.

use std::num::NonZeroU32;
use std::time::Duration;

use rootcellar_digest::Digest;

use crate::{Offer, Requirements};

/// What a front end wants done: an action, loaded and found good.
///
/// `skip_cache_lookup` has no place here: the cache is looked at before a task is submitted, and never after, so a request
/// that skips the cache may share an execution in flight as any other may.
#[derive(Debug, Clone)]
pub struct Task {
    /// The digest of the `Action`; tasks with the same one share an execution while it is in flight.
    pub action: Digest,
    /// What the action asks of its worker.
    pub requirements: Requirements,
    /// `ExecutionPolicy.priority`: smaller runs sooner, 0 is usual.
    pub priority: i32,
    /// `Action.timeout`, for the worker to enforce: it covers the command, not the wait for a worker.
    pub timeout: Option<Duration>,
    /// `Action.do_not_cache`: the execution is for this one operation only.
    pub do_not_cache: bool,
}

/// Names one attempt of one worker at an execution; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub(crate) u64);

/// Names a worker's stay, from joining to leaving; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub(crate) u64);

/// Names one request of a worker for work; never used twice. Smaller tickets are older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// Names an execution; never used twice. Smaller ones were submitted earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ExecutionId(pub(crate) u64);

/// What a worker is given to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The name under which the worker reports.
    pub id: LeaseId,
    /// The digest of the `Action` to run.
    pub action: Digest,
    /// How long the command may take; `None` leaves it to the worker.
    pub timeout: Option<Duration>,
    /// How long the execution has been waiting, all attempts together: a worker's start less this is the time of queueing.
    pub waited: Duration,
    /// 1 for the first attempt, one more after each lost worker.
    pub attempt: u32,
}

/// Who a worker is and what it offers.
#[derive(Debug, Clone)]
pub struct WorkerSpec {
    /// A name for people, as it shall stand in `ExecutedActionMetadata.worker`.
    pub name: String,
    /// What the worker can run.
    pub offer: Offer,
    /// How many leases the worker may hold at once, those included that it still has to clean up after.
    pub slots: NonZeroU32,
    /// After how long a silence the worker counts as lost. `None` for a worker in this process, whose session cannot outlive it.
    pub heartbeat_timeout: Option<Duration>,
}

impl WorkerSpec {
    /// Describes a worker of this process that runs one action at a time.
    pub fn new(name: impl Into<String>, offer: Offer) -> Self {
        Self {
            name: name.into(),
            offer,
            slots: NonZeroU32::MIN,
            heartbeat_timeout: None,
        }
    }
}
