//! Following an operation from now until it is finished.

use std::sync::Arc;

use tokio::sync::watch;

use crate::dispatcher::{Shared, State};
use crate::{OperationState, Result};

/// Yields an operation's states: the current one at once, then each that is seen to be new, and the completed one last.
///
/// States that nobody takes in time are skipped, so a slow client costs no memory. While a watch exists, its operation is
/// not abandoned; dropping it does not cancel anything.
#[derive(Debug)]
pub struct OperationWatch {
    shared: Arc<Shared>,
    name: Arc<str>,
    states: watch::Receiver<OperationState>,
    is_over: bool,
}

impl OperationWatch {
    pub(crate) fn open(shared: &Arc<Shared>, state: &mut State, name: &str) -> Result<Self> {
        let operation = state.scheduler.watch(name, shared.now())?;
        let name = Arc::clone(&operation.name);
        let mut states = if operation.is_completed() {
            watch::Sender::new(operation).subscribe()
        } else {
            let feed = state.feeds.entry(Arc::clone(&name));
            feed.or_insert_with(|| watch::Sender::new(operation)).subscribe()
        };
        states.mark_changed();
        Ok(Self {
            shared: Arc::clone(shared),
            name,
            states,
            is_over: false,
        })
    }

    /// The operation's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Waits for the next state; `None` after the completed one. Dropping the wait loses no state.
    pub async fn next(&mut self) -> Option<OperationState> {
        if self.is_over {
            return None;
        }
        // The sender goes with the completed state, which is then still to be read here.
        self.states.changed().await.ok()?;
        let state = self.states.borrow_and_update().clone();
        self.is_over = state.is_completed();
        Some(state)
    }

    /// Waits for the completed state.
    pub async fn completed(mut self) -> OperationState {
        loop {
            let state = self.next().await.expect("a watch ends with the completed state");
            if state.is_completed() {
                return state;
            }
        }
    }
}

impl Drop for OperationWatch {
    fn drop(&mut self) {
        let Some(mut state) = self.shared.lock_to_drop() else {
            return;
        };
        let now = self.shared.now();
        state.scheduler.unwatch(&self.name, now);
        if state
            .feeds
            .get(&self.name)
            .is_some_and(|feed| feed.receiver_count() == 1)
        {
            state.feeds.remove(&self.name);
        }
    }
}
