//! The cache of action results: what a client stored, or an execution made, under the digest of an action.
//!
//! A result is kept with its closure, the list of all blobs it needs, gathered once when the result comes. It is served only
//! while all of them are in the store: a hit is one read of a record and one `find_missing`, which keeps the blobs alive for the
//! reads that follow, or one question for all of them if the result was found complete before (`kept.rs`). An incomplete result
//! stays where it is, since its blobs may come back, but it is not served.
//!
//! The key is the action's digest with its function. Instances share one cache, as they share one store.

mod behind;
mod entry;
mod kept;
#[cfg(test)]
mod tests;
mod upstream;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use prost::Message as _;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi;
use rootcellar_store::{BlobStore, Clock, RecordKind, Records};
use tokio::task::JoinSet;

use self::behind::ResultsBehind;
pub use self::behind::{ResultsBehindOptions, ResultsBehindStatistics, UpstreamBlobs};
use self::entry::Entry;
use self::kept::{KeptResults, Known};
pub use self::upstream::ActionResults;
use self::upstream::{Answer, Upstream};
use crate::action::{ActionLimits, LoadedAction, read_action};
use crate::closure::{self, ClosureLimits};
use crate::spilled_records::{Prepared, SpilledRecords};
use crate::{Error, ErrorKind, Result, digest_list, inlined, result};

/// The records of this cache.
const KIND: RecordKind = RecordKind("action-result");

/// What the cache keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionCacheOptions {
    /// Whether an execution is answered with, and leaves behind, a result whose exit code is not zero. A failure may have its
    /// cause outside the action, and clients try again in the hope of better. What a client stores itself is kept in any case.
    pub keep_failures: bool,
    /// Bytes in a result, without contents inlined in it. It has to fit into one message of gRPC.
    pub result_bytes_max: u64,
    /// Bounds on the blobs of one result.
    pub closure: ClosureLimits,
    /// Bounds on the actions that results are for.
    pub action: ActionLimits,
}

impl Default for ActionCacheOptions {
    fn default() -> Self {
        Self {
            keep_failures: false,
            result_bytes_max: 3 << 20,
            closure: ClosureLimits::default(),
            action: ActionLimits::default(),
        }
    }
}

/// A result that may be kept.
struct Gathered {
    /// As it will be kept: contents that were inlined are in the store.
    result: reapi::ActionResult,
    record: Prepared,
}

/// Maps actions to results whose blobs are all in the store.
#[derive(Debug, Clone)]
pub struct ActionCache {
    entries: SpilledRecords,
    store: Arc<dyn BlobStore>,
    kept: Arc<KeptResults>,
    /// Tells when a result was complete, for stores that rely on such a time.
    clock: Option<Arc<dyn Clock>>,
    /// Whose results these are, if not this cache's own.
    upstream: Option<Arc<Upstream>>,
    /// Owns the tasks that use closures again: one for each result at the most.
    renewals: Arc<Mutex<JoinSet<()>>>,
    options: ActionCacheOptions,
}

impl ActionCache {
    /// Makes a cache that keeps results in `records` and finds their blobs in `store`.
    pub fn new(records: Arc<dyn Records>, store: Arc<dyn BlobStore>, options: ActionCacheOptions) -> Self {
        let entries = SpilledRecords {
            kind: KIND,
            records,
            store: store.clone(),
        };
        Self {
            entries,
            store,
            kept: Arc::default(),
            clock: None,
            upstream: None,
            renewals: Arc::default(),
            options,
        }
    }

