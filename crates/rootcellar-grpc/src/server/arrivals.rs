//! News of blobs that arrive while others still upload them.
//!
//! Two clients often upload one blob at the same time. When the first is done the second is told so and stops sending (API:
//! `ByteStream.Write` ends early once the blob exists). Whoever uploads registers its digest here and hears of the first copy,
//! whichever way that copy came.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rootcellar_digest::Digest;
use tokio::sync::watch;

/// Who waits for which blob. Its size is the number of uploads under way.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    awaited: Mutex<HashMap<Digest, Arc<watch::Sender<bool>>>>,
}

impl Arrivals {
    /// Starts to listen for the arrival of `digest`'s blob.
    pub(crate) fn expect(self: &Arc<Self>, digest: Digest) -> Arrival {
        let mut awaited = self.awaited();
        let sender = awaited
            .entry(digest)
            .or_insert_with(|| Arc::new(watch::Sender::new(false)));
        Arrival {
            arrivals: self.clone(),
            digest,
            news: sender.subscribe(),
        }
    }

    /// Tells all who listen that `digest`'s blob is stored.
    pub(crate) fn announce(&self, digest: Digest) {
        self.announce_all([digest]);
    }

    /// The same for several, of which most are awaited by nobody.
    pub(crate) fn announce_all(&self, digests: impl IntoIterator<Item = Digest>) {
        let mut awaited = self.awaited();
        if awaited.is_empty() {
            return;
        }
        let senders: Vec<_> = digests
            .into_iter()
            .filter_map(|digest| awaited.remove(&digest))
            .collect();
        drop(awaited);
        for sender in senders {
            sender.send_replace(true);
        }
    }

    fn awaited(&self) -> MutexGuard<'_, HashMap<Digest, Arc<watch::Sender<bool>>>> {
        // Each change is one call on the map: a panic elsewhere leaves nothing half-done.
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens for one blob until it is dropped.
#[derive(Debug)]
pub(crate) struct Arrival {
    arrivals: Arc<Arrivals>,
    digest: Digest,
    news: watch::Receiver<bool>,
}

impl Arrival {
    /// Waits until the blob is stored. Can be dropped and called again.
    pub(crate) async fn arrived(&mut self) {
        // The sender goes away only after it said that the blob is there, or with this listener.
        let _closed_or_seen = self.news.wait_for(|arrived| *arrived).await.is_ok();
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut awaited = self.arrivals.awaited();
        let is_last = awaited
            .get(&self.digest)
            .is_some_and(|sender| sender.receiver_count() == 1 && self.news.same_channel(&sender.subscribe()));
        if is_last {
            awaited.remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use rootcellar_digest::DigestFunction;

    use super::*;

    #[tokio::test]
    async fn every_listener_hears_of_an_arrival_and_nothing_is_left_behind() {
        let arrivals = Arc::new(Arrivals::default());
        let digest = Digest::of(DigestFunction::Sha256, b"awaited");
        let (mut first, mut second) = (arrivals.expect(digest), arrivals.expect(digest));
        arrivals.announce(digest);
        first.arrived().await;
        second.arrived().await;

        let unheard = arrivals.expect(digest);
        let other = arrivals.expect(digest);
        drop(first);
        drop(unheard);
        assert_eq!(arrivals.awaited().len(), 1, "one still listens");
        drop(other);
        assert!(arrivals.awaited().is_empty());
    }
}
