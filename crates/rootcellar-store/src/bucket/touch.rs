//! Making objects young again, so that a lifecycle rule of the bucket leaves alone what is in use.
//!
//! S3 refuses to copy an object onto itself unless its properties change, so it is copied away and back: the blob is there all the time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rootcellar_digest::{Digest, DigestSet};
use tokio::task::JoinSet;

use super::{Inner, Known};
use crate::Result;

/// Touches under way.
const TOUCHES_MAX: usize = 16;
/// Touches that wait. Those of further objects are made when they are used the next time, and the log says so.
const WAITING_MAX: usize = 100_000;

/// What is done in the background.
#[derive(Debug, Default)]
pub(super) struct Touches {
    /// Owns the tasks, which end with it.
    tasks: Mutex<JoinSet<()>>,
    /// Guards the objects that wait to be touched, or are being touched.
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Digest, Known)>,
    all: DigestSet,
    workers: usize,
    has_overflown: bool,
}

impl Touches {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an object touched in its turn; says whether that takes another worker.
    fn push(&self, digest: Digest, known: Known) -> bool {
        let mut queue = self.queue();
        if queue.all.len() >= WAITING_MAX {
            if !std::mem::replace(&mut queue.has_overflown, true) {
                tracing::warn!(
                    "more objects are to be made young again than can wait: some are only when they are used again"
                );
            }
            return false;
        }
        if !queue.all.insert(digest) {
            return false;
        }
        queue.waiting.push_back((digest, known));
        let is_short_of_workers = queue.workers < TOUCHES_MAX;
        queue.workers += usize::from(is_short_of_workers);
        is_short_of_workers
    }

    /// The next one; a worker for whom there is none ends.
    fn next(&self) -> Option<(Digest, Known)> {
        let mut queue = self.queue();
        let next = queue.waiting.pop_front();
        if next.is_none() {
            queue.workers -= 1;
            queue.has_overflown = false;
        }
        next
    }

    fn end(&self, digest: &Digest) {
        self.queue().all.remove(digest);
    }
}

impl Inner {
    /// Has an object made young again if it is due.
    pub(super) fn touch(self: &Arc<Self>, digest: Digest, known: Known) {
        let Some(after) = self.options.touch_after else { return };
        let age = self.clock.now().duration_since(known.modified).unwrap_or_default();
        if age < after || !self.touches.push(digest, known) {
            return;
        }
        let bucket = self.clone();
        self.touches.spawn(async move {
            while let Some((digest, known)) = bucket.touches.next() {
                bucket.touch_now(digest, known).await;
                bucket.touches.end(&digest);
            }
        });
    }

    async fn touch_now(&self, digest: Digest, known: Known) {
        let turn = self.turns.of(digest);
        let _turn = turn.lock().await;
        if self.is_suspected(&digest) {
            return;
        }
        match self.copy_there_and_back(&digest).await {
            Ok(()) if self.is_suspected(&digest) => {}
            Ok(()) => {
                let modified = self.clock.now();
                self.note(digest, Known { modified, ..known });
            }
            Err(error) => {
                tracing::warn!(%digest, %error, "an object in use could not be made young again");
                self.known.forget(&digest);
            }
        }
    }

    async fn copy_there_and_back(&self, digest: &Digest) -> Result<()> {
        let (name, touched) = (self.names.blob(digest), self.names.touched(digest));
        self.requests.copy(&name, &touched).await?;
        self.requests.copy(&touched, &name).await?;
        self.requests.delete(&touched).await
    }
}