    /// Notes with a result when it was complete. A store that keeps what was there for some time, such as a bucket, is then not asked about
    /// the blobs of each result each time, by whichever server ([`BlobStore::has_kept_since`]).
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock: Some(clock),
            ..self
        }
    }

    /// Keeps the results in `upstream`, and here only what makes them quick to check.
    #[must_use]
    pub fn with_upstream(self, upstream: Arc<dyn ActionResults>) -> Self {
        Self {
            upstream: Some(Arc::new(Upstream::new(upstream, None))),
            ..self
        }
    }

    /// Keeps the results in `upstream`, and acknowledges a put when the result is kept here: it is written there once `blobs`, the stores
    /// between here and there with the nearest one first, have written out what it needs. What still waits is served from here, after a
    /// restart too, so the records and the list have to be the same then. While nobody answers there, what is kept here is served. Runs on
    /// a tokio runtime.
    ///
    /// # Errors
    /// If the list cannot be read or written.
    pub async fn with_upstream_behind(
        self,
        upstream: Arc<dyn ActionResults>,
        blobs: Vec<Arc<dyn UpstreamBlobs>>,
        options: &ResultsBehindOptions,
    ) -> Result<Self> {
        let behind = ResultsBehind::start(self.entries.clone(), upstream.clone(), blobs, options).await?;
        Ok(Self {
            upstream: Some(Arc::new(Upstream::new(upstream, Some(behind)))),
            ..self
        })
    }

    /// Ends what goes on in the background. Results that wait to be written stay on their list.
    pub async fn close(&self) {
        let mut renewals = std::mem::take(&mut *self.renewals.lock().unwrap_or_else(PoisonError::into_inner));
        renewals.shutdown().await;
        if let Some(behind) = self.behind() {
            behind.close().await;
        }
    }

    /// What waits to be written to the upstream cache; `None` if nothing is written behind.
    pub fn behind_statistics(&self) -> Option<ResultsBehindStatistics> {
        self.behind().map(ResultsBehind::statistics)
    }

    fn behind(&self) -> Option<&ResultsBehind> {
        self.upstream.as_ref()?.behind.as_ref()
    }

    /// Looks a result up for a client that asks for it (REAPI, `GetActionResult`): `None` if there is none, if a blob of its
    /// closure is missing, or if the action does not allow caching. All blobs of a result that is returned were just used.
    ///
    /// # Errors
    /// What the store or the records say if they cannot answer.
    pub async fn get(&self, action: Digest) -> Result<Option<reapi::ActionResult>> {
        match &self.upstream {
            Some(upstream) => self.get_upstream(upstream, action).await,
            None => self.get_own(action).await,
        }
    }

    async fn get_upstream(&self, upstream: &Upstream, action: Digest) -> Result<Option<reapi::ActionResult>> {
        let result = match upstream.get(action).await? {
            Answer::Result(result) => *result,
            Answer::Nothing => return Ok(None),
            Answer::AsKeptHere => return self.get_own(action).await,
        };
        if upstream.is_noted(&action, &result)
            && let Some(checked) = self.get_own(action).await?
        {
            return Ok(Some(checked));
        }
        let forbidden = self.forbids_caching(action).await?;
        if forbidden == Some(true) {
            return Ok(None);
        }
        let gathered = match self.gather(action, result.clone(), forbidden.is_some()).await {
            Ok(gathered) => gathered,
            Err(error) if !error.missing().is_empty() => {
                tracing::debug!(%action, %error, "a result of the upstream cache is incomplete and is not served");
                return Ok(None);
            }
            Err(error) => return Err(error.about(upstream)),
        };
        {
            let _turn = upstream.turn(&action).await;
            // What was put after the upstream cache was asked, and waits, stays.
            if !upstream.holds(&action) {
                self.write(action, gathered.record).await?;
                upstream.note(action, &result);
            }
        }
        self.get_own(action).await
    }

    async fn get_own(&self, action: Digest) -> Result<Option<reapi::ActionResult>> {
        let key = digest_list::key(action);
        let Some(record) = self.entries.get_record(&key).await? else {
            return Ok(None);
        };
        match self.kept.look_up(&*self.store, &action, &record) {
            Known::Complete(result) => Ok(Some(result)),
            Known::ToBeRenewed(result) => {
                self.renew(action, key, record);
                Ok(Some(result))
            }
            Known::Nothing => self.get_checked(action, &key, record).await,
        }
    }

    /// Has the closure of a result used again, in the background.
    fn renew(&self, action: Digest, key: Vec<u8>, record: Bytes) {
        let cache = self.clone();
        let renew = async move {
            let outcome = cache.get_checked(action, &key, record).await;
            if !matches!(outcome, Ok(Some(_))) {
                tracing::debug!(%action, ?outcome, "a cached result could not be used again, and is looked through when asked for");
                cache.kept.forget(&action);
            }
        };
        let mut renewals = self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        while renewals.try_join_next().is_some() {}
        renewals.spawn(renew);
    }

    /// Reads the entry of a record, and looks whether all of its closure is there.
    async fn get_checked(&self, action: Digest, key: &[u8], record: Bytes) -> Result<Option<reapi::ActionResult>> {
        let Some(found) = self.entries.resolve(key, record.clone()).await? else {
            return Ok(None);
        };
        let Some(entry) = Entry::decode(found.value) else {
            self.entries.drop_damaged(key).await?;
            return Ok(None);
        };
        if !entry.action_seen && self.forbids_caching(action).await? == Some(true) {
            return Ok(None);
        }
        let mut needed = entry.closure.clone();
        needed.extend(found.blob);
        let is_relied_on = |when| self.store.has_kept_since(&needed, when);
        if entry.complete_at.is_some_and(is_relied_on) {
            return Ok(Some(entry.result));
        }
        let (mark, now) = (self.store.mark(), self.time_relied_on());
        if !closure::is_complete(&*self.store, &needed).await? {
            tracing::debug!(%action, "a cached result is incomplete and is not served");
            return Ok(None);
        }
        if now.is_some() && found.blob.is_none() {
            let entry = Entry {
                complete_at: now,
                ..entry
            };
            self.note_complete(action, key, &record, &entry).await;
            return Ok(Some(entry.result));
        }
        if entry.action_seen {
            self.kept.remember(action, record, &entry.result, mark);
        }
        Ok(Some(entry.result))
    }

    /// Looks a result up that an execution may answer with: as [`Self::get`], but never for an action that does not allow
    /// caching, and a failure only if failures are kept.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_for_execution(&self, action: &LoadedAction) -> Result<Option<reapi::ActionResult>> {
        if action.do_not_cache {
            return Ok(None);
        }
        let found = self.get(action.digest).await?;
        Ok(found.filter(|result| self.may_answer(result)))
    }

    fn may_answer(&self, result: &reapi::ActionResult) -> bool {
        result.exit_code == 0 || self.options.keep_failures
    }

    /// Keeps a result that a client made (REAPI, `UpdateActionResult`), in place of an earlier one, and returns it as it is kept:
    /// contents that were inlined are in the store, and never is the message empty.
    ///
    /// # Errors
    /// [`Error::missing_blobs`] with all blobs of the result that are not in the store;
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the result contradicts itself, or the action is in the store and
    /// does not allow caching; [`ResourceExhausted`](crate::ErrorKind::ResourceExhausted) past a limit.
    pub async fn put(&self, action: Digest, result: reapi::ActionResult) -> Result<reapi::ActionResult> {
        let forbidden = self.forbids_caching(action).await?;
        if forbidden == Some(true) {
            return Err(Error::invalid_argument(format!(
                "action {action} says do_not_cache: no result of it is kept"
            )));
        }
        self.keep(action, result, forbidden.is_some()).await
    }

    /// Keeps the result of an execution that ended with an OK status; says whether it is one to keep. That it is not is no error.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn put_executed(&self, action: &LoadedAction, result: &reapi::ActionResult) -> Result<bool> {
        if action.do_not_cache || !self.may_answer(result) {
            return Ok(false);
        }
        self.keep(action.digest, result.clone(), true).await?;
        Ok(true)
    }

    async fn keep(
        &self,
        action: Digest,
        result: reapi::ActionResult,
        action_seen: bool,
    ) -> Result<reapi::ActionResult> {
        let Gathered { result, record } = self.gather(action, result, action_seen).await?;
        let Some(upstream) = &self.upstream else {
            self.write(action, record).await?;
            return Ok(result);
        };
        let behind = match &upstream.behind {
            Some(behind) => Some((behind, behind.room().await?)),
            None => None,
        };
        let turn = upstream.turn(&action).await;
        upstream.forget(&action);
        let record_bytes = record.len();
        self.write(action, record).await?;
        match behind {
            Some((behind, room)) => behind.put(action, room, record_bytes).await?,
            None => {
                drop(turn);
                upstream.put(action, result.clone()).await?;
            }
        }
        Ok(result)
    }

    /// Makes sure that a result may be kept and that all its blobs are in the store, and makes the record of it.
    async fn gather(&self, action: Digest, mut result: reapi::ActionResult, action_seen: bool) -> Result<Gathered> {
        let function = action.function();
        let complete_at = self.time_relied_on();
        inlined::move_to_store(&*self.store, function, &mut result).await?;
        self.check_size(&result)?;
        let closure = result::closure(&*self.store, function, &mut result, &self.options.closure).await?;
        name_a_worker(&mut result);
        let entry = Entry {
            result,
            action_seen,
            complete_at,
            closure,
        };
        Ok(Gathered {
            record: self.record(action, &entry).await?,
            result: entry.result,
        })
    }

    /// Notes with a record when it was complete, if it is still the one that was read. That it cannot be noted is no harm.
    async fn note_complete(&self, action: Digest, key: &[u8], record: &Bytes, entry: &Entry) {
        let note = async {
            if self.entries.get_record(key).await?.as_ref() == Some(record) {
                self.write(action, self.record(action, entry).await?).await?;
            }
            Ok::<(), Error>(())
        };
        if let Err(error) = note.await {
            tracing::debug!(%action, %error, "that a result is complete could not be noted, and is looked at again");
        }
    }

    async fn record(&self, action: Digest, entry: &Entry) -> Result<Prepared> {
        let function = action.function();
        self.entries.prepare(function, entry.encode(function)).await
    }

    async fn write(&self, action: Digest, record: Prepared) -> Result<()> {
        self.entries.put(&digest_list::key(action), record, None).await
    }

    /// The time, if the store relies on what is complete from now on.
    fn time_relied_on(&self) -> Option<SystemTime> {
        let now = self.clock.as_ref()?.now();
        self.store.has_kept_since(&[], now).then_some(now)
    }

    fn check_size(&self, result: &reapi::ActionResult) -> Result<()> {
        let (size, max) = (result.encoded_len() as u64, self.options.result_bytes_max);
        if size <= max {
            return Ok(());
        }
        Err(Error::resource_exhausted(format!(
            "the result has {size} bytes; at most {max} are kept"
        )))
    }

    /// Whether the action does not allow caching; `None` if it is not in the store, or if it may lie where nobody answers while results are
    /// written behind: builds go on then, and the upstream cache will look itself.
    async fn forbids_caching(&self, action: Digest) -> Result<Option<bool>> {
        let read = async {
            let action = read_action(&*self.store, action, &self.options.action).await?;
            Ok(action.map(|action| action.do_not_cache))
        };
        let Some(behind) = self.behind() else {
            return read.await;
        };
        if !behind.can_be_read(action).await? {
            return Ok(None);
        }
        let outcome = upstream::within_patience(read).await;
        match &outcome {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                behind.note(&outcome);
                Ok(None)
            }
            _ => outcome,
        }
    }
}

/// Makes sure that a result is not encoded as no bytes at all, which some clients take for no result.
fn name_a_worker(result: &mut reapi::ActionResult) {
    if result.encoded_len() == 0 {
        result
            .execution_metadata
            .get_or_insert_default()
            .worker
            .push_str("unknown");
    }
}

impl fmt::Display for ActionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.upstream {
            Some(upstream) => write!(f, "action cache({upstream}, {})", self.store),
            None => write!(f, "action cache({}, {})", self.entries.records, self.store),
        }
    }
}
