//! Calls that callers share who come at the same time.
//!
//! ```text
//!   callers ──> waiting ──> as soon as there are fewer calls under way than may be: one call for what fits into it
//!                                │                                                      │
//!                                └── nobody waits for nothing: a lone caller            └── refused? each half again, so that
//!                                    is served at once                                      nobody has another's trouble
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_reapi::{Error, ErrorKind};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::batches::Bounds;

/// A call that takes longer does not count as one under way any more: servers that hang may not hold up who comes later.
const COUNTED_MAX: Duration = Duration::from_secs(5);

/// An answer to each item, in their order; or why there is none.
pub(super) type Answers<R> = Result<Vec<R>, Arc<Error>>;

/// Gathers items of type `T` while as many calls are under way as may be.
#[derive(Debug)]
pub(super) struct Gather<T, R> {
    calls_max: usize,
    queue: Mutex<Queue<T, R>>,
}

#[derive(Debug)]
struct Queue<T, R> {
    waiting: VecDeque<Portion<T, R>>,
    under_way: usize,
}

/// What one caller asks for, of one digest function.
#[derive(Debug)]
struct Portion<T, R> {
    items: Vec<T>,
    function: DigestFunction,
    bytes: u64,
    bounds: Bounds,
    caller: oneshot::Sender<Answers<R>>,
}

