//! Blobs that lie alone: several are forgotten, and then removed with one sync of their log.

use super::plan::{Alone, PlaceOrder, Plan};
use crate::engine::core::Engine;
use crate::engine::index::Entry;
use crate::engine::lanes::Next;
use crate::layout::Place;
use rootcellar_digest::Digest;
use std::sync::atomic::Ordering;

/// Blobs removed at once. Each costs some ten microseconds, and all of them one sync.
const BATCH_BLOBS: usize = 256;

impl Engine {
    /// Evicts the oldest blobs that lie alone, as many as are needed, up to a bound.
    pub(super) fn evict_alone(&self, oldest: Alone, plan: &mut Plan) -> Next {
        let mut wanted = self.missing_room();
        let mut victims = Vec::new();
        let mut next = Some(oldest);
        while let Some(alone) = next {
            if let Some(entry) = self.forget_alone(&alone) {
                wanted = wanted.saturating_sub(self.layout.footprint(&alone.digest));
                victims.push((alone.digest, entry));
            }
            if wanted == 0 || victims.len() >= BATCH_BLOBS {
                break;
            }
            next = plan.next_alone().filter(|alone| !self.is_protected(alone.used));
        }
        self.remove_forgotten(&victims)
    }

    /// Takes a blob out of the index, unless it is leased or was used since it was chosen.
    fn forget_alone(&self, alone: &Alone) -> Option<Entry> {
        let Alone {
            used,
            digest,
            place: PlaceOrder(place),
        } = alone;
        let leases = self.leases();
        if leases.holds(digest) {
            return None;
        }
        self.horizon.fetch_max(u64::from(*used), Ordering::SeqCst);
        self.index.remove_if(digest, *place, |entry| entry.used == *used)
    }

    fn remove_forgotten(&self, victims: &[(Digest, Entry)]) -> Next {
        if victims.is_empty() {
            return Next::Again;
        }
        let places: Vec<(Digest, Place)> = victims.iter().map(|(digest, entry)| (*digest, entry.place)).collect();
        if let Err(error) = self.layout.remove(&places) {
            tracing::error!(%error, "blobs that were to make room stay where they are");
            self.remember(victims);
            self.fail_unless_full(&error);
            return self.retry();
        }
        for (digest, entry) in victims {
            self.note_evicted(digest.size_bytes(), entry.used);
        }
        self.note_unsynced();
        self.tell_of_room();
        Next::Again
    }

    /// Takes back what could not be removed, but for what came anew meanwhile.
    fn remember(&self, victims: &[(Digest, Entry)]) {
        for (digest, entry) in victims {
            if self.index.get(digest).is_none()
                && let Err(error) = self.index.insert(digest, *entry)
            {
                tracing::warn!(%error, "a blob is absent until the next start");
            }
        }
    }
}
