//! Blobs that lie alone: several are forgotten, and then removed with one sync of their log.

use super::plan::{Alone, PlaceOrder, Plan};
use crate::engine::core::Engine;
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
            if self.forget_alone(&alone) {
                let bytes = alone.digest.size_bytes();
                wanted = wanted.saturating_sub(bytes);
                self.note_evicted(bytes, alone.used);
                victims.push((alone.digest, alone.place.0));
            }
            if wanted == 0 || victims.len() >= BATCH_BLOBS {
                break;
            }
            next = plan
                .next_alone()
                .filter(|alone| !self.is_protected(&super::Unit::Alone(*alone)));
        }
        self.remove_forgotten(&victims)
    }

    /// Takes a blob out of the index, unless it is leased or was used since it was chosen.
    fn forget_alone(&self, alone: &Alone) -> bool {
        let Alone {
            used,
            digest,
            place: PlaceOrder(place),
        } = alone;
        let leases = self.leases();
        if leases.holds(digest) {
            return false;
        }
        self.horizon.fetch_max(u64::from(*used), Ordering::SeqCst);
        self.index
            .remove_if(digest, *place, |entry| entry.used == *used)
            .is_some()
    }

    fn remove_forgotten(&self, victims: &[(Digest, Place)]) -> Next {
        if victims.is_empty() {
            return Next::Again;
        }
        if let Err(error) = self.layout.remove(victims) {
            tracing::error!(%error, "evicted blobs could not be removed from the disk");
            self.fail_unless_full(&error);
            return self.retry();
        }
        self.note_unsynced();
        self.tell_of_room();
        Next::Again
    }
}
