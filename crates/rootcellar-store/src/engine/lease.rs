//! Leases: blobs that stay where they are while somebody works with their bytes past the store.
//!
//! A blob in a pack is kept by keeping its pack: one count for all blobs of a lease that lie in it. A blob that lies alone has a
//! count of its own.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use rootcellar_digest::Digest;

use super::core::Engine;
use super::index::Flags;
use crate::layout::{Place, Region};
use crate::store::absent_once;
use crate::{Error, ErrorKind, Lease, LeaseGroups, Leased, Location, Result, SeeLocation, Shortage};
use rootcellar_digest::{DigestMap, DigestSet};

/// What may not go.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// Leases on blobs that lie alone.
    alone: DigestMap<u32>,
    /// Leases on something in a region.
    pins: BTreeMap<Region, u32>,
    /// The region that is being emptied. Nothing in it is leased from then on.
    doomed: Option<Region>,
}

impl Leases {
    /// Whether a blob that lies alone may not go.
    pub(super) fn holds(&self, digest: &Digest) -> bool {
        self.alone.contains_key(digest)
    }

    /// The blobs that lie alone and may not go.
    pub(super) fn alone(&self) -> DigestSet {
        self.alone.keys().copied().collect()
    }

    /// Whether something in a region may not go.
    pub(super) fn pins(&self, region: Region) -> bool {
        self.pins.contains_key(&region)
    }

    /// Begins to empty a region, unless something in it is leased.
    pub(super) fn doom(&mut self, region: Region) -> bool {
        assert!(self.doomed.is_none(), "one region is emptied at a time");
        let may_go = !self.pins(region);
        self.doomed = may_go.then_some(region);
        may_go
    }

    /// The region that is being emptied is gone, or is not emptied after all.
    pub(super) fn end_doom(&mut self) {
        self.doomed = None;
    }

    fn hold(&mut self, hold: &Hold) {
        match hold {
            Hold::Alone(digest) => *self.alone.entry(*digest).or_default() += 1,
            Hold::Pinned(region) => *self.pins.entry(*region).or_default() += 1,
        }
    }

    /// Tells whether nobody else holds it.
    fn release(&mut self, hold: Hold) -> bool {
        let count = match &hold {
            Hold::Alone(digest) => self.alone.get_mut(digest),
            Hold::Pinned(region) => self.pins.get_mut(region),
        };
        let count = count.expect("what is held is counted");
        *count -= 1;
        if *count > 0 {
            return false;
        }
        match hold {
            Hold::Alone(digest) => self.alone.remove(&digest),
            Hold::Pinned(region) => self.pins.remove(&region),
        };
        true
    }
}

/// One part of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hold {
    Alone(Digest),
    Pinned(Region),
}

/// What a look at all blobs of a lease showed.
enum Tried {
    /// What each group holds.
    Held(Vec<Vec<Hold>>),
    Missing(Vec<Digest>),
    /// A blob came back meanwhile, and has to be checked.
    NotChecked,
    /// A blob is being moved.
    Doomed,
}

impl Engine {
    /// Leased bytes are read past the store, so what was not read since the start is hashed first.
    pub(super) async fn lease(self: &Arc<Self>, digests: &[Digest]) -> Result<Leased> {
        Ok(match self.hold(digests, &[digests.len()], None).await? {
            Leased::Held(mut one) => Leased::Held(one.pop().expect("as many leases as groups")),
            Leased::Missing(missing) => Leased::Missing(missing),
        })
    }

    pub(super) async fn lease_each(
        self: &Arc<Self>,
        groups: &LeaseGroups<'_>,
        see: &mut SeeLocation<'_>,
    ) -> Result<Leased<Vec<Lease>>> {
        let mut places = Vec::new();
        let leased = self.hold(groups.digests(), groups.ends(), Some(&mut places)).await?;
        if matches!(leased, Leased::Held(_)) {
            self.show(groups.digests(), &places, see);
        }
        Ok(leased)
    }

    fn show(&self, digests: &[&Digest], places: &[Option<Place>], see: &mut SeeLocation<'_>) {
        // What was put together lies in one region, and often comes together again.
        let mut latest: Option<(Region, Arc<Path>)> = None;
        let mut path = |digest: &Digest, place: Place| match &latest {
            Some((region, path)) if *region == place.region() && *region != Region::ALONE => path.clone(),
            _ => {
                let path = self.layout.path(digest, place);
                latest = Some((place.region(), path.clone()));
                path
            }
        };
        for (digest, place) in digests.iter().zip(places) {
            see(place.map(|place| self.location(path(digest, place), place)));
        }
    }

    /// Takes a lease for each group of digests, which ends where `ends` says, or tells what is missing; and where each blob lies if that is
    /// asked.
    async fn hold<D: Borrow<Digest>>(
        self: &Arc<Self>,
        digests: &[D],
        ends: &[usize],
        mut places: Option<&mut Vec<Option<Place>>>,
    ) -> Result<Leased<Vec<Lease>>> {
        loop {
            let doom_ended = self.doom_ended.notified();
            match self.try_lease(digests, ends, places.as_deref_mut()) {
                Tried::Held(groups) => return Ok(Leased::Held(self.held(groups))),
                Tried::Missing(missing) => return Ok(Leased::Missing(missing)),
                Tried::NotChecked => self.check_once(digests).await?,
                Tried::Doomed => doom_ended.await,
            }
        }
    }

