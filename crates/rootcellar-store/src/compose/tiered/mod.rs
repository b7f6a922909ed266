//! A fast store in front of a slow one: a disk in front of a bucket, memory in front of another server.
//!
//! ```text
//!   get            fast ── absent ──> slow: a whole blob is brought into fast, once for all who ask (fill.rs);
//!                                           a part is passed on, and nothing is brought anywhere
//!   put            write-through:  slow, then fast; acknowledged when slow has it
//!                  write-behind:   fast, and a list on disk; brought to slow later (behind/)
//!   find_missing   fast, then slow for what fast lacks
//! ```
//!
//! What is used in the fast store only would grow old in the slow one, and be lost to everybody else there. So uses are passed on now and
//! then, and what turns out to be missing there is brought again (`uses.rs`).

mod behind;
mod fill;
mod local;
mod uses;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use rootcellar_digest::Digest;

use self::behind::Behind;
pub use self::behind::{BehindOptions, BehindStatistics};
use self::fill::Fills;
use self::uses::Uses;
use super::health::has_answered;
use super::tasks::Tasks;
use super::transfer::verify;
use crate::{Blob, BlobStore, ByteRange, Clock, Content, Error, ErrorKind, LocalStore, Mark, Result, Spool, Verified};

/// How long the slow store may take to say what is missing, where clients do not wait for it.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// How a [`Tiered`] store works. Each value has a default and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TieredOptions {
    /// Whole blobs that are brought from the slow store at a time, 32. Readers of more are served by the slow store itself.
    pub fills_max: usize,
    /// How old a use that the slow store knows of may get before it is told again, one hour: a small part of what any store
    /// keeps unused blobs for.
    pub tell_uses_after: Duration,
}

impl Default for TieredOptions {
    fn default() -> Self {
        Self {
            fills_max: 32,
            tell_uses_after: Duration::from_hours(1),
        }
    }
}

impl TieredOptions {
    /// Brings so many blobs at a time.
    #[must_use]
    pub fn with_fills_max(self, fills_max: usize) -> Self {
        Self { fills_max, ..self }
    }

    /// Tells uses again after this time.
    #[must_use]
    pub fn with_tell_uses_after(self, tell_uses_after: Duration) -> Self {
        Self {
            tell_uses_after,
            ..self
        }
    }
}

/// A [`BlobStore`] of two: what is used is in the fast one, what there is is in the slow one.
///
/// It is a [`LocalStore`] if the fast one is: a lease brings what is missing first.
pub struct Tiered<F: ?Sized = dyn LocalStore> {
    fast: Arc<F>,
    slow: Arc<dyn BlobStore>,
    spool: Spool,
    fills: Fills,
    uses: Uses,
    /// Whether the fast store took nothing the last time.
    is_without_fast: AtomicBool,
    /// `None` is write-through.
    behind: Option<Arc<Behind>>,
    writers: Tasks,
}

