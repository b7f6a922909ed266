//! What of a pack is old, and goes with it.
//!
//! ```text
//!   uses of a pack's blobs   | lost, old ........... | about as old | young ........... |
//!                            0                      1/2                                1
//!                             the least that goes ───┘              └── moved
//! ```
//!
//! Half of a pack goes at the least. So does what is not worth being moved: what was used about as long ago as the last of that half,
//! unless nearly all of the half is older; and what is among the older half of the whole store, since it would go soon.

use rootcellar_digest::Digest;

use super::ages::Ages;
use super::plan::Pack;
use crate::engine::core::Engine;
use crate::layout::Place;

/// The part of a pack that has to go for the whole to be dropped. With a half, each byte that comes back costs at most one that is
/// written. With a third it would cost two, and what is in use would stay up to two thirds of the store instead of half of it.
pub(super) const PART_TO_GO: u64 = 2;

/// What of a pack goes: what was used before `until`, and some of what was used then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Old {
    pub(super) until: u32,
    /// Bytes that go of those used at `until`.
    last_bytes: u64,
}

impl Old {
    pub(super) const NOTHING: Self = Self::all(0);
    pub(super) const EVERYTHING: Self = Self::all(u32::MAX);

    const fn all(until: u32) -> Self {
        let last_bytes = if until == 0 { 0 } else { u64::MAX };
        Self { until, last_bytes }
    }

    /// The least that goes, so that `to_go` bytes do: of `uses` in their order, with the bytes of each, and what the pack has `lost`.
    /// With it, how many bytes are older than what was used about as long ago as the last of it.
    fn least(uses: &[(u32, u64)], lost: u64, to_go: u64, now: u32) -> (Self, u64) {
        let (mut old, mut bytes, mut older) = (Self::NOTHING, lost, lost);
        for (used, taken) in uses {
            if bytes >= to_go {
                break;
            }
            if Ages::step(now.saturating_sub(*used)) != Ages::step(now.saturating_sub(old.until)) {
                older = bytes;
            }
            if old.until != *used {
                (old.until, old.last_bytes) = (*used, 0);
            }
            old.last_bytes += taken;
            bytes += taken;
        }
        (old, older)
    }

    /// Whether a blob that was used then goes, which takes `bytes`.
    pub(super) fn takes(&mut self, used: u32, bytes: u64) -> bool {
        if used != self.until {
            return used < self.until;
        }
        let goes = self.last_bytes > 0;
        self.last_bytes = self.last_bytes.saturating_sub(bytes);
        goes
    }
}

/// What goes with a pack: the least that has to, and everything that is not worth being moved.
pub(super) struct OldIn {
    pub(super) least: Old,
    pub(super) all: Old,
}

/// The latest use that was about as long ago as `used`.
fn last_of_step(uses: &[(u32, u64)], used: u32, now: u32) -> u32 {
    let step = |used: u32| Ages::step(now.saturating_sub(used));
    let same = uses
        .iter()
        .map(|(other, _)| *other)
        .filter(|other| step(*other) == step(used));
    same.max().unwrap_or(used).max(used)
}

impl Engine {
    /// What of a pack goes.
    pub(super) fn old_in(&self, pack: Pack, contents: &[(Digest, Place)], old_until: u32) -> OldIn {
        let live = contents.iter().filter_map(|(digest, place)| {
            let entry = self.index.get(digest).filter(|entry| entry.place == *place)?;
            Some((entry.used, self.layout.footprint(digest)))
        });
        let mut uses: Vec<(u32, u64)> = live.collect();
        uses.sort_unstable();
        let live_bytes: u64 = uses.iter().map(|(_, bytes)| bytes).sum();
        let lost = pack.bytes.saturating_sub(live_bytes);
        let (now, to_go) = (self.tick(), pack.bytes / PART_TO_GO);
        let (least, older) = Old::least(&uses, lost, to_go, now);
        // Moving what was used about as long ago as what goes is worth it only if that spares most of it.
        let about = match older < to_go / 2 {
            true => last_of_step(&uses, least.until, now),
            false => least.until,
        };
        let until = about.max(old_until);
        let all = match until > least.until && !self.is_protected(until) {
            true => Old::all(until),
            false => least,
        };
        OldIn { least, all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_goes_at_the_least() {
        let uses = [(10, 20), (11, 20), (900, 40), (900, 40)];
        let least = |lost, to_go| Old::least(&uses, lost, to_go, 1000);
        let old = |until, last_bytes| Old { until, last_bytes };
        assert_eq!(least(50, 50), (Old::NOTHING, 50));
        assert_eq!(least(0, 20), (old(10, 20), 0));
        // Used about as long ago as the first.
        assert_eq!(least(0, 40), (old(11, 20), 0));
        assert_eq!(least(0, 70), (old(900, 40), 40));
        assert_eq!(last_of_step(&uses, 10, 1000), 11);
        assert_eq!(last_of_step(&uses, 900, 1000), 900);
    }

    #[test]
    fn of_what_was_used_last_only_some_goes() {
        let mut old = Old {
            until: 7,
            last_bytes: 150,
        };
        let goes =
            [(6, 1000), (7, 100), (8, 1), (7, 100), (7, 100), (6, 1)].map(|(used, bytes)| old.takes(used, bytes));
        assert_eq!(goes, [true, true, false, true, false, true]);
        let (mut nothing, mut everything) = (Old::NOTHING, Old::EVERYTHING);
        for used in [0, 1, u32::MAX] {
            assert!(!nothing.takes(used, 1) && everything.takes(used, 1), "{used}");
        }
    }
}
