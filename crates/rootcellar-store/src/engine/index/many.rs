//! Looking many blobs up at once.
//!
//! In a large index one look-up waits for memory twice, one time after the other: for its slot, and for its entry. So some are looked
//! up together: the processor reads all their slots, and then all their entries, without waiting for any.

use std::sync::MutexGuard;

use rootcellar_digest::{Digest, DigestFunction};

use super::shard::{Entry, Mixed, Shard};
use super::{Index, Table, lock};

/// Blobs looked up together: more than a processor reads at once, and few enough to hold locks for a microsecond or two.
const TOGETHER: usize = 32;

/// A blob that was named, by the hash of its key, and where.
#[derive(Debug, Clone, Copy)]
struct Named {
    mixed: Mixed,
    at: usize,
}

impl Index {
    /// Notes that blobs are used, and tells of each whether it is absent.
    pub(in crate::engine) fn are_absent(&self, digests: &[Digest], used: u32) -> Vec<bool> {
        let mut is_absent = vec![true; digests.len()];
        for named in self.named(digests) {
            self.look_up(digests, &named, used, &mut |at, _| is_absent[at] = false);
        }
        is_absent
    }

    /// Notes that blobs are used, and tells what is known of each.
    pub(in crate::engine) fn touch_many(&self, digests: &[Digest], used: u32) -> Vec<Option<Entry>> {
        let mut entries = vec![None; digests.len()];
        for named in self.named(digests) {
            self.look_up(digests, &named, used, &mut |at, entry| entries[at] = Some(entry));
        }
        entries
    }

    /// Notes that blobs are used, and tells which of them are absent: each once, in the order of first mention.
    pub(in crate::engine) fn absent(&self, digests: &[Digest], used: u32) -> Vec<Digest> {
        let mut is_told = vec![true; digests.len()];
        for named in self.named(digests) {
            self.look_up(digests, &named, used, &mut |at, _| is_told[at] = false);
            for same in named.chunk_by(|one, next| one.mixed == next.mixed) {
                if same.len() > 1 {
                    tell_once(digests, same, &mut is_told);
                }
            }
        }
        let told = || digests.iter().zip(&is_told).filter(|(_, is_told)| **is_told);
        let mut absent = Vec::with_capacity(told().count());
        absent.extend(told().map(|(digest, _)| *digest));
        absent
    }

    /// The digests of each function that occurs, in the order of the table: those of one shard are neighbours, and so are equal ones.
    fn named(&self, digests: &[Digest]) -> impl Iterator<Item = Vec<Named>> {
        let mut occurs = [false; DigestFunction::ALL.len()];
        for digest in digests {
            occurs[digest.function() as usize] = true;
        }
        let functions = DigestFunction::ALL.into_iter();
        functions
            .filter(move |function| occurs[*function as usize])
            .map(|function| {
                let of_function = digests
                    .iter()
                    .enumerate()
                    .filter(|(_, digest)| digest.function() == function);
                let mut named = Vec::with_capacity(digests.len());
                named.extend(of_function.map(|(at, digest)| Named {
                    mixed: self.mix(digest.hash()),
                    at,
                }));
                named.sort_unstable_by_key(|named| named.mixed);
                named
            })
    }

    /// Notes that blobs are used, and hands over what is known of those that are there.
    fn look_up(&self, digests: &[Digest], named: &[Named], used: u32, found: &mut impl FnMut(usize, Entry)) {
        let function = digests[named[0].at].function();
        let Some(table) = self.tables[function as usize].get() else {
            return;
        };
        for together in named.chunks(TOGETHER) {
            self.touch_together(table, digests, together, used, found);
        }
    }

    /// In some passes, each over all of them: what one of them waits for, all of them wait for at once.
    fn touch_together(
        &self,
        table: &Table,
        digests: &[Digest],
        named: &[Named],
        used: u32,
        found: &mut impl FnMut(usize, Entry),
    ) {
        let mut shards = Locked::new(table, named);
        let mut is_home_filled = [false; TOGETHER];
        for (nth, named) in named.iter().enumerate() {
            is_home_filled[nth] = shards.of(nth).is_home_filled(named.mixed);
        }
        let (mut likely, mut likely_count) = ([(0, 0); TOGETHER], 0);
        for (nth, named) in named.iter().enumerate() {
            if is_home_filled[nth]
                && let Some(id) = shards.of(nth).likely(named.mixed)
            {
                likely[likely_count] = (nth, id);
                likely_count += 1;
            }
        }
        let likely = &likely[..likely_count];
        let mut is_promising = [false; TOGETHER];
        for (is_promising, (nth, id)) in is_promising.iter_mut().zip(likely) {
            *is_promising = self.mix(shards.of(*nth).hash(*id, table.hash_len)) == named[*nth].mixed;
        }
        for ((nth, id), is_promising) in likely.iter().zip(is_promising) {
            let (Named { mixed, at }, shard) = (named[*nth], shards.of(*nth));
            let (hash, size) = (digests[at].hash(), digests[at].size_bytes());
            let id = match is_promising && shard.is_it(*id, hash, size) {
                true => Some(*id),
                false => shard.find(mixed, hash, size),
            };
            if let Some(id) = id {
                shard.touch(id, table.hash_len, used);
                found(at, shard.entry(id, table.hash_len));
            }
        }
    }
}

/// The shards of some blobs, locked in the order of the table. Nobody else holds one while he waits for an earlier one.
struct Locked<'a> {
    guards: Vec<MutexGuard<'a, Shard>>,
    /// Which of the guards is whose.
    at: [usize; TOGETHER],
}

impl<'a> Locked<'a> {
    fn new(table: &'a Table, named: &[Named]) -> Self {
        let mut locked = Self {
            guards: Vec::with_capacity(named.len()),
            at: [0; TOGETHER],
        };
        let mut nth = 0;
        for same in named.chunk_by(|one, next| one.mixed.shard() == next.mixed.shard()) {
            locked.at[nth..nth + same.len()].fill(locked.guards.len());
            locked.guards.push(lock(&table.shards[same[0].mixed.shard()]));
            nth += same.len();
        }
        locked
    }

    /// The shard of the `nth` blob.
    fn of(&mut self, nth: usize) -> &mut Shard {
        &mut self.guards[self.at[nth]]
    }
}

/// Of those that are equal, leaves the first.
fn tell_once(digests: &[Digest], same: &[Named], is_told: &mut [bool]) {
    let mut places: Vec<usize> = same.iter().map(|named| named.at).collect();
    places.sort_unstable();
    // Nearly always one: they only have the same hash of their keys.
    let mut distinct: Vec<Digest> = Vec::new();
    for at in places {
        if distinct.contains(&digests[at]) {
            is_told[at] = false;
        } else {
            distinct.push(digests[at]);
        }
    }
}
