//! Making objects young again, so that a lifecycle rule of the bucket leaves alone what is in use.
//!
//! S3 refuses to copy an object onto itself unless its properties change, so it is copied away and back: the blob is there all the time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use rootcellar_digest::Digest;
use tokio::task::JoinSet;

use super::{Inner, Known};
use crate::Result;

/// Touches under way. Those of further objects are made when they are used the next time.
const TOUCHES_MAX: usize = 16;

/// What is done in the background.
#[derive(Debug, Default)]
pub(super) struct Touches {
    /// Owns the tasks, which end with it.
    tasks: Mutex<JoinSet<()>>,
    /// Guards the objects that are being touched.
    touching: Mutex<HashSet<Digest>>,
}

impl Touches {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn begin(&self, digest: Digest) -> bool {
        let mut touching = self.touching.lock().unwrap_or_else(PoisonError::into_inner);
        touching.len() < TOUCHES_MAX && touching.insert(digest)
    }

    fn end(&self, digest: &Digest) {
        self.touching
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(digest);
    }
}

impl Inner {
    /// Has an object made young again if it is due.
    pub(super) fn touch(self: &Arc<Self>, digest: Digest, known: Known) {
        let Some(after) = self.options.touch_after else { return };
        let age = self.clock.now().duration_since(known.modified).unwrap_or_default();
        if age < after || !self.touches.begin(digest) {
            return;
        }
        let bucket = self.clone();
        self.touches.spawn(async move {
            match bucket.copy_there_and_back(&digest).await {
                Ok(()) => {
                    let modified = bucket.clock.now();
                    bucket.note(digest, Known { modified, ..known });
                }
                Err(error) => {
                    tracing::warn!(%digest, %error, "an object in use could not be made young again");
                    bucket.known.forget(&digest);
                }
            }
            bucket.touches.end(&digest);
        });
    }

    async fn copy_there_and_back(&self, digest: &Digest) -> Result<()> {
        let (name, touched) = (self.names.blob(digest), self.names.touched(digest));
        self.requests.copy(&name, &touched).await?;
        self.requests.copy(&touched, &name).await?;
        self.requests.delete(&touched).await
    }
}
