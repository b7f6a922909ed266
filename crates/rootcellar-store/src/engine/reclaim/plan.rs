//! What goes first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rootcellar_digest::Digest;

use super::ages::Ages;
use super::old::{Old, PART_TO_GO};
use crate::engine::core::Engine;
use crate::engine::index::Scanned;
use crate::layout::{Place, Region, RegionSize};

/// Blobs that lie alone which one plan names: enough that looking at the whole index for them does not count.
const ALONE_MAX: usize = 4096;
/// The part of all packs that one plan names. The rest is left to the next one, which knows what is young by then.
const PLANNED_PART: usize = 8;
/// Packs whose blobs are looked for in the index at once, for the same reason: a thirty-second of a store or so.
const PACKS_AT_ONCE: usize = 32;

/// A blob that lies alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Alone {
    /// First, so that blobs are ordered by their use.
    pub(super) used: u32,
    pub(super) digest: Digest,
    pub(super) place: PlaceOrder,
}

/// A place, ordered as its numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlaceOrder(pub(super) Place);

impl PartialOrd for PlaceOrder {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PlaceOrder {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |place: &Self| (place.0.region(), place.0.offset());
        key(self).cmp(&key(other))
    }
}

/// A region, in the order in which regions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pack {
    /// The latest use of the half of it that was used longest ago. First, as above.
    pub(super) used: u32,
    pub(super) region: Region,
    /// Bytes that come back.
    pub(super) bytes: u64,
}

/// What can go at once.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    Alone(Alone),
    Pack(Pack),
}

/// Units in the order in which they are to go, those that go first last.
#[derive(Debug)]
pub(super) struct Plan {
    alone: Vec<Alone>,
    packs: Vec<Pack>,
    /// What was used until then is less than half of the store, and goes along with a pack that goes.
    old_until: u32,
    /// What is in the packs that go next.
    contents: BTreeMap<Region, Contents>,
}

/// Blobs, and where they were seen.
pub(super) type Contents = Vec<(Digest, Place)>;

impl Plan {
    /// The unit that goes next.
    pub(super) fn next(&mut self) -> Option<Unit> {
        match self.next_alone() {
            Some(alone) => Some(Unit::Alone(alone)),
            None => self.packs.pop().map(Unit::Pack),
        }
    }

    /// The blob that lies alone and goes next, if no pack goes before it.
    pub(super) fn next_alone(&mut self) -> Option<Alone> {
        let pack = self.packs.last().map_or(u32::MAX, |pack| pack.used);
        self.alone.pop_if(|alone| alone.used <= pack)
    }

    /// By what the next unit is ordered.
    fn next_used(&self) -> Option<u32> {
        let alone = self.alone.last().map(|alone| alone.used);
        let pack = self.packs.last().map(|pack| pack.used);
        alone.into_iter().chain(pack).min()
    }

    fn put_back(&mut self, pack: Pack, contents: Contents) {
        let at = self.packs.partition_point(|other| *other > pack);
        self.packs.insert(at, pack);
        self.contents.insert(pack.region, contents);
    }
}

impl Engine {
    /// Looks at the whole index, and chooses.
    pub(super) fn plan(&self) -> Plan {
        let now = self.tick();
        // Before the index is looked at: then all blobs of a region that is not open are in it.
        let sizes = self.regions();
        let leased = self.leases().alone();
        let mut ages: BTreeMap<Region, Ages> = BTreeMap::new();
        let mut all_ages = Ages::new();
        let mut oldest: BinaryHeap<Alone> = BinaryHeap::new();
        self.index.scan(|Scanned { digest, entry }| {
            let (age, bytes) = (now.saturating_sub(entry.used), self.layout.footprint(&digest));
            all_ages.add(age, bytes);
            if entry.place.region() == Region::ALONE {
                if leased.contains(&digest) {
                    return;
                }
                keep_oldest(
                    &mut oldest,
                    Alone {
                        used: entry.used,
                        digest,
                        place: PlaceOrder(entry.place),
                    },
                );
            } else {
                let ages = ages.entry(entry.place.region()).or_insert_with(Ages::new);
                ages.add(age, bytes);
            }
        });
        let mut alone = oldest.into_sorted_vec();
        alone.reverse();
        let mut packs = self.order_packs(&sizes, now, &ages);
        leave_later(&mut alone, &mut packs);
        Plan {
            alone,
            packs,
            old_until: now.saturating_sub(all_ages.of_oldest_within(all_ages.sum() / PART_TO_GO)),
            contents: BTreeMap::new(),
        }
    }

