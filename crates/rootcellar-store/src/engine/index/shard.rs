//! A small hash table of blobs, made to waste no memory.
//!
//! ```text
//!   slots    [ tag:12 id:20 | empty | ... ]   found by probing from where the key's hash says; id is an entry's number + 1
//!   entries  [ hash | size:6 | place:6 | checksum:4 | used:4 | flags:1 ][ ... ]   dense: the last one fills a hole
//! ```
//!
//! An entry takes the length of the hash and 21 bytes; a slot 4, three quarters to seven eighths of them filled. Both grow by a
//! sixteenth or an eighth, so that little lies fallow. The tag keeps most probes away from entries of other blobs.

use super::SHARD_BITS;
use crate::layout::Place;

const ID_BITS: u32 = 20;
const ID_MASK: u32 = (1 << ID_BITS) - 1;
const EMPTY: u32 = 0;
/// Entries that a shard can hold.
pub(super) const ENTRIES_MAX: usize = ID_MASK as usize;

/// Slots are added when more than seven eighths are filled, so many that three quarters will be.
const fn is_crowded(entries: usize, slots: usize) -> bool {
    entries * 8 > slots * 7
}

const fn slots_for(entries: usize) -> usize {
    entries * 4 / 3 + 4
}

/// What the index knows of a blob besides its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    /// The checksum of the blob's bytes.
    pub(crate) checksum: u32,
    /// When it was used last.
    pub(crate) used: u32,
    pub(crate) flags: Flags,
}

/// Facts about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(u8);

impl Flags {
    /// The content was hashed in this process: when it was put, or when it was read first.
    pub(crate) const VERIFIED: Self = Self(1);
    /// It was used since the layout was told when it was used.
    pub(crate) const TOUCHED: Self = Self(2);
    /// Its checksum is known. So it is of everything that is verified.
    pub(crate) const CHECKSUMMED: Self = Self(4);

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A key, hashed with a secret so that nobody can choose names that collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mixed(pub(super) u64);

impl Mixed {
    /// Which shard of the table it is, by the highest bits.
    pub(super) fn shard(self) -> usize {
        usize::try_from(self.0 >> (u64::BITS - SHARD_BITS)).expect("few shards")
    }

    fn home(self, slots: usize) -> usize {
        let fraction = self.0 & 0xffff_ffff;
        usize::try_from((fraction * slots as u64) >> 32).expect("less than the number of slots")
    }

    fn tag(self) -> u32 {
        let tag = u32::try_from((self.0 >> 32) & 0xfff).expect("12 bits");
        tag << ID_BITS
    }
}

const SIZE_AT: usize = 0;
const PLACE_AT: usize = 6;
const CHECKSUM_AT: usize = 12;
const USED_AT: usize = 16;
const FLAGS_AT: usize = 20;
const TAIL_BYTES: usize = 21;

/// Sizes have 6 bytes: 256 TiB.
pub(super) const SIZE_MAX: u64 = (1 << 48) - 1;

#[derive(Debug, Default)]
pub(super) struct Shard {
    slots: Vec<u32>,
    entries: Vec<u8>,
}

impl Shard {
    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>() + self.entries.capacity()
    }

    pub(super) fn len(&self, hash_len: usize) -> usize {
        self.entries.len() / stride(hash_len)
    }

    /// The number of the entry with this hash and size.
    pub(super) fn find(&self, mixed: Mixed, hash: &[u8], size: u64) -> Option<usize> {
        self.entries_tagged(mixed).find(|id| self.is_it(*id, hash, size))
    }

    /// Whether there is anything at the slot where a search begins. If not, there is no such entry.
    pub(super) fn is_home_filled(&self, mixed: Mixed) -> bool {
        self.probe(mixed).next().is_some_and(|at| self.slots[at] != EMPTY)
    }

    /// The first entry that may be the one that is looked for, if there is any.
    pub(super) fn likely(&self, mixed: Mixed) -> Option<usize> {
        self.entries_tagged(mixed).next()
    }

