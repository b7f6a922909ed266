//! What goes first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rootcellar_digest::Digest;

use crate::engine::core::Engine;
use crate::engine::index::Scanned;
use crate::layout::{Place, Region, RegionSize};

/// Blobs that lie alone which one plan names: enough that looking at the whole index for them does not count.
const ALONE_MAX: usize = 4096;

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

/// What can go at once.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    Alone(Alone),
    /// A region, and the use that half of it is not younger than.
    Region {
        region: Region,
        median: u32,
    },
}

impl Unit {
    /// By what units are ordered.
    pub(super) fn used(&self) -> u32 {
        match self {
            Self::Alone(alone) => alone.used,
            Self::Region { median, .. } => *median,
        }
    }
}

/// Units in the order in which they are to go, those that go first last.
#[derive(Debug)]
pub(super) struct Plan {
    alone: Vec<Alone>,
    regions: Vec<(u32, Region)>,
}

impl Plan {
    /// The unit that goes next.
    pub(super) fn next(&mut self) -> Option<Unit> {
        let alone = self.alone.last().map(|alone| alone.used);
        let region = self.regions.last().map(|(median, _)| *median);
        match (alone, region) {
            (None, None) => None,
            (Some(alone), Some(region)) if alone <= region => self.alone.pop().map(Unit::Alone),
            (Some(_), None) => self.alone.pop().map(Unit::Alone),
            (_, Some(_)) => self.next_region(),
        }
    }

    fn next_region(&mut self) -> Option<Unit> {
        let (median, region) = self.regions.pop()?;
        Some(Unit::Region { region, median })
    }

    /// The blob that lies alone and goes next, if no region goes before it.
    pub(super) fn next_alone(&mut self) -> Option<Alone> {
        let region = self.regions.last().map_or(u32::MAX, |(median, _)| *median);
        self.alone.pop_if(|alone| alone.used <= region)
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
                ages.add(now.saturating_sub(entry.used), digest.size_bytes().max(1));
            }
        });
        let mut alone = oldest.into_sorted_vec();
        alone.reverse();
        Plan {
            alone,
            regions: self.order_regions(&sizes, now, &ages),
        }
    }

    fn order_regions(&self, sizes: &[RegionSize], now: u32, ages: &BTreeMap<Region, Ages>) -> Vec<(u32, Region)> {
        let leases = self.leases();
        let doubtful = self.doubtful();
        let mut regions = Vec::new();
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
            regions.push((median, size.region));
        }
        regions.sort_unstable_by_key(|unit| Reverse(*unit));
        regions
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
