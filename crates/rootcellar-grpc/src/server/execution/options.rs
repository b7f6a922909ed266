//! What a server needs to execute, and how it behaves while it does.

use std::time::Duration;

use rootcellar_reapi::{ActionLimits, TreeLimits};

/// How executions are prepared and reported. Each value has a default and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutionOptions {
    /// Bounds of an action.
    pub actions: ActionLimits,
    /// Bounds of an action's tree of inputs.
    pub inputs: TreeLimits,
    /// Actions looked at at once, 16: each holds the directories of its inputs in memory. The others wait, and their clients
    /// know the name of the operation by then.
    pub prepared_at_once_max: usize,
    /// How long looking at an action may take before its client is told the operation's name, 200 ms. What is found out
    /// sooner can still be the status of the call itself.
    pub first_reply_max: Duration,
    /// How often an operation that does not change is sent again, 30 s: proxies cut silent streams after a minute.
    pub resend_interval: Duration,
    /// How long WaitOperation waits at the most, an hour.
    pub wait_max: Duration,
}

impl Default for ExecutionOptions {
    fn default() -> Self {
        Self {
            actions: ActionLimits::default(),
            inputs: TreeLimits::default(),
            prepared_at_once_max: 16,
            first_reply_max: Duration::from_millis(200),
            resend_interval: Duration::from_secs(30),
            wait_max: Duration::from_secs(3600),
        }
    }
}
