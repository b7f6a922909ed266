//! Results that are kept elsewhere: by another server, for all who ask it.
//!
//! What this cache keeps itself is then a note on what it got from there: the closure, so that it need not be gathered again as long as
//! the other one has the same result. The other one is asked each time; that all blobs are there is made sure here, in the store of
//! this cache, whatever the other one promises.
//!
//! Where results are written behind (`behind/`), what waits is newer than what the other one says, and while that does not answer what is
//! kept here is all there is.

use std::fmt;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lru::LruCache;
use prost::Message as _;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;

use super::behind::{ResultsBehind, is_no_answer};
use crate::{Error, ErrorKind, Result};

/// Keeps results of actions, and need not look whether their blobs are there.
#[async_trait]
pub trait ActionResults: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// The result of an action, if there is one.
    async fn get(&self, action: Digest) -> Result<Option<reapi::ActionResult>>;

    /// Keeps a result in place of an earlier one.
    async fn put(&self, action: Digest, result: reapi::ActionResult) -> Result<()>;
}

/// Notes that are remembered. Without one a closure is gathered again.
const NOTES_MAX: NonZero<usize> = NonZero::new(64 * 1024).expect("not zero");

/// Actions of different hashes seldom wait for each other.
const TURNS: usize = 64;

/// How long the other cache may take to answer, where clients do not wait for it.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Another cache, and which of its results were noted here.
#[derive(Debug)]
pub(super) struct Upstream {
    results: Arc<dyn ActionResults>,
    /// `None` if a put waits for the other cache.
    pub(super) behind: Option<ResultsBehind>,
    /// Guards the notes: of an action, the digest of the result as it came.
    notes: Mutex<LruCache<Digest, Digest>>,
    /// Guard what is kept here of an action, by its hash: one writes it at a time, knowing what waits.
    turns: [tokio::sync::Mutex<()>; TURNS],
}

/// What another cache says of an action.
pub(super) enum Answer {
    Nothing,
    Result(Box<reapi::ActionResult>),
    /// What is kept here is newer, or nobody answers there.
    AsKeptHere,
}

impl Upstream {
    pub(super) fn new(results: Arc<dyn ActionResults>, behind: Option<ResultsBehind>) -> Self {
        Self {
            results,
            behind,
            turns: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            notes: Mutex::new(LruCache::new(NOTES_MAX)),
        }
    }

    pub(super) async fn get(&self, action: Digest) -> Result<Answer> {
        let outcome = match &self.behind {
            None => self.results.get(action).await,
            Some(behind) if behind.holds(&action) || !behind.may_be_asked() => return Ok(Answer::AsKeptHere),
            Some(behind) => {
                let outcome = within_patience(self.results.get(action)).await;
                behind.note(&outcome);
                outcome
            }
        };
        match outcome {
            Ok(Some(result)) => Ok(Answer::Result(Box::new(result))),
            Ok(None) => Ok(Answer::Nothing),
            Err(error) if self.behind.is_some() && is_no_answer(error.kind()) => {
                tracing::debug!(%action, %error, "the upstream cache does not answer: what is kept here is served");
                Ok(Answer::AsKeptHere)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a result of the action waits here to be written to the other cache.
    pub(super) fn holds(&self, action: &Digest) -> bool {
        self.behind.as_ref().is_some_and(|behind| behind.holds(action))
    }

    /// Waits until nobody else writes what is kept here of an action.
    pub(super) async fn turn(&self, action: &Digest) -> tokio::sync::MutexGuard<'_, ()> {
        self.turns[usize::from(action.hash()[0]) % TURNS].lock().await
    }

    pub(super) async fn put(&self, action: Digest, result: reapi::ActionResult) -> Result<()> {
        self.results.put(action, result).await
    }

    fn notes(&self) -> MutexGuard<'_, LruCache<Digest, Digest>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the result that was noted.
    pub(super) fn is_noted(&self, action: &Digest, result: &reapi::ActionResult) -> bool {
        self.notes().get(action) == Some(&name(result))
    }

    /// Forgets what was noted: what is kept here is another result.
    pub(super) fn forget(&self, action: &Digest) {
        self.notes().pop(action);
    }

    /// Notes a result as it came.
    pub(super) fn note(&self, action: Digest, result: &reapi::ActionResult) {
        self.notes().put(action, name(result));
    }
}

/// An answer that may not be waited for as long as it takes.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if it took too long.
pub(super) async fn within_patience<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(ANSWER_PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            let reason = format!("no answer came in {} s", ANSWER_PATIENCE.as_secs());
            Err(Error::new(ErrorKind::Unavailable, reason))
        }
    }
}

fn name(result: &reapi::ActionResult) -> Digest {
    Digest::of(DigestFunction::Blake3, &result.encode_to_vec())
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.behind.is_some() { "write-behind " } else { "" };
        write!(f, "{how}{}", self.results)
    }
}
