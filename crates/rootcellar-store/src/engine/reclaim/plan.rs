//! What goes first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rootcellar_digest::Digest;

use crate::engine::core::Engine;
use crate::engine::index::Scanned;
use crate::layout::{Place, Region, RegionSize};

/// Blobs that lie alone which one plan names: enough that looking at the whole index for them does not count.
const ALONE_MAX: usize = 4096;
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
    /// The use that half of it is not younger than. First, as above.
    pub(super) median: u32,
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
        let pack = self.packs.last().map_or(u32::MAX, |pack| pack.median);
        self.alone.pop_if(|alone| alone.used <= pack)
    }

    /// By what the next unit is ordered.
    fn next_used(&self) -> Option<u32> {
        let alone = self.alone.last().map(|alone| alone.used);
        let pack = self.packs.last().map(|pack| pack.median);
        alone.into_iter().chain(pack).min()
    }

    fn put_back(&mut self, pack: Pack, contents: Contents) {
        let at = self.packs.partition_point(|other| *other > pack);
        self.packs.insert(at, pack);
        self.contents.insert(pack.region, contents);
    }
}

/// Bytes by the age of their last use, in steps of an eighth of an octave.
#[derive(Debug, Clone)]
struct Ages(Box<[u64; Ages::STEPS]>);

impl Ages {
    const STEPS: usize = 33 * 8;

    fn new() -> Self {
        Self(vec![0; Self::STEPS].try_into().expect("as many as there are steps"))
    }

    fn step(age: u32) -> usize {
        let age = u64::from(age) + 8;
        let octave = age.ilog2();
        let eighth = (age >> (octave - 3)) & 7;
        ((octave - 3) * 8) as usize + usize::try_from(eighth).expect("less than eight")
    }

    /// The least age in a step.
    fn age_of(step: usize) -> u32 {
        let (octave, eighth) = (step / 8, (step % 8) as u64);
        u32::try_from(((8 + eighth) << octave) - 8).unwrap_or(u32::MAX)
    }

    fn add(&mut self, age: u32, bytes: u64) {
        self.0[Self::step(age)] += bytes;
    }

    fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The age that `bytes` of those counted have at the least; `u32::MAX` if that is none of them.
    fn of_oldest(&self, bytes: u64) -> u32 {
        let mut sum = 0;
        for (step, counted) in self.0.iter().enumerate().rev() {
            if sum >= bytes {
                return Self::age_of(step + 1);
            }
            sum += counted;
        }
        0
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
        let mut oldest: BinaryHeap<Alone> = BinaryHeap::new();
        self.index.scan(|Scanned { digest, entry }| {
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
                ages.add(now.saturating_sub(entry.used), self.layout.footprint(&digest));
            }
        });
        let mut alone = oldest.into_sorted_vec();
        alone.reverse();
        Plan {
            alone,
            packs: self.order_packs(&sizes, now, &ages),
            contents: BTreeMap::new(),
        }
    }

    /// Looks at a pack again that the plan has told to go, since its blobs may have been used meanwhile: what it is now, and what
    /// is in it, or `None` if something else is to go before it now.
    pub(super) fn look_into(&self, planned: Pack, plan: &mut Plan) -> Option<(Pack, Contents)> {
        if !plan.contents.contains_key(&planned.region) {
            let next = plan.packs.iter().rev().take(PACKS_AT_ONCE - 1);
            let next = next.map(|pack| pack.region).chain([planned.region]);
            plan.contents = self.contents(next);
        }
        let contents = plan.contents.remove(&planned.region).unwrap_or_default();
        let median = self.median(planned, &contents);
        let pack = Pack { median, ..planned };
        if plan.next_used().is_some_and(|used| used < median) {
            plan.put_back(pack, contents);
            return None;
        }
        Some((pack, contents))
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

    /// The use that half of a pack is not younger than, by bytes; what it has lost counts as old.
    fn median(&self, pack: Pack, contents: &[(Digest, Place)]) -> u32 {
        let live = contents.iter().filter_map(|(digest, place)| {
            let entry = self.index.get(digest).filter(|entry| entry.place == *place)?;
            Some((entry.used, self.layout.footprint(digest)))
        });
        let mut uses: Vec<(u32, u64)> = live.collect();
        uses.sort_unstable();
        let live_bytes: u64 = uses.iter().map(|(_, bytes)| bytes).sum();
        let mut old_bytes = pack.bytes.saturating_sub(live_bytes);
        let mut median = 0;
        for (used, bytes) in uses {
            if old_bytes >= pack.bytes / 2 {
                break;
            }
            median = used;
            old_bytes += bytes;
        }
        median
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
            let median = ages.get(&size.region).map_or(0, |ages| {
                let dead = size.bytes.saturating_sub(ages.sum());
                let age = ages.of_oldest((size.bytes / 2).saturating_sub(dead));
                now.saturating_sub(age)
            });
            packs.push(Pack {
                median,
                region: size.region,
                bytes: size.bytes,
            });
        }
        packs.sort_unstable_by_key(|pack| Reverse(*pack));
        packs
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
    use super::*;

    #[test]
    fn a_step_of_ages_holds_what_it_says() {
        for age in (0..5000).chain([u32::MAX / 3, u32::MAX - 9]) {
            let step = Ages::step(age);
            assert!(Ages::age_of(step) <= age, "{age}");
            assert!(age < Ages::age_of(step + 1), "{age}");
        }
    }

    #[test]
    fn the_age_of_the_oldest_half() {
        let mut ages = Ages::new();
        ages.add(1000, 10);
        ages.add(100, 30);
        ages.add(3, 60);
        assert_eq!(ages.sum(), 100);
        assert_eq!(ages.of_oldest(0), u32::MAX);
        assert!((900..=1000).contains(&ages.of_oldest(10)));
        assert!((90..=100).contains(&ages.of_oldest(11)));
        assert_eq!(ages.of_oldest(100), 3);
        assert_eq!(ages.of_oldest(101), 0);
    }
}