    /// Whether an entry has this hash and size.
    pub(super) fn is_it(&self, id: usize, hash: &[u8], size: u64) -> bool {
        // Weak functions have collisions between contents of different sizes: the size is part of the name.
        self.hash(id, hash.len()) == hash && self.size(id, hash.len()) == size
    }

    /// The numbers of the entries whose hash begins with `prefix`, among those that `mixed` can mean.
    pub(super) fn find_prefix(&self, mixed: Mixed, prefix: [u8; 8], hash_len: usize) -> Option<usize> {
        self.entries_tagged(mixed)
            .find(|id| self.hash(*id, hash_len).starts_with(&prefix))
    }

    fn entries_tagged(&self, mixed: Mixed) -> impl Iterator<Item = usize> {
        let tag = mixed.tag();
        self.probe(mixed)
            .map(|at| self.slots[at])
            .take_while(|slot| *slot != EMPTY)
            .filter(move |slot| slot & !ID_MASK == tag)
            .map(|slot| (slot & ID_MASK) as usize - 1)
    }

    /// All slots, from the home of `mixed` on.
    fn probe(&self, mixed: Mixed) -> impl Iterator<Item = usize> + use<> {
        let (slots, home) = (self.slots.len(), mixed.home(self.slots.len()));
        (home..slots).chain(0..home)
    }

    pub(super) fn entry(&self, id: usize, hash_len: usize) -> Entry {
        let tail = self.tail(id, hash_len);
        let place = tail[PLACE_AT..CHECKSUM_AT].try_into().expect("6 bytes");
        Entry {
            place: Place::decode(place),
            checksum: number(&tail[CHECKSUM_AT..USED_AT]),
            used: number(&tail[USED_AT..FLAGS_AT]),
            flags: Flags(tail[FLAGS_AT]),
        }
    }

    pub(super) fn hash(&self, id: usize, hash_len: usize) -> &[u8] {
        let start = id * stride(hash_len);
        &self.entries[start..start + hash_len]
    }

    pub(super) fn size(&self, id: usize, hash_len: usize) -> u64 {
        let tail = self.tail(id, hash_len);
        let mut size = [0; 8];
        size[..6].copy_from_slice(&tail[SIZE_AT..PLACE_AT]);
        u64::from_le_bytes(size)
    }

    fn tail(&self, id: usize, hash_len: usize) -> &[u8; TAIL_BYTES] {
        let start = id * stride(hash_len) + hash_len;
        self.entries[start..start + TAIL_BYTES]
            .first_chunk()
            .expect("an entry is whole")
    }

    fn tail_mut(&mut self, id: usize, hash_len: usize) -> &mut [u8; TAIL_BYTES] {
        let start = id * stride(hash_len) + hash_len;
        self.entries[start..start + TAIL_BYTES]
            .first_chunk_mut()
            .expect("an entry is whole")
    }

    /// Notes a use, if it is later than the one known.
    pub(super) fn touch(&mut self, id: usize, hash_len: usize, used: u32) {
        let tail = self.tail_mut(id, hash_len);
        if number(&tail[USED_AT..FLAGS_AT]) < used {
            tail[USED_AT..FLAGS_AT].copy_from_slice(&used.to_le_bytes());
            tail[FLAGS_AT] |= Flags::TOUCHED.0;
        }
    }

    pub(super) fn replace(&mut self, id: usize, hash_len: usize, entry: Entry) {
        let tail = self.tail_mut(id, hash_len);
        tail[PLACE_AT..CHECKSUM_AT].copy_from_slice(&entry.place.encode());
        tail[CHECKSUM_AT..USED_AT].copy_from_slice(&entry.checksum.to_le_bytes());
        tail[USED_AT..FLAGS_AT].copy_from_slice(&entry.used.to_le_bytes());
        tail[FLAGS_AT] = entry.flags.0;
    }