    /// Looks at a pack again that the plan has told to go, since its blobs may have been used meanwhile: what is old in it, and
    /// all that is in it, or `None` if something else is to go before it now.
    pub(super) fn look_into(&self, planned: Pack, plan: &mut Plan) -> Option<(Old, Contents)> {
        if !plan.contents.contains_key(&planned.region) {
            let next = plan.packs.iter().rev().take(PACKS_AT_ONCE - 1);
            let next = next.map(|pack| pack.region).chain([planned.region]);
            plan.contents = self.contents(next);
        }
        let contents = plan.contents.remove(&planned.region).unwrap_or_default();
        let old = self.old_in(planned, &contents, plan.old_until);
        if plan.next_used().is_some_and(|used| used < old.least.until) {
            let used = old.least.until;
            plan.put_back(Pack { used, ..planned }, contents);
            return None;
        }
        Some((old.all, contents))
    }

    /// The blobs of regions that are not open, and maybe some that go just now.
    pub(super) fn contents(&self, regions: impl Iterator<Item = Region>) -> BTreeMap<Region, Contents> {
        let mut contents: BTreeMap<_, _> = regions.map(|region| (region, Vec::new())).collect();
        self.index.scan(|Scanned { digest, entry }| {
            if let Some(blobs) = contents.get_mut(&entry.place.region()) {
                blobs.push((digest, entry.place));
            }
        });
        contents
    }

    fn order_packs(&self, sizes: &[RegionSize], now: u32, ages: &BTreeMap<Region, Ages>) -> Vec<Pack> {
        let leases = self.leases();
        let doubtful = self.doubtful();
        let mut packs = Vec::new();
        for size in sizes {
            let is_busy = size.is_open || doubtful.regions.contains(&size.region);
            if size.region == Region::ALONE || is_busy || leases.pins(size.region) {
                continue;
            }
            let used = ages.get(&size.region).map_or(0, |ages| {
                let lost = size.bytes.saturating_sub(ages.sum());
                let age = ages.of_oldest((size.bytes / PART_TO_GO).saturating_sub(lost));
                now.saturating_sub(age)
            });
            packs.push(Pack {
                used,
                region: size.region,
                bytes: size.bytes,
            });
        }
        packs.sort_unstable_by_key(|pack| Reverse(*pack));
        packs
    }
}

/// Leaves to the next plan what does not belong into this one, and what goes after that.
fn leave_later(alone: &mut Vec<Alone>, packs: &mut Vec<Pack>) {
    let is_alone_complete = alone.len() < ALONE_MAX;
    let youngest_alone = alone.first().map(|alone| alone.used);
    let later = packs.len() - packs.len().div_ceil(PLANNED_PART);
    let named = packs.split_off(later);
    if let Some(next) = packs.last() {
        alone.retain(|alone| alone.used <= next.used);
    }
    *packs = named;
    if !is_alone_complete {
        packs.retain(|pack| Some(pack.used) <= youngest_alone);
    }
}

fn keep_oldest(oldest: &mut BinaryHeap<Alone>, alone: Alone) {
    if oldest.len() < ALONE_MAX {
        oldest.push(alone);
        return;
    }
    let mut youngest = oldest.peek_mut().expect("there are as many as are kept");
    if alone < *youngest {
        *youngest = alone;
    }
}

#[cfg(test)]
mod tests {
    use rootcellar_digest::DigestFunction;

    use super::*;

    /// Each in the order in which a plan has them: the oldest last.
    fn units(alone: impl Iterator<Item = u32>, packs: impl Iterator<Item = u32>) -> (Vec<Alone>, Vec<Pack>) {
        let (digest, place) = (
            Digest::empty(DigestFunction::Sha256),
            Place::new(Region::ALONE, 0).unwrap(),
        );
        let alone = alone.map(|used| Alone {
            used,
            digest,
            place: PlaceOrder(place),
        });
        let region = Region::new(1).unwrap();
        let packs = packs.map(|used| Pack { used, region, bytes: 1 });
        (alone.collect(), packs.collect())
    }

    fn left(alone: impl Iterator<Item = u32>, packs: impl Iterator<Item = u32>) -> (Vec<u32>, Vec<u32>) {
        let (mut alone, mut packs) = units(alone, packs);
        leave_later(&mut alone, &mut packs);
        let alone = alone.iter().map(|alone| alone.used).collect();
        (alone, packs.iter().map(|pack| pack.used).collect())
    }

    #[test]
    fn a_plan_ends_before_what_it_does_not_name() {
        // Of 16 packs it names two, and nothing that goes after the third.
        let (alone, packs) = left((0..40).rev(), (0..16).rev().map(|n| n * 10));
        assert_eq!(packs, [10, 0]);
        assert_eq!(alone, (0..=20).rev().collect::<Vec<_>>());
        // Of many that lie alone it names some, and no pack that goes after those.
        let most = u32::try_from(ALONE_MAX).unwrap();
        let (alone, packs) = left((0..most).rev(), [most + 5, 7].into_iter());
        assert_eq!((alone.len(), packs), (ALONE_MAX, vec![7]));
        assert!(left((0..most).rev(), [most + 5].into_iter()).1.is_empty());
        assert_eq!(left([].into_iter(), [3].into_iter()), (vec![], vec![3]));
        assert_eq!(left([3].into_iter(), [].into_iter()), (vec![3], vec![]));
    }
}
