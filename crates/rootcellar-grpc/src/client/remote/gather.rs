//! Calls that callers share who come at the same time.
//!
//! ```text
//!   callers ──> waiting ── as soon as there are fewer calls under way than may be ──> one call for some of them
//!                 │                                                                        │
//!                 └── nobody waits for time to pass: while there are few                   └── refused? each again, alone
//!                     callers, each is served at once
//! ```

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_reapi::{Error, ErrorKind};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::batches::Bounds;

/// A call that takes longer does not count as one under way any more: what hangs may not hold up who comes later.
const PROMPT_MAX: Duration = Duration::from_secs(5);

/// Calls at once for those who shared one that failed.
const ALONE_MAX: usize = 32;

/// An answer to each item, in their order; or why there is none.
pub(super) type Answers<R> = Result<Vec<R>, Arc<Error>>;

/// Makes a call for some items.
pub(super) type MakeCall<T, R> = Arc<dyn Fn(Vec<T>) -> BoxFuture<'static, Result<Vec<R>, Error>> + Send + Sync>;

/// Gathers items of type `T` while as many calls are under way as may be.
#[derive(Debug)]
pub(super) struct Gather<T, R> {
    calls_max: usize,
    together_min: usize,
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

impl<T: Clone + Send + 'static, R: Send + 'static> Gather<T, R> {
    /// Makes `calls_max` calls at once, at least one. Each takes its share of the callers that wait, but `together_min` if there are as many:
    /// servers may do one after the other what comes in one call.
    pub(super) fn new(calls_max: usize, together_min: usize) -> Arc<Self> {
        Arc::new(Self {
            calls_max: calls_max.max(1),
            together_min: together_min.max(1),
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                under_way: 0,
            }),
        })
    }

    /// Has `items`, at least one and all of one digest function, be part of a call within `bounds`. What leaves no room for much else is a
    /// call of its own.
    pub(super) async fn call(
        self: &Arc<Self>,
        items: Vec<T>,
        digest_of: impl Fn(&T) -> Digest,
        bounds: &Bounds,
        make_call: MakeCall<T, R>,
    ) -> Answers<R> {
        let sizes = items.iter().map(|item| digest_of(item).size_bytes());
        let bytes = sizes.fold(0, u64::saturating_add);
        if items.len() > bounds.items_max / 2 || bytes > bounds.bytes_max / 2 {
            return make_call(items).await.map_err(Arc::new);
        }
        let (caller, answers) = oneshot::channel();
        let portion = Portion {
            function: digest_of(&items[0]).function(),
            bytes,
            items,
            bounds: bounds.clone(),
            caller,
        };
        self.queue().waiting.push_back(portion);
        self.start(&Handle::current(), make_call);
        answers.await.unwrap_or_else(|_| Err(Arc::new(ended())))
    }

    /// Starts a call for who waits, if there may be one more.
    fn start(self: &Arc<Self>, runtime: &Handle, make_call: MakeCall<T, R>) {
        let mut queue = self.queue();
        if queue.under_way >= self.calls_max {
            return;
        }
        let portions = self.next(&mut queue);
        if portions.is_empty() {
            return;
        }
        queue.under_way += 1;
        drop(queue);
        let place = Place {
            gather: self.clone(),
            runtime: runtime.clone(),
            make_call,
        };
        runtime.spawn(place.serve(portions).in_current_span());
    }

    /// What goes into the next call: portions of one digest function, as many as fit and are its share, in the order in which they came.
    fn next(&self, queue: &mut Queue<T, R>) -> Vec<Portion<T, R>> {
        let share = queue.waiting.len().div_ceil(self.calls_max).max(self.together_min);
        let mut together: Vec<Portion<T, R>> = Vec::new();
        let (mut items, mut bytes) = (0, 0_u64);
        while together.len() < share
            && let Some(next) = queue.waiting.front()
        {
            if next.caller.is_closed() {
                queue.waiting.pop_front();
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
            together.extend(queue.waiting.pop_front());
        }
        together
    }

    fn queue(&self) -> MutexGuard<'_, Queue<T, R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the calls under way. When it is dropped, another call may begin.
struct Place<T: Clone + Send + 'static, R: Send + 'static> {
    gather: Arc<Gather<T, R>>,
    runtime: Handle,
    make_call: MakeCall<T, R>,
}

impl<T: Clone + Send + 'static, R: Send + 'static> Place<T, R> {
    /// Makes a call for those who waited. A task of its own does, so that a caller whose future is not polled holds up nobody.
    async fn serve(self, portions: Vec<Portion<T, R>>) {
        let make_call = self.make_call.clone();
        let mut calls = pin!(call_for(portions, &make_call));
        if timeout(PROMPT_MAX, &mut calls).await.is_err() {
            drop(self);
            calls.await;
        }
    }
}

impl<T: Clone + Send + 'static, R: Send + 'static> Drop for Place<T, R> {
    fn drop(&mut self) {
        self.gather.queue().under_way -= 1;
        self.gather.start(&self.runtime, self.make_call.clone());
    }
}

/// Makes one call for some callers, and a call for each of them where that is refused.
async fn call_for<T: Clone, R>(mut portions: Vec<Portion<T, R>>, make_call: &MakeCall<T, R>) {
    if portions.len() > 1 {
        call_shared(&mut portions, make_call).await;
    }
    let calls = stream::iter(portions).for_each_concurrent(ALONE_MAX, |portion| call_alone(portion, make_call));
    calls.await;
}

/// Makes one call for some callers. Leaves those that have to be called for alone. It ends early once all of them have gone away.
async fn call_shared<T: Clone, R>(portions: &mut Vec<Portion<T, R>>, make_call: &MakeCall<T, R>) {
    let items = portions.iter().flat_map(|portion| portion.items.iter().cloned());
    let call = make_call(items.collect());
    let outcome = tokio::select! {
        outcome = call => outcome,
        () = all_gone(portions) => return portions.clear(),
    };
    match outcome {
        Ok(answers) => tell(portions.drain(..), answers),
        Err(error) if may_be_one_item(&error) => {}
        Err(error) => {
            let error = Arc::new(error);
            for portion in portions.drain(..) {
                portion.answer(Err(error.clone()));
            }
        }
    }
}

async fn call_alone<T, R>(mut portion: Portion<T, R>, make_call: &MakeCall<T, R>) {
    let call = make_call(std::mem::take(&mut portion.items));
    tokio::select! {
        outcome = call => portion.answer(outcome.map_err(Arc::new)),
        () = portion.caller.closed() => {}
    }
}

impl<T, R> Portion<T, R> {
    fn answer(self, answers: Answers<R>) {
        // Who went away meanwhile has no use for it.
        let _is_there = self.caller.send(answers);
    }
}

fn tell<T, R>(portions: impl Iterator<Item = Portion<T, R>>, answers: Vec<R>) {
    let mut answers = answers.into_iter();
    for portion in portions {
        let own: Vec<R> = answers.by_ref().take(portion.items.len()).collect();
        assert_eq!(own.len(), portion.items.len(), "a call answers once for each item");
        portion.answer(Ok(own));
    }
}

async fn all_gone<T, R>(portions: &mut [Portion<T, R>]) {
    for portion in portions {
        portion.caller.closed().await;
    }
}

/// Whether a call may have failed for what one of its items is, and not for the server's state or who asks.
fn may_be_one_item(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Unavailable
            | ErrorKind::DeadlineExceeded
            | ErrorKind::Aborted
            | ErrorKind::Cancelled
            | ErrorKind::PermissionDenied
            | ErrorKind::Unimplemented
    )
}

fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the call ended without an answer")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::{FutureExt as _, join_all};
    use tokio::sync::Semaphore;
    use tokio::task::JoinHandle;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        bytes_max: 100,
        items_max: 5,
        item_bytes_max: 60,
    };
    /// Longer than anything takes here.
    const PATIENCE: Duration = Duration::from_secs(60);

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
        /// It does not answer calls with a blob of this size.
        hung_size: u64,
        under_way: AtomicUsize,
    }

    struct UnderWay<'a>(&'a AtomicUsize);

    impl Drop for UnderWay<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    impl Server {
        /// It may answer `answers` times.
        fn new(answers: usize) -> Self {
            Self {
                calls: Mutex::default(),
                may_answer: Semaphore::new(answers),
                error: ErrorKind::Internal,
                bad_size: u64::MAX,
                hung_size: u64::MAX,
                under_way: AtomicUsize::new(0),
            }
        }

        fn calls(&self) -> Vec<Vec<u64>> {
            self.calls.lock().unwrap().clone()
        }

        async fn answer(self: Arc<Self>, digests: Vec<Digest>) -> Result<Vec<u64>, Error> {
            let sizes: Vec<u64> = digests.iter().map(Digest::size_bytes).collect();
            self.calls.lock().unwrap().push(sizes.clone());
            self.under_way.fetch_add(1, Ordering::Relaxed);
            let _under_way = UnderWay(&self.under_way);
            self.may_answer.acquire().await.unwrap().forget();
            if sizes.contains(&self.hung_size) {
                std::future::pending::<()>().await;
            }
            match sizes.contains(&self.bad_size) {
                true => Err(Error::new(self.error, "bad")),
                false => Ok(sizes),
            }
        }
    }

    async fn ask(gather: &Arc<Numbers>, server: &Arc<Server>, digests: Vec<Digest>) -> Answers<u64> {
        let server = server.clone();
        let call: MakeCall<Digest, u64> = Arc::new(move |digests| server.clone().answer(digests).boxed());
        let asked = gather.call(digests, |digest| *digest, &BOUNDS, call);
        timeout(PATIENCE, asked).await.expect("nobody waits for ever")
    }

    /// Has callers come one after the other, with one blob each.
    fn come(gather: &Arc<Numbers>, server: &Arc<Server>, sizes: &[usize]) -> Vec<JoinHandle<Answers<u64>>> {
        let caller = |size: &usize| {
            let (gather, server, digest) = (gather.clone(), server.clone(), digest(*size));
            tokio::spawn(async move { ask(&gather, &server, vec![digest]).await })
        };
        sizes.iter().map(caller).collect()
    }

    async fn told(callers: Vec<JoinHandle<Answers<u64>>>) -> Vec<Result<u64, ErrorKind>> {
        let one = |answers: Answers<u64>| answers.map(|sizes| sizes[0]).map_err(|error| error.kind());
        let answers = join_all(callers).await.into_iter();
        answers.map(|answers| one(answers.unwrap())).collect()
    }

    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_comes_while_others_are_served_shares_a_call() {
        let (gather, server) = (Numbers::new(2, 5), Arc::new(Server::new(0)));
        let callers = come(&gather, &server, &[1, 2, 3, 4, 5]);
        settle().await;
        assert_eq!(server.calls(), [[1], [2]]);
        server.may_answer.add_permits(10);
        assert_eq!(told(callers).await, [Ok(1), Ok(2), Ok(3), Ok(4), Ok(5)]);
        assert_eq!(server.calls(), [vec![1], vec![2], vec![3, 4, 5]]);
    }

    #[tokio::test]
    async fn a_call_takes_no_more_than_its_share() {
        let (gather, server) = (Numbers::new(3, 1), Arc::new(Server::new(0)));
        let callers = come(&gather, &server, &[1, 2, 3, 4, 5, 6, 7, 8]);
        settle().await;
        server.may_answer.add_permits(1);
        settle().await;
        assert_eq!(server.calls(), [vec![1], vec![2], vec![3], vec![4, 5]]);
        server.may_answer.add_permits(10);
        assert!(told(callers).await.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn calls_stay_within_their_bounds_and_have_one_function() {
        let (gather, server) = (Numbers::new(1, 100), Arc::new(Server::new(0)));
        let mut callers = come(&gather, &server, &[1, 50, 40, 20, 2, 3, 4, 5, 6, 7]);
        settle().await;
        let other = Digest::of(DigestFunction::Blake3, b"x");
        let (asked, asker) = (server.clone(), gather.clone());
        callers.push(tokio::spawn(async move { ask(&asker, &asked, vec![other; 2]).await }));
        settle().await;
        server.may_answer.add_permits(10);
        assert!(told(callers).await.iter().all(Result::is_ok));
        let calls = [vec![1], vec![50, 40], vec![20, 2, 3, 4, 5], vec![6, 7], vec![1, 1]];
        assert_eq!(server.calls(), calls);
    }

    #[tokio::test]
    async fn what_is_large_waits_for_nobody() {
        let (gather, server) = (Numbers::new(1, 100), Arc::new(Server::new(0)));
        let callers = come(&gather, &server, &[1, 51, 2]);
        settle().await;
        let mut calls = server.calls();
        calls.sort_unstable();
        assert_eq!(calls, [[1], [51]]);
        server.may_answer.add_permits(10);
        assert_eq!(told(callers).await, [Ok(1), Ok(51), Ok(2)]);
    }

    #[tokio::test]
    async fn nobody_has_anothers_trouble() {
        let (gather, mut server) = (Numbers::new(1, 100), Server::new(20));
        (server.error, server.bad_size) = (ErrorKind::InvalidArgument, 4);
        let server = Arc::new(server);
        let answers = told(come(&gather, &server, &[1, 2, 3, 4, 5])).await;
        assert_eq!(answers, [Ok(1), Ok(2), Ok(3), Err(ErrorKind::InvalidArgument), Ok(5)]);
        assert_eq!(
            server.calls(),
            [vec![1], vec![2, 3, 4, 5], vec![2], vec![3], vec![4], vec![5]]
        );
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_asked_once() {
        let (gather, mut server) = (Numbers::new(1, 100), Server::new(20));
        (server.error, server.bad_size) = (ErrorKind::Unavailable, 4);
        let server = Arc::new(server);
        let answers = told(come(&gather, &server, &[1, 2, 3, 4])).await;
        let away = Err(ErrorKind::Unavailable);
        assert_eq!(answers, [Ok(1), away, away, away]);
        assert_eq!(server.calls(), [vec![1], vec![2, 3, 4]]);
    }

    #[tokio::test]
    async fn who_goes_away_is_not_asked_for() {
        let (gather, server) = (Numbers::new(1, 100), Arc::new(Server::new(0)));
        let callers = come(&gather, &server, &[1, 2, 3]);
        settle().await;
        callers[1].abort();
        settle().await;
        server.may_answer.add_permits(1);
        settle().await;
        assert_eq!(server.calls(), [[1], [3]]);
        assert_eq!(server.under_way.load(Ordering::Relaxed), 1);
        callers[2].abort();
        settle().await;
        assert_eq!(
            server.under_way.load(Ordering::Relaxed),
            0,
            "its only caller ends a call"
        );
        server.may_answer.add_permits(1);
        assert_eq!(ask(&gather, &server, vec![digest(4)]).await.unwrap(), [4]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_does_not_hold_up_who_comes_later() {
        let (gather, mut server) = (Numbers::new(1, 100), Server::new(0));
        server.hung_size = 1;
        let server = Arc::new(server);
        let mut hung = come(&gather, &server, &[1]);
        settle().await;
        server.may_answer.add_permits(10);
        assert_eq!(told(come(&gather, &server, &[2, 3])).await, [Ok(2), Ok(3)]);
        assert_eq!(server.calls(), [vec![1], vec![2, 3]]);
        assert_eq!(server.under_way.load(Ordering::Relaxed), 1);
        hung.remove(0).abort();
        settle().await;
        assert_eq!(server.under_way.load(Ordering::Relaxed), 0);
        assert_eq!(gather.queue().under_way, 0);
    }

    #[tokio::test]
    async fn a_call_that_panics_strands_nobody() {
        let gather = Numbers::new(1, 100);
        let may_panic = Arc::new(Semaphore::new(0));
        let caller = || {
            let (gather, may_panic) = (gather.clone(), may_panic.clone());
            let panics: MakeCall<Digest, u64> = Arc::new(move |_| {
                let may_panic = may_panic.clone();
                let panics = async move {
                    may_panic.acquire().await.unwrap().forget();
                    panic!("for the test")
                };
                panics.boxed()
            });
            tokio::spawn(async move {
                let asked = gather.call(vec![digest(1)], |digest| *digest, &BOUNDS, panics);
                timeout(PATIENCE, asked).await.expect("nobody waits for ever")
            })
        };
        let [first, second] = [caller(), caller()];
        settle().await;
        may_panic.add_permits(2);
        assert_eq!(told(vec![first, second]).await, [Err(ErrorKind::Unavailable); 2]);
        let server = Arc::new(Server::new(1));
        assert_eq!(ask(&gather, &server, vec![digest(2)]).await.unwrap(), [2]);
    }
}
