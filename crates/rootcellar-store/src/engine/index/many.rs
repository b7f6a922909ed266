//! Looking many blobs up at once.
//!
//! In a large index one look-up waits for memory twice, one time after the other: for its slot, and for its entry. So those of one
//! shard are looked up together: the processor reads all their slots, and then all their entries, without waiting for any.

use rootcellar_digest::{Digest, DigestFunction};

use super::shard::{Mixed, Shard};
use super::{Index, lock};

/// Blobs looked up together: more than a processor reads at once, and few enough to hold a shard's lock for a microsecond.
const TOGETHER: usize = 32;

/// A blob that was named, by the hash of its key, and where.
#[derive(Debug, Clone, Copy)]
struct Named {
    mixed: Mixed,
    at: usize,
}

impl Index {
    /// Notes that blobs are used, and tells which of them are absent: each once, in the order of first mention.
    pub(in crate::engine) fn absent(&self, digests: &[Digest], used: u32) -> Vec<Digest> {
        let mut is_named = [false; DigestFunction::ALL.len()];
        for digest in digests {
            is_named[digest.function() as usize] = true;
        }
        let mut is_told = vec![false; digests.len()];
        for function in DigestFunction::ALL {
            if is_named[function as usize] {
                self.look_up(function, digests, used, &mut is_told);
            }
        }
        let told = || digests.iter().zip(&is_told).filter(|(_, is_told)| **is_told);
        let mut absent = Vec::with_capacity(told().count());
        absent.extend(told().map(|(digest, _)| *digest));
        absent
    }

    /// Looks the digests of one function up, and notes which are to be told as absent.
    fn look_up(&self, function: DigestFunction, digests: &[Digest], used: u32, is_told: &mut [bool]) {
        let of_function = digests
            .iter()
            .enumerate()
            .filter(|(_, digest)| digest.function() == function);
        let mut named = Vec::with_capacity(digests.len());
        named.extend(of_function.map(|(at, digest)| Named {
            mixed: self.mix(digest.hash()),
            at,
        }));
        // Then those of one shard are neighbours, and so are those that are named twice.
        named.sort_unstable_by_key(|named| named.mixed);
        match self.tables[function as usize].get() {
            None => named.iter().for_each(|named| is_told[named.at] = true),
            Some(table) => {
                for of_shard in named.chunk_by(|one, next| one.mixed.shard() == next.mixed.shard()) {
                    let shard = &table.shards[of_shard[0].mixed.shard()];
                    for together in of_shard.chunks(TOGETHER) {
                        let mut shard = lock(shard);
                        self.touch_together(&mut shard, digests, together, used, is_told);
                    }
                }
            }
        }
        for same in named.chunk_by(|one, next| one.mixed == next.mixed) {
            if same.len() > 1 {
                tell_once(digests, same, is_told);
            }
        }
    }

    /// In some passes, each over all of them: what one of them waits for, all of them wait for at once.
    fn touch_together(
        &self,
        shard: &mut Shard,
        digests: &[Digest],
        named: &[Named],
        used: u32,
        is_absent: &mut [bool],
    ) {
        let hash_len = digests[named[0].at].function().hash_len();
        let mut is_home_filled = [false; TOGETHER];
        for (is_filled, named) in is_home_filled.iter_mut().zip(named) {
            *is_filled = shard.is_home_filled(named.mixed);
        }
        let (mut likely, mut likely_count) = ([(0, 0); TOGETHER], 0);
        for (nth, (named, is_filled)) in named.iter().zip(is_home_filled).enumerate() {
            is_absent[named.at] = true;
            if is_filled && let Some(id) = shard.likely(named.mixed) {
                likely[likely_count] = (nth, id);
                likely_count += 1;
            }
        }
        let likely = &likely[..likely_count];
        let mut is_promising = [false; TOGETHER];
        for (is_promising, (nth, id)) in is_promising.iter_mut().zip(likely) {
            *is_promising = self.mix(shard.hash(*id, hash_len)) == named[*nth].mixed;
        }
        for ((nth, id), is_promising) in likely.iter().zip(is_promising) {
            let Named { mixed, at } = named[*nth];
            let (hash, size) = (digests[at].hash(), digests[at].size_bytes());
            let found = match is_promising && shard.is_it(*id, hash, size) {
                true => Some(*id),
                false => shard.find(mixed, hash, size),
            };
            if let Some(id) = found {
                shard.touch(id, hash_len, used);
                is_absent[at] = false;
            }
        }
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
