//! What time does: patience ends, and so does the server.

use super::{Effect, Scheduler};
use crate::task::ExecutionId;
use crate::{Time, outcome};

impl Scheduler {
    /// Does everything that has fallen due. Called every second or so; what is due waits for the call.
    pub fn tick(&mut self, now: Time) {
        self.at(now);
        self.lose_silent_workers();
        self.abandon_unwatched();
        self.operations.forget_due(now);
        self.give_up_platforms();
    }

    fn give_up_platforms(&mut self) {
        while let Some(stranded) = self.queues.give_up_kind(self.now) {
            for id in stranded {
                self.refuse_stranded(id);
            }
        }
    }

    /// Fails an execution that no known worker could run, unless one may appear.
    fn refuse_stranded(&mut self, id: ExecutionId) {
        if self.policy.wait_for_unknown_platforms {
            return;
        }
        let requirements = &self.executions.get(id).requirements;
        let refusal = self.queues.refusal(requirements);
        let refusal = refusal.expect("no kind satisfies what is stranded");
        self.abort(id, &outcome::refused(&refusal));
    }

    /// Takes and hands out no more work. What waits fails with UNAVAILABLE, upon which clients try again elsewhere or later;
    /// what runs goes on.
    pub fn drain(&mut self, now: Time) {
        self.at(now);
        self.is_draining = true;
        while let Some(place) = self.queues.first() {
            self.abort(place.execution, &outcome::shutting_down());
        }
        while let Some(ticket) = self.workers.first_ticket() {
            self.withdraw(ticket, now);
            self.effects.push_back(Effect::Dismissed(ticket));
        }
    }

    /// Drains, and ends what still runs with UNAVAILABLE.
    pub fn stop(&mut self, now: Time) {
        self.drain(now);
        while let Some(id) = self.executions.first() {
            self.abort(id, &outcome::shutting_down());
        }
    }
}