    /// Adds an entry. The caller knows that there is none with this hash, and that there is room.
    pub(super) fn add(&mut self, mixed: Mixed, hash: &[u8], size: u64, entry: Entry, mix: impl Fn(&[u8]) -> Mixed) {
        let (id, hash_len) = (self.len(hash.len()), hash.len());
        assert!(id < ENTRIES_MAX && size <= SIZE_MAX, "checked before");
        if is_crowded(id + 1, self.slots.len()) {
            self.rebuild_slots(slots_for(id + 1), hash_len, mix);
        }
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact((id / 16).max(4) * stride(hash_len));
        }
        self.entries.extend_from_slice(hash);
        self.entries.extend_from_slice(&size.to_le_bytes()[..6]);
        self.entries.extend_from_slice(&[0; TAIL_BYTES - 6]);
        self.replace(id, hash_len, entry);
        self.fill_slot(mixed, id);
    }

    fn fill_slot(&mut self, mixed: Mixed, id: usize) {
        let at = self.probe(mixed).find(|at| self.slots[*at] == EMPTY);
        let at = at.expect("an eighth of the slots is empty");
        self.slots[at] = mixed.tag() | slot_id(id);
    }

    fn rebuild_slots(&mut self, slots: usize, hash_len: usize, mix: impl Fn(&[u8]) -> Mixed) {
        self.slots = vec![EMPTY; slots];
        for id in 0..self.len(hash_len) {
            self.fill_slot(mix(self.hash(id, hash_len)), id);
        }
    }

    /// Removes an entry; the last one takes its number.
    pub(super) fn remove(&mut self, id: usize, hash_len: usize, mix: impl Fn(&[u8]) -> Mixed) {
        let last = self.len(hash_len) - 1;
        let at = self.slot_of(id, mix(self.hash(id, hash_len)));
        self.close_gap(at, hash_len, &mix);
        if id != last {
            let mixed = mix(self.hash(last, hash_len));
            let at = self.slot_of(last, mixed);
            self.slots[at] = mixed.tag() | slot_id(id);
            let stride = stride(hash_len);
            self.entries.copy_within(last * stride.., id * stride);
        }
        self.entries.truncate(last * stride(hash_len));
        self.give_back(hash_len, mix);
    }

    fn slot_of(&self, id: usize, mixed: Mixed) -> usize {
        let wanted = mixed.tag() | slot_id(id);
        let at = self.probe(mixed).find(|at| self.slots[*at] == wanted);
        at.expect("every entry has a slot")
    }

    /// Empties a slot, and moves those behind it that were pushed there by it.
    fn close_gap(&mut self, mut gap: usize, hash_len: usize, mix: &impl Fn(&[u8]) -> Mixed) {
        let slots = self.slots.len();
        let mut at = gap;
        loop {
            at = (at + 1) % slots;
            let slot = self.slots[at];
            if slot == EMPTY {
                break;
            }
            let id = (slot & ID_MASK) as usize - 1;
            let home = mix(self.hash(id, hash_len)).home(slots);
            // Whether the gap lies between the slot's home and the slot, going round.
            if (at + slots - home) % slots >= (at + slots - gap) % slots {
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap] = EMPTY;
    }

    /// Gives memory back once half of it lies fallow.
    fn give_back(&mut self, hash_len: usize, mix: impl Fn(&[u8]) -> Mixed) {
        let entries = self.len(hash_len);
        if self.entries.capacity() > 2 * self.entries.len() + 64 * stride(hash_len) {
            self.entries.shrink_to(self.entries.len() + self.entries.len() / 16);
            self.rebuild_slots(slots_for(entries), hash_len, mix);
        }
    }
}

const fn stride(hash_len: usize) -> usize {
    hash_len + TAIL_BYTES
}

fn slot_id(id: usize) -> u32 {
    u32::try_from(id + 1).expect("a shard has fewer entries")
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("4 bytes"))
}
