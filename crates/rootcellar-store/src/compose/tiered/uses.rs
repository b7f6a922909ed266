//! Uses of blobs that the fast store answers, passed on to the slow one now and then.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use rootcellar_digest::Digest;

use crate::compose::presence::{Presence, PresenceOptions};
use crate::compose::tasks::Tasks;
use crate::compose::transfer::{batches, copy};
use crate::{BlobStore, Clock, ErrorKind, Result, Spool};

/// Blobs whose uses are remembered. Others' are told each time, which costs a question and no more.
const REMEMBERED_MAX: NonZero<usize> = NonZero::new(500_000).expect("not zero");
/// Questions under way. When there are so many, further uses are told another time.
const TELLING_MAX: usize = 8;

/// What the slow store was told of uses.
#[derive(Debug)]
pub(super) struct Uses {
    told: Arc<Presence<()>>,
    clock: Arc<dyn Clock>,
    /// The questions under way.
    telling: Tasks,
}

impl Uses {
    pub(super) fn new(tell_after: Duration, clock: Arc<dyn Clock>) -> Self {
        let options = PresenceOptions::default()
            .with_ttl(tell_after)
            .with_entries_max(REMEMBERED_MAX);
        Self {
            told: Arc::new(Presence::new(options)),
            clock,
            telling: Tasks::default(),
        }
    }

    pub(super) async fn end(&self) {
        self.telling.end().await;
    }

    /// Notes that the slow store knows of a use just now.
    pub(super) fn note(&self, digests: impl Iterator<Item = Digest>) {
        let now = self.clock.now();
        digests.for_each(|digest| self.told.note(digest, now, ()));
    }

    /// Tells the slow store of uses that it was not told for a while, in the background.
    pub(super) fn tell<F: BlobStore + ?Sized>(
        &self,
        mut digests: Vec<Digest>,
        fast: &Arc<F>,
        slow: &Arc<dyn BlobStore>,
        spool: &Spool,
    ) {
        let now = self.clock.now();
        digests.retain(|digest| !digest.is_empty_blob() && self.told.get(digest, now).is_none());
        if digests.is_empty() {
            return;
        }
        if self.telling.running() >= TELLING_MAX {
            return;
        }
        // Before the answer: whoever uses the same meanwhile need not tell it too.
        self.note(digests.iter().copied());
        let (told, fast, slow, spool) = (self.told.clone(), fast.clone(), slow.clone(), spool.clone());
        self.telling.spawn(async move {
            if let Err(error) = bring(&digests, &*fast, &*slow, &spool).await {
                tracing::debug!(%error, store = %slow, "uses could not be told, and are told with the next one");
                digests.iter().for_each(|digest| told.forget(digest));
            }
        });
    }
}

/// Has `slow` note a use of blobs, which asking is, and brings it those that it does not have. Tells which ones neither of them has.
pub(super) async fn bring<F: BlobStore + ?Sized>(
    digests: &[Digest],
    fast: &F,
    slow: &dyn BlobStore,
    spool: &Spool,
) -> Result<Vec<Digest>> {
    let missing = slow.find_missing(digests).await?;
    let mut nowhere = Vec::new();
    if missing.is_empty() {
        return Ok(nowhere);
    }
    tracing::info!(blobs = missing.len(), store = %slow, "blobs in use are missing in the slow store, and are brought again");
    for batch in batches(&missing) {
        for (digest, outcome) in batch.iter().zip(copy(fast, slow, &batch, spool).await) {
            match outcome {
                // The fast store's word counts: the slow one may say so of something else.
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DataLoss)
                        && !fast.find_missing(&[*digest]).await?.is_empty() =>
                {
                    nowhere.push(*digest);
                }
                other => other?,
            }
        }
    }
    Ok(nowhere)
}
