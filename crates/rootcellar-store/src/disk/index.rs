//! The index in memory: which blobs there are, when each was used, and which may go.
//!
//! ```text
//!            claim                    enter
//!   absent ─────────> being put ─────────────────> present (unchecked after a start, checked once read or put here)
//!     ^                                               │ claim for checking / for removal
//!     └──────────── its file removed <────────────────┘
//! ```
//!
//! A claim belongs to one job, and whoever needs the blob meanwhile waits for the claim's end: so a blob's file is never
//! written and removed at once. Nothing here touches the disk; the lock around it is held for moments.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use lru::LruCache;
use rootcellar_digest::Digest;
use tokio::sync::watch;

use super::loose::charge;
use super::options::{DiskOptions, WhenFull};
use super::statistics::Counters;

/// A use is written to a blob's file at most this often, so what a restart knows of it is at most so old.
pub(super) const TOUCH_INTERVAL: Duration = Duration::from_secs(3600);

/// Waits for the end of a claim: its `changed` returns then.
pub(super) type ClaimEnd = watch::Receiver<()>;

#[derive(Debug)]
pub(super) struct Index {
    entries: LruCache<Digest, Entry>,
    claims: HashMap<Digest, watch::Sender<()>>,
    /// The sum of the entries' charges, and of those with a lease.
    bytes: u64,
    leased_bytes: u64,
    /// Charges of blobs that are being put.
    reserved: u64,
    next_epoch: u64,
    /// Uses to be written to the disk: at most one for each blob in each interval.
    stale: Vec<Digest>,
    bytes_max: u64,
    min_lifetime: Duration,
    when_full: WhenFull,
    pub(super) counters: Counters,
}

#[derive(Debug)]
struct Entry {
    used: SystemTime,
    used_on_disk: SystemTime,
    /// Tells this entry from an earlier one of the same blob.
    epoch: u64,
    leases: u32,
    is_checked: bool,
}

/// What a job that needs to work on a blob finds.
#[derive(Debug)]
pub(super) enum Claimed {
    /// Nothing is to be done.
    Done,
    /// The caller has the claim, and has to release it.
    Mine,
    /// Another job has it.
    Theirs(ClaimEnd),
}

/// Why there is no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// What may be evicted is not enough.
    Leased,
    /// What may be evicted was used too lately.
    Young,
}

/// One blob's part of a lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    digest: Digest,
    epoch: u64,
}

impl Index {
    pub(super) fn new(options: &DiskOptions) -> Self {
        Self {
            entries: LruCache::unbounded(),
            claims: HashMap::new(),
            bytes: 0,
            leased_bytes: 0,
            reserved: 0,
            next_epoch: 0,
            stale: Vec::new(),
            bytes_max: options.bytes_max,
            min_lifetime: options.min_lifetime,
            when_full: options.when_full,
            counters: Counters::default(),
        }
    }

    pub(super) fn contains(&self, digest: Digest) -> bool {
        self.entries.contains(&digest)
    }

    /// Whether a blob is present; counts as a use.
    pub(super) fn touch(&mut self, digest: Digest, now: SystemTime) -> bool {
        let Some(entry) = self.entries.get_mut(&digest) else {
            return false;
        };
        entry.used = now;
        if age(entry.used_on_disk, now) >= TOUCH_INTERVAL {
            entry.used_on_disk = now;
            self.stale.push(digest);
        }
        true
    }

    /// The uses that are to be written to the disk.
    pub(super) fn take_stale(&mut self) -> Vec<(Digest, SystemTime)> {
        let stale = std::mem::take(&mut self.stale);
        let used = |digest| self.entries.peek(&digest).map(|entry| (digest, entry.used));
        stale.into_iter().filter_map(used).collect()
    }

    /// Adds a blob that was found at the start. Oldest first.
    pub(super) fn restore(&mut self, digest: Digest, used_on_disk: SystemTime, now: SystemTime) {
        // What the disk does not know of the last hour is granted, so that no restart breaks the promise of a lifetime.
        let used = used_on_disk
            .checked_add(TOUCH_INTERVAL)
            .map_or(now, |used| used.min(now));
        self.add(digest, used, used_on_disk, false);
    }

