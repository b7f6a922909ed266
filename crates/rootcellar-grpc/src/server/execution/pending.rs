//! Operations that have a name and are not with the scheduler yet.
//!
//! An action with a large tree of inputs takes a while to be looked at. Its client is told the operation's name before that,
//! and may come back with it on another connection, so the name has to lead somewhere meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rootcellar_digest::Digest;
use tokio::sync::{Notify, watch};

/// All operations being prepared. There are as many as calls of Execute that wait for their first answer, and preparations
/// that outlive such a call.
#[derive(Debug, Default)]
pub(super) struct Pending {
    operations: Mutex<HashMap<Arc<str>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    action: Digest,
    /// Whether a client has heard the name.
    is_announced: bool,
    cancel: Arc<Notify>,
    /// Closed when the operation leaves.
    leaves: watch::Sender<()>,
}

/// An operation that is being prepared, for who asks for it.
#[derive(Debug)]
pub(super) struct Preparing {
    pub(super) action: Digest,
    leaves: watch::Receiver<()>,
}

impl Preparing {
    /// Waits until the operation is with the scheduler, or gone. Can be dropped and called again.
    pub(super) async fn left(&mut self) {
        while self.leaves.changed().await.is_ok() {}
    }
}

impl Pending {
    /// Adds an operation, until the stay is dropped.
    pub(super) fn enter(self: &Arc<Self>, name: Arc<str>, action: Digest) -> Stay {
        let cancel = Arc::new(Notify::new());
        let entry = Entry {
            action,
            is_announced: false,
            cancel: cancel.clone(),
            leaves: watch::Sender::new(()),
        };
        self.operations().insert(name.clone(), entry);
        Stay {
            pending: self.clone(),
            name,
            action,
            cancel,
        }
    }

    /// Notes that a client hears the name now; `false` if the operation has left already.
    pub(super) fn announce(&self, name: &str) -> bool {
        let mut operations = self.operations();
        let entry = operations.get_mut(name);
        entry.map(|entry| entry.is_announced = true).is_some()
    }

    pub(super) fn find(&self, name: &str) -> Option<Preparing> {
        self.operations().get(name).map(|entry| Preparing {
            action: entry.action,
            leaves: entry.leaves.subscribe(),
        })
    }

    /// Asks the preparation of `name` to end; `false` if there is none.
    pub(super) fn cancel(&self, name: &str) -> bool {
        let operations = self.operations();
        let entry = operations.get(name);
        entry.map(|entry| entry.cancel.notify_one()).is_some()
    }

    fn operations(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        // Each change is one call on the map: a panic elsewhere leaves nothing half-done.
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An operation's time among those being prepared, ended by dropping it.
#[derive(Debug)]
pub(super) struct Stay {
    pending: Arc<Pending>,
    pub(super) name: Arc<str>,
    pub(super) action: Digest,
    cancel: Arc<Notify>,
}

impl Stay {
    /// Waits until the operation is cancelled.
    pub(super) async fn cancelled(&self) {
        self.cancel.notified().await;
    }

    /// Takes the operation out, unless its client has heard the name: then what becomes of it has to be found under the name
    /// first. Says whether it was taken out.
    pub(super) fn leave_unheard(&self) -> bool {
        let mut operations = self.pending.operations();
        if operations.get(&self.name).is_some_and(|entry| entry.is_announced) {
            return false;
        }
        operations.remove(&self.name);
        true
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.pending.operations().remove(&self.name);
    }
}
