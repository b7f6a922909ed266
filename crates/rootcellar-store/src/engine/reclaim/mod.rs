//! Making room: blobs used longest ago go first.
//!
//! ```text
//!   too little free ──> plan ──┬─> a blob that lies alone ──────> its file is removed
//!                              └─> a pack, half of it old ──────> what is young is moved, the pack is dropped
//! ```
//!
//! Space in a pack comes back only with the whole pack. So of all packs that one goes of which half, by bytes, is out of date or was
//! used longest ago (`plan`). What in it is younger (`old`) is written once more; so each byte that comes back costs at most one that
//! is written. Blobs that lie alone stand in the same order with their own uses.
//!
//! Nothing that is leased goes, and nothing in a pack of which anything is leased. Who keeps leases for later is asked to let go of
//! them: of old ones whenever room is made, of all of them when nothing else is left.

mod ages;
mod alone;
mod compact;
mod old;
mod plan;

use std::time::Duration;

use self::compact::Compaction;
use self::plan::{Plan, Unit};
use super::core::{Engine, USED_LONG_AGO_PART};
use super::lanes::{Lane, Next};
use super::options::WhenFull;
use super::upkeep::CHECKPOINT_INTERVAL;
use crate::Shortage;

/// What the lane has chosen to let go, and what it is in the middle of.
#[derive(Debug, Default)]
pub(in crate::engine) struct Reclaim {
    plan: Option<Plan>,
    compaction: Option<Compaction>,
}

/// The part of the store that is made free when room is made, so that puts need not wait for it: a sixty-fourth.
const MARGIN_PART: u64 = 64;

const FULL_IN_USE: &str = "is full of what is in use";
const FULL_YOUNG: &str = "is full of blobs used lately";

impl Engine {
    /// Bytes that are kept free for puts.
    pub(in crate::engine) fn margin(&self) -> u64 {
        self.budget.bytes_max() / MARGIN_PART
    }

    /// Bytes that somebody waits for.
    fn needed(&self) -> u64 {
        self.queue.needs().saturating_add(self.budget.wanted())
    }

    pub(in crate::engine) fn is_room_low(&self) -> bool {
        self.budget.free() < self.facts.spare_bytes + self.margin() / 2 || self.budget.excess() > 0
    }

    fn has_room(&self) -> bool {
        self.missing_room() == 0
    }

    /// Bytes that have to come back.
    fn missing_room(&self) -> u64 {
        let wanted = (self.facts.spare_bytes + self.margin()).saturating_add(self.needed());
        wanted.saturating_sub(self.budget.free()).max(self.budget.excess())
    }

    /// Makes some room if there is too little. `None` if there is nothing to do.
    pub(in crate::engine) fn step_reclaim(&self) -> Option<Next> {
        let compaction = self.upkeep().reclaim.compaction.take();
        if let Some(compaction) = compaction {
            return Some(self.go_on_compacting(compaction));
        }
        let is_asked = self.needed() > 0 || self.is_room_low() || self.upkeep().reclaim.plan.is_some();
        if !is_asked {
            return self.step_merge();
        }
        if self.has_room() {
            self.upkeep().reclaim.plan = None;
            self.budget.end_relief();
            self.tell_of_room();
            return self.step_merge();
        }
        // What may be there no more goes before what is.
        if self.layout.left_bytes() > 0 && self.step_tidy() {
            return Some(Next::Again);
        }
        let plan = self.upkeep().reclaim.plan.take();
        let is_new = plan.is_none();
        let mut plan = plan.unwrap_or_else(|| {
            self.ask_lease_holders(Shortage::Usual);
            self.plan()
        });
        match plan.next() {
            Some(unit) => {
                let next = self.let_go(unit, &mut plan)?;
                self.upkeep().reclaim.plan = Some(plan);
                Some(next)
            }
            // What an older plan did not know of may be there.
            None if !is_new => Some(Next::Again),
            None if self.ask_lease_holders(Shortage::Full) => Some(Next::Again),
            None => {
                self.refuse(FULL_IN_USE);
                None
            }
        }
    }

    /// Lets a unit go. `None` if it is protected: then nothing can go.
    fn let_go(&self, unit: Unit, plan: &mut Plan) -> Option<Next> {
        match unit {
            Unit::Alone(oldest) if !self.is_protected(oldest.used) => return Some(self.evict_alone(oldest, plan)),
            Unit::Alone(_) => {}
            Unit::Pack(planned) => {
                let Some((old, contents)) = self.look_into(planned, plan) else {
                    return Some(Next::Again);
                };
                if !self.is_protected(old.until) {
                    return Some(self.begin_compacting(planned.region, old, contents));
                }
            }
        }
        self.refuse(FULL_YOUNG);
        None
    }

    /// Whether a blob that was used then is too young to go.
    fn is_protected(&self, used: u32) -> bool {
        self.when_full == WhenFull::Refuse && self.recency.age(used, self.now()) < self.promised_lifetime()
    }

    /// The lifetime that is kept: longer than what is promised, by what a use may be remembered too early. A restart takes it back
    /// to the last checkpoint, and who relies on a [`Mark`](crate::Mark) says only now and then what it uses.
    fn promised_lifetime(&self) -> Duration {
        let slack = CHECKPOINT_INTERVAL + self.min_lifetime / USED_LONG_AGO_PART;
        self.min_lifetime + slack.min(self.min_lifetime / 4)
    }

    fn refuse(&self, reason: &str) {
        let reason = format!("the store of {} bytes {reason}", self.budget.bytes_max());
        if self.needed() > 0 {
            tracing::warn!("no room can be made: {reason}");
        }
        self.budget.end_relief();
        self.queue.refuse(&reason);
        self.budget.refuse(&reason);
        self.waker.wake(Lane::Commit);
    }

    fn tell_of_room(&self) {
        self.budget.freed();
        self.waker.wake(Lane::Commit);
    }

    fn note_evicted(&self, bytes: u64, used: u32) {
        let lived = self.recency.age(used, self.now());
        self.counters().evicted(bytes, lived, self.min_lifetime);
    }
}
