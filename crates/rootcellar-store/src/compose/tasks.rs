//! Tasks that belong to a store.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

/// Owns tasks: they end with it.
#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    fn set(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts one more.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set();
        while set.try_join_next().is_some() {}
        set.spawn(task);
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        let mut set = self.set();
        while set.try_join_next().is_some() {}
        set.len()
    }

    /// Ends all of them, and waits until they have let go of what they held.
    pub(super) async fn end(&self) {
        let mut set = std::mem::take(&mut *self.set());
        set.shutdown().await;
    }
}