    /// Adds a blob that was put, in the place of its reservation.
    pub(super) fn enter(&mut self, digest: Digest, now: SystemTime) {
        self.unreserve(charge(digest));
        self.add(digest, now, now, true);
    }

    fn add(&mut self, digest: Digest, used: SystemTime, used_on_disk: SystemTime, is_checked: bool) {
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        let entry = Entry {
            used,
            used_on_disk,
            epoch,
            leases: 0,
            is_checked,
        };
        self.bytes += charge(digest);
        let previous = self.entries.put(digest, entry);
        assert!(
            previous.is_none(),
            "{digest} is entered by the one who claimed it while absent"
        );
    }

    /// Forgets a blob whose content is not there any more.
    pub(super) fn remove(&mut self, digest: Digest) {
        if let Some(entry) = self.entries.pop(&digest) {
            self.bytes -= charge(digest);
            if entry.leases > 0 {
                self.leased_bytes -= charge(digest);
            }
        }
    }

    /// Claims a blob to put it, unless it is present.
    pub(super) fn claim_absent(&mut self, digest: Digest, now: SystemTime) -> Claimed {
        if self.touch(digest, now) {
            return Claimed::Done;
        }
        self.claim(digest)
    }

    /// Claims a blob to check its content, unless it is absent or was checked.
    pub(super) fn claim_unchecked(&mut self, digest: Digest) -> Claimed {
        match self.entries.peek(&digest) {
            Some(entry) if !entry.is_checked => self.claim(digest),
            _ => Claimed::Done,
        }
    }

    /// Claims a blob to remove it, unless it is absent.
    pub(super) fn claim_present(&mut self, digest: Digest) -> Claimed {
        if self.entries.contains(&digest) {
            return self.claim(digest);
        }
        Claimed::Done
    }

    fn claim(&mut self, digest: Digest) -> Claimed {
        if let Some(claim) = self.claims.get(&digest) {
            return Claimed::Theirs(claim.subscribe());
        }
        self.claims.insert(digest, watch::Sender::new(()));
        Claimed::Mine
    }

    /// Ends a claim; all who wait for it go on.
    pub(super) fn release(&mut self, digest: Digest) {
        let claim = self.claims.remove(&digest);
        assert!(claim.is_some(), "{digest} is released once, by the one who claimed it");
    }

    pub(super) fn set_checked(&mut self, digest: Digest) {
        if let Some(entry) = self.entries.peek_mut(&digest) {
            entry.is_checked = true;
        }
    }

    /// Reserves `bytes` and takes out of the index what has to go for them: the blobs used longest ago. The caller has
    /// the claims on those. Nothing changes if there is no room.
    pub(super) fn reserve(&mut self, bytes: u64, others: u64, now: SystemTime) -> Result<Vec<Digest>, NoRoom> {
        let wanted = self.bytes.saturating_add(self.reserved).saturating_add(others);
        let excess = wanted.saturating_add(bytes).saturating_sub(self.bytes_max);
        if excess > self.bytes - self.leased_bytes {
            return Err(NoRoom::Leased);
        }
        let victims = self.choose_victims(excess, now)?;
        for victim in &victims {
            self.evict(*victim, now);
        }
        self.reserved += bytes;
        Ok(victims)
    }

    pub(super) fn unreserve(&mut self, bytes: u64) {
        self.reserved -= bytes;
    }

    fn choose_victims(&mut self, excess: u64, now: SystemTime) -> Result<Vec<Digest>, NoRoom> {
        let (mut victims, mut freed, mut in_use) = (Vec::new(), 0, Vec::new());
        let mut outcome = Ok(());
        for (digest, entry) in self.entries.iter().rev() {
            if freed >= excess {
                break;
            }
            if entry.leases > 0 || self.claims.contains_key(digest) {
                in_use.push(*digest);
                continue;
            }
            if self.when_full == WhenFull::Refuse && age(entry.used, now) < self.min_lifetime {
                outcome = Err(NoRoom::Young);
                break;
            }
            freed += charge(*digest);
            victims.push(*digest);
        }
        // What is in use is used now: the next search does not meet it again at the cold end.
        for digest in in_use {
            self.touch(digest, now);
        }
        outcome?;
        if freed < excess {
            return Err(NoRoom::Leased);
        }
        Ok(victims)
    }

