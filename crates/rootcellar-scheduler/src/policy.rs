//! What an operator may decide: bounds, patience, and the platforms that are known without a worker being there.

use std::time::Duration;

use crate::Offer;

/// The options of a scheduler.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Platforms for which actions wait although no worker that offers them is connected.
    pub platforms: Vec<Offer>,
    /// Whether an action that no known platform satisfies waits for one to appear. Off: who mistypes a property should be
    /// told so, not kept waiting.
    pub wait_for_unknown_platforms: bool,
    /// How long the platform of the last worker to leave stays known: long enough to replace a machine.
    pub platform_retention: Duration,
    /// Distinct platforms of workers, which bounds the work of one submission.
    pub platforms_max: usize,
    /// Executions waiting for a worker. Clients take a refusal badly, and one waiting costs about a kilobyte.
    pub queued_max: usize,
    /// Operations that are not finished. More than `queued_max`, as merged ones add none to the queue.
    pub operations_max: usize,
    /// Workers connected at the same time.
    pub workers_max: usize,
    /// How long a finished operation can still be asked for: time enough for a client to come back after a broken stream.
    pub finished_retention: Duration,
    /// Finished operations kept; the oldest are forgotten first.
    pub finished_max: usize,
    /// Bytes of responses kept in finished operations; the oldest are forgotten first, but never the latest.
    pub finished_bytes_max: usize,
    /// How long an operation goes on while nobody watches it or asks for it.
    pub unwatched_grace: Duration,
    /// How many workers an execution may lose before it fails: an action that kills its worker must not kill them all.
    pub lost_workers_max: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            platforms: Vec::new(),
            wait_for_unknown_platforms: false,
            platform_retention: Duration::from_secs(15 * 60),
            platforms_max: 256,
            queued_max: 100_000,
            operations_max: 200_000,
            workers_max: 10_000,
            finished_retention: Duration::from_secs(15 * 60),
            finished_max: 10_000,
            finished_bytes_max: 256 << 20,
            unwatched_grace: Duration::from_secs(10 * 60),
            lost_workers_max: 3,
        }
    }
}