impl<T, R> Gather<T, R>
where
    T: Clone + Send + 'static,
    R: Send + 'static,
{
    /// Makes `calls_max` calls at once, at least one.
    pub(super) fn new(calls_max: usize) -> Arc<Self> {
        Arc::new(Self {
            calls_max: calls_max.max(1),
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                under_way: 0,
            }),
        })
    }

    /// Has `items`, at least one and all of one digest function, be part of a call within `bounds`.
    pub(super) async fn call<C, F>(
        self: &Arc<Self>,
        items: Vec<T>,
        digest_of: impl Fn(&T) -> Digest,
        bounds: &Bounds,
        make_call: C,
    ) -> Answers<R>
    where
        C: Fn(Vec<T>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Vec<R>, Error>> + Send + 'static,
    {
        let (caller, answers) = oneshot::channel();
        let sizes = items.iter().map(|item| digest_of(item).size_bytes());
        let portion = Portion {
            function: digest_of(&items[0]).function(),
            bytes: sizes.fold(0, u64::saturating_add),
            items,
            bounds: bounds.clone(),
            caller,
        };
        self.queue().waiting.push_back(portion);
        self.start(make_call);
        answers.await.unwrap_or_else(|_| Err(Arc::new(ended())))
    }

    /// Starts a call if there may be one more.
    fn start<C, F>(self: &Arc<Self>, make_call: C)
    where
        C: Fn(Vec<T>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Vec<R>, Error>> + Send + 'static,
    {
        let mut queue = self.queue();
        if queue.under_way >= self.calls_max {
            return;
        }
        let portions = queue.next();
        if portions.is_empty() {
            return;
        }
        queue.under_way += 1;
        drop(queue);
        let place = Place {
            gather: self.clone(),
            is_taken: true,
        };
        tokio::spawn(place.work(portions, make_call));
    }

    fn queue(&self) -> MutexGuard<'_, Queue<T, R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, R> Queue<T, R> {
    /// What goes into the next call: portions of one digest function, as many as fit, in the order in which they came.
    fn next(&mut self) -> Vec<Portion<T, R>> {
        let mut together: Vec<Portion<T, R>> = Vec::new();
        let (mut items, mut bytes) = (0, 0_u64);
        while let Some(next) = self.waiting.front() {
            if next.caller.is_closed() {
                self.waiting.pop_front();
                continue;
            }
            if let Some(first) = together.first() {
                let fits = items + next.items.len() <= first.bounds.items_max
                    && bytes.saturating_add(next.bytes) <= first.bounds.bytes_max;
                if next.function != first.function || !fits {
                    break;
                }
            }
            items += next.items.len();
            bytes = bytes.saturating_add(next.bytes);
            together.extend(self.waiting.pop_front());
        }
        together
    }
}

/// A place among the calls under way, which is free again when this is dropped.
struct Place<T, R> {
    gather: Arc<Gather<T, R>>,
    is_taken: bool,
}

impl<T, R> Place<T, R>
where
    T: Clone + Send + 'static,
    R: Send + 'static,
{
    /// Makes a call, and then others, one after the other, until nobody waits.
    async fn work<C, F>(mut self, first: Vec<Portion<T, R>>, make_call: C)
    where
        C: Fn(Vec<T>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Vec<R>, Error>> + Send + 'static,
    {
        let mut next = Some(first);
        while let Some(portions) = next {
            let mut call = pin!(call_for(portions, &make_call));
            if timeout(COUNTED_MAX, &mut call).await.is_err() {
                self.leave();
                self.gather.start(make_call.clone());
                call.await;
                return;
            }
            next = self.next();
        }
    }

    /// The portions of the next call. Leaves if there are none, so that nobody comes in between who would then wait for nobody.
    fn next(&mut self) -> Option<Vec<Portion<T, R>>> {
        let mut queue = self.gather.queue();
        let portions = queue.next();
        if portions.is_empty() {
            queue.under_way -= 1;
            self.is_taken = false;
            return None;
        }
        Some(portions)
    }

    fn leave(&mut self) {
        self.gather.queue().under_way -= 1;
        self.is_taken = false;
    }
}

impl<T, R> Drop for Place<T, R> {
    fn drop(&mut self) {
        if self.is_taken {
            let queue = self.gather.queue.lock();
            queue.unwrap_or_else(PoisonError::into_inner).under_way -= 1;
        }
    }
}

/// Makes a call for some callers, and tells them. It ends early once all of them have gone away.
async fn call_for<T, R, C, F>(portions: Vec<Portion<T, R>>, make_call: &C)
where
    T: Clone,
    C: Fn(Vec<T>) -> F,
    F: Future<Output = Result<Vec<R>, Error>>,
{
    let mut left = vec![portions];
    while let Some(mut portions) = left.pop() {
        let items = portions
            .iter()
            .flat_map(|portion| portion.items.iter().cloned())
            .collect();
        let outcome = tokio::select! {
            outcome = make_call(items) => outcome,
            () = all_gone(&mut portions) => continue,
        };
        match outcome {
            Ok(answers) => tell(portions, answers),
            Err(error) if portions.len() > 1 && may_be_one_item(&error) => {
                left.push(portions.split_off(portions.len() / 2));
                left.push(portions);
            }
            Err(error) => {
                let error = Arc::new(error);
                for portion in portions {
                    // Who went away meanwhile has no use for it.
                    let _is_there = portion.caller.send(Err(error.clone()));
                }
            }
        }
    }
}

fn tell<T, R>(portions: Vec<Portion<T, R>>, answers: Vec<R>) {
    let mut answers = answers.into_iter();
    for portion in portions {
        let own: Vec<R> = answers.by_ref().take(portion.items.len()).collect();
        assert_eq!(own.len(), portion.items.len(), "a call answers once for each item");
        // Who went away meanwhile has no use for it.
        let _is_there = portion.caller.send(Ok(own));
    }
}

async fn all_gone<T, R>(portions: &mut [Portion<T, R>]) {
    for portion in portions {
        portion.caller.closed().await;
    }
}

/// Whether a call may have failed for what one of its items is, and not for the server's state or the caller's.
fn may_be_one_item(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Unavailable
            | ErrorKind::DeadlineExceeded
            | ErrorKind::Cancelled
            | ErrorKind::PermissionDenied
            | ErrorKind::Unimplemented
    )
}

fn ended() -> Error {
    Error::new(ErrorKind::Internal, "the call ended without an answer")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        bytes_max: 100,
        items_max: 5,
        item_bytes_max: 60,
    };

    type Numbers = Gather<Digest, u64>;

    fn digest(size: usize) -> Digest {
        Digest::of(DigestFunction::Sha256, &vec![7; size])
    }

    /// A server that answers with sizes, once it may.
    #[derive(Debug)]
    struct Server {
        calls: Mutex<Vec<Vec<u64>>>,
        may_answer: Semaphore,
        error: ErrorKind,
        /// It fails calls with a blob of this size.
        bad_size: u64,
        unanswered: AtomicUsize,
    }

    impl Server {
        fn new(error: ErrorKind, bad_size: u64) -> Arc<Self> {
            Arc::new(Self {
                calls: Mutex::default(),
                may_answer: Semaphore::new(0),
                error,
                bad_size,
                unanswered: AtomicUsize::new(0),
            })
        }

        fn good() -> Arc<Self> {
            Self::new(ErrorKind::Internal, u64::MAX)
        }

        fn calls(&self) -> Vec<Vec<u64>> {
            self.calls.lock().unwrap().clone()
        }

        async fn answer(self: Arc<Self>, digests: Vec<Digest>) -> Result<Vec<u64>, Error> {
            let sizes: Vec<u64> = digests.iter().map(Digest::size_bytes).collect();
            self.calls.lock().unwrap().push(sizes.clone());
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            self.may_answer.acquire().await.unwrap().forget();
            self.unanswered.fetch_sub(1, Ordering::Relaxed);
            match sizes.contains(&self.bad_size) {
                true => Err(Error::new(self.error, "bad")),
                false => Ok(sizes),
            }
        }
    }

    async fn ask(gather: &Arc<Numbers>, server: &Arc<Server>, digests: Vec<Digest>) -> Answers<u64> {
        let server = server.clone();
        let call = move |digests| server.clone().answer(digests);
        gather.call(digests, |digest| *digest, &BOUNDS, call).await
    }

    /// Has callers come one after the other, with one blob each.
    fn come(
        gather: &Arc<Numbers>,
        server: &Arc<Server>,
        sizes: &[usize],
    ) -> Vec<tokio::task::JoinHandle<Answers<u64>>> {
        let caller = |size: &usize| {
            let (gather, server, digest) = (gather.clone(), server.clone(), digest(*size));
            tokio::spawn(async move { ask(&gather, &server, vec![digest]).await })
        };
        sizes.iter().map(caller).collect()
    }

    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_comes_while_others_are_served_shares_a_call() {
        let (gather, server) = (Numbers::new(2), Server::good());
        let callers = come(&gather, &server, &[1, 2, 3, 4, 5]);
        settle().await;
        assert_eq!(server.calls(), [[1], [2]]);
        server.may_answer.add_permits(10);
        let answers = join_all(callers).await;
        let answers: Vec<u64> = answers
            .into_iter()
            .flat_map(|answer| answer.unwrap().unwrap())
            .collect();
        assert_eq!(answers, [1, 2, 3, 4, 5]);
        assert_eq!(server.calls(), [vec![1], vec![2], vec![3, 4, 5]]);
    }

    #[tokio::test]
    async fn calls_stay_within_their_bounds_and_have_one_function() {
        let (gather, server) = (Numbers::new(1), Server::good());
        let mut callers = come(&gather, &server, &[1, 60, 30, 20, 2, 3, 4, 5, 6, 7]);
        settle().await;
        let other = Digest::of(DigestFunction::Blake3, b"x");
        let (gather, asked) = (gather.clone(), server.clone());
        callers.push(tokio::spawn(async move { ask(&gather, &asked, vec![other; 2]).await }));
        settle().await;
        server.may_answer.add_permits(10);
        for answer in join_all(callers).await {
            answer.unwrap().unwrap();
        }
        let calls = [vec![1], vec![60, 30], vec![20, 2, 3, 4, 5], vec![6, 7], vec![1, 1]];
        assert_eq!(server.calls(), calls);
    }

    #[tokio::test]
    async fn nobody_has_anothers_trouble() {
        let (gather, server) = (Numbers::new(1), Server::new(ErrorKind::InvalidArgument, 4));
        server.may_answer.add_permits(20);
        let answers = join_all(come(&gather, &server, &[1, 2, 3, 4, 5, 6])).await;
        for (size, answer) in (1..).zip(answers) {
            match answer.unwrap() {
                Ok(answer) => assert_eq!((answer[0], size == 4), (size, false)),
                Err(error) => assert_eq!((error.kind(), size), (ErrorKind::InvalidArgument, 4)),
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_asked_once() {
        let (gather, server) = (Numbers::new(1), Server::new(ErrorKind::Unavailable, 4));
        server.may_answer.add_permits(20);
        let answers = join_all(come(&gather, &server, &[1, 2, 3, 4])).await;
        let failed = answers.into_iter().filter(|answer| answer.as_ref().unwrap().is_err());
        assert_eq!(failed.count(), 3);
        assert_eq!(server.calls(), [vec![1], vec![2, 3, 4]]);
    }

    #[tokio::test]
    async fn who_goes_away_is_not_asked_for() {
        let (gather, server) = (Numbers::new(1), Server::good());
        let callers = come(&gather, &server, &[1, 2, 3]);
        settle().await;
        callers[1].abort();
        settle().await;
        server.may_answer.add_permits(1);
        settle().await;
        assert_eq!(server.calls(), [[1], [3]]);
        // The only caller of a call ends it.
        callers[2].abort();
        settle().await;
        assert_eq!(server.unanswered.load(Ordering::Relaxed), 1);
        server.may_answer.add_permits(1);
        assert_eq!(ask(&gather, &server, vec![digest(4)]).await.unwrap(), [4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_does_not_hold_up_who_comes_later() {
        let (gather, server) = (Numbers::new(1), Server::good());
        let hung = come(&gather, &server, &[1, 2]);
        settle().await;
        assert_eq!(server.calls(), [[1]]);
        tokio::time::sleep(COUNTED_MAX).await;
        settle().await;
        assert_eq!(server.calls(), [[1], [2]]);
        server.may_answer.add_permits(2);
        for answer in join_all(hung).await {
            answer.unwrap().unwrap();
        }
        assert_eq!(gather.queue().under_way, 0);
    }

    #[tokio::test]
    async fn a_call_that_panics_gives_its_place_back() {
        let gather = Numbers::new(1);
        let panics = |_| async { panic!("for the test") };
        let outcome = gather.call(vec![digest(1)], |digest| *digest, &BOUNDS, panics).await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Internal);
        let server = Server::good();
        server.may_answer.add_permits(1);
        assert_eq!(ask(&gather, &server, vec![digest(2)]).await.unwrap(), [2]);
    }
}