    /// Hashes what was not read since the start. A damaged blob is missing after that.
    async fn check_once<D: Borrow<Digest>>(self: &Arc<Self>, digests: &[D]) -> Result<()> {
        let mut named = DigestSet::default();
        let digests = digests.iter().map(|digest| *digest.borrow());
        let digests: Vec<Digest> = digests.filter(|digest| named.insert(*digest)).collect();
        for outcome in self.ensure_checked(&digests).await {
            match outcome {
                Err(error) if error.kind() != ErrorKind::DataLoss => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn held(self: &Arc<Self>, groups: Vec<Vec<Hold>>) -> Vec<Lease> {
        let held = |holds| Held {
            engine: self.clone(),
            holds,
        };
        groups.into_iter().map(|holds| Lease::new(held(holds))).collect()
    }

    /// A lease, if all blobs are present and checked.
    #[cfg(feature = "testing")]
    pub(super) fn lease_now(self: &Arc<Self>, digests: &[Digest]) -> Option<Lease> {
        match self.try_lease(digests, &[digests.len()], None) {
            Tried::Held(groups) => self.held(groups).pop(),
            Tried::Missing(_) | Tried::NotChecked | Tried::Doomed => None,
        }
    }

    fn try_lease<D: Borrow<Digest>>(
        &self,
        digests: &[D],
        ends: &[usize],
        mut places: Option<&mut Vec<Option<Place>>>,
    ) -> Tried {
        if let Some(places) = &mut places {
            places.clear();
            places.reserve(digests.len());
        }
        let used = self.tick();
        let mut leases = self.leases();
        let mut groups = Vec::with_capacity(ends.len());
        let (mut is_complete, mut is_checked, mut is_doomed) = (true, true, false);
        let mut begin = 0;
        for end in ends {
            let (mut holds, mut regions) = (Vec::new(), BTreeSet::new());
            let mut latest = Region::ALONE;
            for digest in digests[begin..*end].iter().map(Borrow::borrow) {
                let entry = match digest.is_empty_blob() {
                    true => None,
                    false => self.touch_entry(digest, used),
                };
                if let Some(places) = &mut places {
                    places.push(entry.map(|entry| entry.place));
                }
                let Some(entry) = entry else {
                    is_complete &= digest.is_empty_blob();
                    continue;
                };
                let region = entry.place.region();
                is_checked &= entry.flags.has(Flags::VERIFIED);
                is_doomed |= leases.doomed == Some(region);
                // One pin for each region is enough.
                if region == Region::ALONE {
                    holds.push(Hold::Alone(*digest));
                } else if region != latest {
                    regions.insert(region);
                    latest = region;
                }
            }
            holds.sort_unstable();
            holds.dedup();
            holds.extend(regions.into_iter().map(Hold::Pinned));
            groups.push(holds);
            begin = *end;
        }
        if !is_complete {
            return Tried::Missing(absent_once(digests, |digest| self.index.get(&digest).is_some()));
        }
        if !is_checked {
            return Tried::NotChecked;
        }
        if is_doomed {
            return Tried::Doomed;
        }
        groups.iter().flatten().for_each(|hold| leases.hold(hold));
        Tried::Held(groups)
    }

    pub(super) fn locate(&self, digest: Digest) -> Result<Location> {
        if digest.is_empty_blob() {
            return Err(Error::not_found("locate", digest));
        }
        let entry = self.index.get(&digest);
        let entry = entry.ok_or_else(|| Error::not_found("locate", digest))?;
        let path = self.layout.path(&digest, entry.place);
        Ok(self.location(path, entry.place))
    }

    fn location(&self, path: Arc<Path>, place: Place) -> Location {
        match place.region() {
            Region::ALONE => Location::Loose { path },
            _ => Location::Packed {
                path,
                offset: self.layout.first_byte(place),
            },
        }
    }

    /// Asks those who keep leases to let go of some. Tells whether any did.
    pub(super) fn ask_lease_holders(&self, shortage: Shortage) -> bool {
        let mut holders = Vec::new();
        self.lease_holders().retain(|holder| {
            let holder = holder.upgrade();
            let is_there = holder.is_some();
            holders.extend(holder);
            is_there
        });
        // Not under the lock: whoever lets go may take a while.
        let let_go: Vec<bool> = holders.iter().map(|holder| holder.let_go(shortage)).collect();
        let_go.contains(&true)
    }

    /// Bytes that leases keep.
    pub(super) fn leased_bytes(&self) -> u64 {
        let leases = self.leases();
        let alone: u64 = leases.alone.keys().map(|digest| self.layout.footprint(digest)).sum();
        let sizes = self.layout.sizes().into_iter();
        let pinned = sizes.filter(|size| leases.pins(size.region)).map(|size| size.bytes);
        alone + pinned.sum::<u64>()
    }
}

/// What a lease holds. Dropping it ends the lease.
struct Held {
    engine: Arc<Engine>,
    holds: Vec<Hold>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut leases = self.engine.leases();
        let mut is_free = false;
        for hold in self.holds.drain(..) {
            is_free |= leases.release(hold);
        }
        drop(leases);
        if is_free {
            // What could not go before may go now.
            self.engine.waker.wake(super::lanes::Lane::Upkeep);
        }
    }
}
