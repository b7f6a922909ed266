//! The first read of a blob after a start hashes all of it, before a byte is handed out.
//!
//! What is damaged is dropped, and absent from then on. What was put since the start needs no check. Two who read a blob first at
//! once both hash it, unless it is large: then one of them waits for the other.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rootcellar_digest::Digest;
use tokio::sync::watch;

use super::check::{Check, check};
use super::core::Engine;
use super::index::{Entry, Flags};
use crate::{Error, ErrorKind, Result};

/// Blobs above this size are hashed by one reader at a time.
const SHARED_BYTES: u64 = 1 << 20;

/// The large blobs that are being hashed, and who can be waited for.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Digest, watch::Sender<()>>>);

impl Flights {
    fn flights(&self) -> MutexGuard<'_, HashMap<Digest, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A blob that this caller hashes. Dropping it lets others go on.
struct Flight {
    engine: Arc<Engine>,
    digest: Digest,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.engine.flights.flights().remove(&self.digest);
    }
}

impl Engine {
    /// Hashes those of `digests` that were neither put nor read since the start: one outcome for each. Damaged ones are
    /// absent then. Absent ones are no error here.
    pub(super) async fn ensure_checked(self: &Arc<Self>, digests: &[Digest]) -> Vec<Result<()>> {
        let mut outcomes: Vec<Result<()>> = digests.iter().map(|_| Ok(())).collect();
        let mut unchecked = Vec::new();
        for (at, digest) in digests.iter().enumerate() {
            if self.is_unchecked(digest) {
                unchecked.push((at, *digest, self.take_off(*digest).await));
            }
        }
        if unchecked.is_empty() {
            return outcomes;
        }
        let check = |engine: &Arc<Self>| {
            let check = |(at, digest, flight)| {
                let outcome = engine.check_first(digest);
                drop(flight);
                (at, outcome)
            };
            unchecked.into_iter().map(check).collect::<Vec<(usize, Result<()>)>>()
        };
        for (at, outcome) in self.hop(check).await {
            outcomes[at] = outcome;
        }
        outcomes
    }

    fn is_unchecked(&self, digest: &Digest) -> bool {
        let entry = self.index.get(digest);
        entry.is_some_and(|entry| !entry.flags.has(Flags::VERIFIED))
    }

    /// Waits until nobody else hashes a large blob.
    async fn take_off(self: &Arc<Self>, digest: Digest) -> Option<Flight> {
        if digest.size_bytes() <= SHARED_BYTES {
            return None;
        }
        loop {
            let mut landing = match self.flights.flights().entry(digest) {
                std::collections::hash_map::Entry::Occupied(flight) => flight.get().subscribe(),
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(watch::Sender::new(()));
                    let engine = self.clone();
                    return Some(Flight { engine, digest });
                }
            };
            // An error says that the other one has ended, which is what is waited for.
            let _landed = landing.changed().await;
        }
    }

    /// Hashes a blob if it was not yet, and drops it if it is damaged. Blocks.
    pub(super) fn check_first(&self, digest: Digest) -> Result<()> {
        if !self.is_unchecked(&digest) {
            return Ok(());
        }
        let (entry, extent) = match self.open(digest) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match check(digest, &extent) {
            Ok(Check::Whole(checksum)) => {
                self.index.set_verified(&digest, entry.place, checksum);
                Ok(())
            }
            Ok(Check::Damaged(reason)) => {
                self.drop_damaged(digest, entry.place, &reason);
                Err(Error::new(ErrorKind::DataLoss, "get", reason).on(digest))
            }
            Err(error) => Err(Error::io("get", "checking the blob", error).on(digest)),
        }
    }

    /// Looks again at a blob that could not be read, and drops it if it is damaged or gone. Blocks.
    pub(super) fn look_again(&self, digest: Digest, entry: Entry) {
        let outcome = self.layout.open(&digest, entry.place);
        let outcome = outcome.and_then(|extent| check(digest, &extent));
        match outcome {
            Ok(Check::Whole(_)) => {}
            Ok(Check::Damaged(reason)) => self.drop_damaged(digest, entry.place, &reason),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.drop_damaged(digest, entry.place, "its file is gone");
            }
            Err(error) if crate::blob::is_damage(&error) => {
                self.drop_damaged(digest, entry.place, &error.to_string());
            }
            Err(error) => tracing::warn!(%digest, %error, "a blob cannot be checked now"),
        }
    }
}
