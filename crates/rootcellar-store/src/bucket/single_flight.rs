//! Work that is done once for all who want it at the same time.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use rootcellar_digest::Digest;

use crate::{Error, Result};

type Outcome<T> = Result<T, Arc<Error>>;
type Work<T> = BoxFuture<'static, Outcome<T>>;

/// So many that have ended are no burden.
const ENDED_MAX: usize = 1024;

/// Work about blobs that is under way. It is dropped when nobody wants it any more.
pub(super) struct SingleFlight<T> {
    /// Guards the work under way, and some that has ended.
    running: Mutex<HashMap<Digest, WeakShared<Work<T>>>>,
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
        }
    }
}

impl<T: Clone + Send + 'static> SingleFlight<T> {
    /// Joins the work about a blob, or has it started.
    pub(super) async fn run<W>(&self, digest: Digest, start: impl FnOnce() -> W) -> Result<T>
    where
        W: Future<Output = Result<T>> + Send + 'static,
    {
        let work = self.join_or_start(digest, || start().map(|outcome| outcome.map_err(Arc::new)).boxed());
        work.await.map_err(|error| error.again())
    }

    fn join_or_start(&self, digest: Digest, start: impl FnOnce() -> Work<T>) -> Shared<Work<T>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let joined = running.get(&digest).and_then(WeakShared::upgrade);
        // What has ended is not joined: it may have seen an older state of things.
        if let Some(work) = joined.filter(|work| work.peek().is_none()) {
            return work;
        }
        if running.len() > ENDED_MAX {
            running.retain(|_, work| work.upgrade().is_some_and(|work| work.peek().is_none()));
        }
        let work = start().shared();
        running.extend(work.downgrade().map(|weak| (digest, weak)));
        work
    }
}

impl<T> fmt::Debug for SingleFlight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SingleFlight")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;
    use rootcellar_digest::DigestFunction;

    use super::*;
    use crate::ErrorKind;

    const MOMENT: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn work_is_done_once_for_all_who_want_it_and_again_for_the_next() {
        let (flight, runs) = (SingleFlight::default(), AtomicUsize::new(0));
        let digest = Digest::of(DigestFunction::Sha256, b"x");
        let work = || {
            runs.fetch_add(1, Ordering::Relaxed);
            async {
                tokio::time::sleep(MOMENT).await;
                Ok(7)
            }
        };
        for outcome in join_all((0..5).map(|_| flight.run(digest, work))).await {
            assert_eq!(outcome.unwrap(), 7);
        }
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        flight.run(digest, work).await.unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_work_to_the_others_and_all_hear_of_a_failure() {
        let flight = SingleFlight::<()>::default();
        let digest = Digest::of(DigestFunction::Sha256, b"x");
        let work = || async {
            tokio::time::sleep(MOMENT).await;
            Err(Error::new(ErrorKind::Unavailable, "put", "no"))
        };
        let mut first = Box::pin(flight.run(digest, work));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(flight.run(digest, || async { panic!("it is under way") }));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        assert_eq!(second.await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