impl<F: BlobStore + ?Sized> Tiered<F> {
    /// Puts `fast` in front of `slow`. What is brought over goes through `spool`, which should be the fast store's own. Runs on a tokio
    /// runtime.
    pub fn new(
        fast: Arc<F>,
        slow: Arc<dyn BlobStore>,
        spool: Spool,
        options: &TieredOptions,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            uses: Uses::new(options.tell_uses_after, clock),
            fills: Fills::new(options.fills_max),
            is_without_fast: AtomicBool::new(false),
            fast,
            slow,
            spool,
            behind: None,
            writers: Tasks::default(),
        }
    }

    /// Ends all that goes on in the background. What waits to be written stays on its list.
    pub async fn close(&self) {
        self.writers.end().await;
        if let Some(behind) = &self.behind {
            behind.close().await;
        }
        self.fills.end().await;
        self.uses.end().await;
    }

    /// What waits to be written to the slow store; `None` if puts are written through.
    pub fn behind(&self) -> Option<BehindStatistics> {
        self.behind.as_deref().map(Behind::statistics)
    }

    /// Sees to it that the slow store has these blobs, whatever lies in the fast one only: what waits to be written there is written before
    /// its turn, and what it has lost is brought again. Counts as a use of them. Tells which ones neither store has.
    ///
    /// # Errors
    /// What the stores say: then some may be there.
    pub async fn write_out(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        if digests.iter().all(Digest::is_empty_blob) {
            return Ok(Vec::new());
        }
        let write_out = async {
            if let Some(behind) = &self.behind {
                behind.write_now(digests).await?;
            }
            uses::bring(digests, &*self.fast, &*self.slow, &self.spool).await
        };
        let outcome = write_out.await;
        self.note_slow(has_answered(&outcome));
        if outcome.is_ok() {
            self.uses.note(digests.iter().copied());
        }
        outcome
    }

    /// Whether the fast store has a blob.
    ///
    /// # Errors
    /// What it says.
    pub async fn fast_has(&self, digest: Digest) -> Result<bool> {
        Ok(self.fast.find_missing(&[digest]).await?.is_empty())
    }

    /// Whether the slow store did not answer the last time. Known only where puts are written behind.
    pub fn slow_is_failing(&self) -> bool {
        self.behind.as_ref().is_some_and(|behind| behind.slow_is_failing())
    }

    /// Whether the slow store is to be asked: while it does not answer, by one caller now and then, who says how it went
    /// ([`note_slow`](Self::note_slow)). Always where puts are written through.
    pub fn slow_may_be_asked(&self) -> bool {
        self.behind.as_ref().is_none_or(|behind| behind.slow_may_be_asked())
    }

    /// Notes whether the slow store answered somebody who asked it otherwise: a server that is asked for action results, too, say.
    pub fn note_slow(&self, has_answered: bool) {
        if let Some(behind) = &self.behind {
            behind.note_slow_answered(has_answered);
        }
    }

    fn pass_uses_on(&self, found_in_fast: Vec<Digest>) {
        let found = match &self.behind {
            // The slow store will have it soon, and says nothing of use until then.
            Some(behind) => found_in_fast
                .into_iter()
                .filter(|digest| !behind.holds(digest))
                .collect(),
            None => found_in_fast,
        };
        self.uses.tell(found, &self.fast, &self.slow, &self.spool);
    }

    async fn put_through(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let mut outcomes = self.slow.put_many(blobs.clone()).await;
        let (kept, stored): (Vec<usize>, Vec<Verified>) = blobs
            .into_iter()
            .enumerate()
            .filter(|(place, _)| outcomes[*place].is_ok())
            .unzip();
        self.uses.note(stored.iter().map(Verified::digest));
        for (place, outcome) in kept.into_iter().zip(self.fast.put_many(stored).await) {
            outcomes[place] = self.with_fast(outcome);
        }
        outcomes
    }

    fn with_fast(&self, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => {
                self.is_without_fast.store(false, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => self.without_fast(error),
        }
    }

    /// The slow store has the blob, so nothing is lost; but that the fast one is broken has to be seen.
    fn without_fast(&self, error: Error) -> Result<()> {
        match error.kind() {
            ErrorKind::Exhausted | ErrorKind::Unavailable => {
                if self.is_without_fast.swap(true, Ordering::Relaxed) {
                    tracing::debug!(%error, "a blob is in the slow store only");
                } else {
                    tracing::warn!(%error, store = %self.fast, "the fast store takes nothing: blobs are in the slow store only");
                }
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Where puts do not wait for the slow store, neither does the question what there is to put: what is not known is put again.
    async fn find_missing_in_slow(&self, digests: Vec<Digest>) -> Result<Vec<Digest>> {
        let Some(behind) = &self.behind else {
            return self.slow.find_missing(&digests).await;
        };
        if !behind.slow_may_be_asked() {
            return Ok(digests);
        }
        let answer = match tokio::time::timeout(ANSWER_PATIENCE, self.slow.find_missing(&digests)).await {
            Ok(answer) => answer,
            Err(_) => {
                let reason = format!("no answer came in {} s", ANSWER_PATIENCE.as_secs());
                Err(Error::new(ErrorKind::Unavailable, "find missing", reason))
            }
        };
        behind.note_slow(&answer);
        match answer {
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(digests),
            answer => answer,
        }
    }

    /// Opens what the fast store does not have, or cannot read.
    async fn get_from_slow(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        let resolved = range.resolve(digest)?;
        if resolved == (0..digest.size_bytes())
            && let Some(blob) = self.fills.get(digest, &self.fast, &self.slow, &self.spool).await?
        {
            return Ok(blob);
        }
        self.slow.get(digest, range).await
    }

    /// Reads, from the slow store, the blobs at those places for which the fast one's `outcomes` say that it does not have them.
    async fn get_what_lacks<T: Sync>(&self, digests: &[Digest], outcomes: &[Result<T>]) -> Vec<(usize, Result<Bytes>)> {
        let (mut here, mut places) = (Vec::new(), HashMap::new());
        for (place, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Err(error) if is_not_here(error) => places.entry(digests[place]).or_insert_with(Vec::new).push(place),
                _ => here.push(digests[place]),
            }
        }
        self.pass_uses_on(here);
        if places.is_empty() {
            return Vec::new();
        }
        let wanted: Vec<Digest> = places.keys().copied().collect();
        let mut read = Vec::with_capacity(wanted.len());
        for (digest, outcome) in wanted.iter().zip(self.get_many_from_slow(&wanted).await) {
            for place in &places[digest] {
                let again = match &outcome {
                    Ok(content) => Ok(content.clone()),
                    Err(error) => Err(error.again()),
                };
                read.push((*place, again));
            }
        }
        read
    }

    /// Reads small blobs that the fast store does not have, and keeps them there.
    async fn get_many_from_slow(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let read = self.slow.get_many(digests).await;
        let verified: Vec<Result<Verified>> = digests
            .iter()
            .zip(read)
            .map(|(digest, content)| verify(*digest, content))
            .collect();
        let blobs: Vec<Verified> = verified.iter().flatten().cloned().collect();
        self.uses.note(blobs.iter().map(Verified::digest));
        for outcome in self.fast.put_many(blobs).await {
            if let Err(error) = outcome {
                tracing::debug!(%error, "a blob is not kept in the fast store");
            }
        }
        let content = |blob: Verified| match blob.content() {
            Content::Bytes(bytes) => bytes.clone(),
            Content::Spooled(_) | Content::Part(..) => unreachable!("it was verified in memory"),
        };
        verified.into_iter().map(|outcome| outcome.map(content)).collect()
    }
}

impl Tiered<dyn LocalStore> {
    /// Acknowledges puts when `fast` has them, and writes them to the slow store afterwards. What is still to be written is listed in the
    /// file `list`, and is kept in `fast` until it is written: after a restart too, so `fast` has to be the same store then.
    ///
    /// # Errors
    /// If the list cannot be read or written.
    pub async fn write_behind(self, list: &Path, options: BehindOptions) -> Result<Self> {
        let (fast, slow) = (self.fast.clone(), self.slow.clone());
        let (behind, writers) = Behind::start(fast, slow, self.spool.clone(), list, options).await?;
        Ok(Self {
            behind: Some(behind),
            writers,
            ..self
        })
    }

    /// Waits until all that was put so far is in the slow store.
    pub async fn flush(&self) {
        if let Some(behind) = &self.behind {
            behind.flush().await;
        }
    }
}

/// Whether the slow store may do better.
fn is_not_here(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DataLoss)
}

#[async_trait]
impl<F: BlobStore + ?Sized> BlobStore for Tiered<F> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let not_in_fast = self.fast.find_missing(digests).await?;
        let absent: rootcellar_digest::DigestSet = not_in_fast.iter().copied().collect();
        self.pass_uses_on(
            digests
                .iter()
                .copied()
                .filter(|digest| !absent.contains(digest))
                .collect(),
        );
        if not_in_fast.is_empty() {
            return Ok(not_in_fast);
        }
        self.find_missing_in_slow(not_in_fast).await
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        match self.fast.get(digest, range).await {
            Ok(blob) => {
                self.pass_uses_on(vec![digest]);
                Ok(blob)
            }
            Err(error) if is_not_here(&error) => self.get_from_slow(digest, range).await,
            Err(error) => Err(error),
        }
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        match &self.behind {
            Some(behind) => behind.put_many(vec![blob]).await.remove(0),
            None => {
                let digest = blob.digest();
                self.slow.put(blob.clone()).await?;
                self.uses.note([digest].into_iter());
                self.with_fast(self.fast.put(blob).await)
            }
        }
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        let mut outcomes = self.fast.get_many(digests).await;
        for (place, outcome) in self.get_what_lacks(digests, &outcomes).await {
            outcomes[place] = outcome;
        }
        outcomes
    }

    async fn get_many_into(&self, digests: &[Digest], buffers: &mut [&mut [u8]]) -> Vec<Result<()>> {
        let mut outcomes = self.fast.get_many_into(digests, buffers).await;
        for (place, outcome) in self.get_what_lacks(digests, &outcomes).await {
            outcomes[place] = outcome.map(|content| buffers[place].copy_from_slice(&content));
        }
        outcomes
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        match &self.behind {
            Some(behind) => behind.put_many(blobs).await,
            None => self.put_through(blobs).await,
        }
    }

    /// The fast store's, for what it lost. Of what lies in the slow one only nobody knows, so nothing is ever said to be kept.
    fn mark(&self) -> Option<Mark> {
        self.fast.mark()
    }

    /// What is written behind is nowhere but here for a while, so others must not rely on it.
    fn has_kept_since(&self, digests: &[Digest], when: SystemTime) -> bool {
        self.behind.is_none() && self.slow.has_kept_since(digests, when)
    }
}

impl<F: BlobStore + ?Sized> fmt::Display for Tiered<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.behind.is_some() {
            "write-behind"
        } else {
            "write-through"
        };
        write!(f, "tiered({}, {how} {})", self.fast, self.slow)
    }
}

impl<F: BlobStore + ?Sized> fmt::Debug for Tiered<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiered")
            .field("fast", &self.fast)
            .field("slow", &self.slow)
            .field("behind", &self.behind())
            .finish_non_exhaustive()
    }
}