    fn evict(&mut self, victim: Digest, now: SystemTime) {
        let entry = self
            .entries
            .peek(&victim)
            .expect("a victim was chosen among the entries");
        let lived = age(entry.used, now);
        self.counters.evicted(charge(victim), lived, self.min_lifetime);
        self.remove(victim);
        let claim = self.claim(victim);
        assert!(matches!(claim, Claimed::Mine), "a claimed blob is no victim");
    }

    /// Leases all of `digests` if all are present and checked.
    pub(super) fn lease(&mut self, digests: &[Digest], now: SystemTime) -> Option<Vec<Hold>> {
        let is_ready = |digest| self.entries.peek(digest).is_some_and(|entry| entry.is_checked);
        if !digests.iter().all(is_ready) {
            return None;
        }
        let hold = |digest: &Digest| {
            self.touch(*digest, now);
            let entry = self.entries.peek_mut(digest).expect("all are present");
            if entry.leases == 0 {
                self.leased_bytes += charge(*digest);
            }
            entry.leases += 1;
            Hold {
                digest: *digest,
                epoch: entry.epoch,
            }
        };
        Some(digests.iter().map(hold).collect())
    }

    pub(super) fn end_lease(&mut self, hold: Hold) {
        let entry = self.entries.peek_mut(&hold.digest);
        // A leased blob that turned out to be damaged is gone, or came anew without this lease.
        let Some(entry) = entry.filter(|entry| entry.epoch == hold.epoch) else {
            return;
        };
        entry.leases -= 1;
        if entry.leases == 0 {
            self.leased_bytes -= charge(hold.digest);
        }
    }

    pub(super) fn blobs(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn leased_bytes(&self) -> u64 {
        self.leased_bytes
    }
}

/// How long ago `used` was; nothing if the clock went back.
fn age(used: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(used).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rootcellar_digest::DigestFunction;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn digest(n: u8) -> Digest {
        Digest::of(DigestFunction::Sha256, &[n])
    }

    /// An index of two blobs, with room for no third.
    fn full() -> Index {
        let mut index = Index::new(&DiskOptions {
            bytes_max: 2 * charge(digest(0)),
            ..DiskOptions::default()
        });
        for n in [0, 1] {
            assert_eq!(index.reserve(charge(digest(n)), 0, NOW), Ok(Vec::new()));
            index.enter(digest(n), NOW);
        }
        index
    }

    #[test]
    fn a_victim_cannot_be_put_again_before_its_file_is_removed() {
        let mut index = full();
        assert_eq!(index.reserve(charge(digest(2)), 0, NOW), Ok(vec![digest(0)]));
        assert!(!index.contains(digest(0)));
        let Claimed::Theirs(end) = index.claim_absent(digest(0), NOW) else {
            panic!("the one who removes the file has the claim")
        };
        assert!(end.has_changed().is_ok());
        index.release(digest(0));
        assert!(end.has_changed().is_err(), "the wait is over");
        assert!(matches!(index.claim_absent(digest(0), NOW), Claimed::Mine));
    }

    #[test]
    fn what_is_being_checked_is_not_evicted() {
        let mut index = full();
        index.remove(digest(0));
        index.restore(digest(0), NOW, NOW);
        assert!(matches!(index.claim_unchecked(digest(0)), Claimed::Mine));
        assert_eq!(index.reserve(charge(digest(2)), 0, NOW), Ok(vec![digest(1)]));
        assert_eq!(index.reserve(charge(digest(3)), 0, NOW), Err(NoRoom::Leased));
        index.release(digest(0));
        assert_eq!(index.reserve(charge(digest(3)), 0, NOW), Ok(vec![digest(0)]));
    }

    #[test]
    fn a_refused_reservation_changes_nothing() {
        let mut index = full();
        let holds = index.lease(&[digest(0)], NOW).unwrap();
        assert_eq!(index.reserve(2 * charge(digest(2)), 0, NOW), Err(NoRoom::Leased));
        assert_eq!((index.blobs(), index.bytes()), (2, 2 * charge(digest(0))));
        holds.into_iter().for_each(|hold| index.end_lease(hold));
        assert_eq!(
            index.reserve(2 * charge(digest(2)), 0, NOW),
            Ok(vec![digest(1), digest(0)])
        );
    }
}
