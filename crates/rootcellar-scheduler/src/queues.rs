//! Who waits for whom: executions for workers, and workers for executions.
//!
//! Workers with the same offer are one *kind*. A waiting execution stands in the queue of every kind that could run it, and
//! is taken out of all of them when one of them does. So the next execution for a worker is the first of one ordered set,
//! and no event looks at every queue. The price is paid when a kind appears or is given up: then all that waits is looked at once.
//!
//! Of one kind, either workers wait or executions do, never both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::deadlines::Deadlines;
use crate::platform::Unsatisfiable;
use crate::task::ExecutionId;
use crate::{Error, Offer, Requirements, Result, Ticket, Time};

/// Names a kind of workers; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KindId(u64);

/// Where an execution stands in a queue: by priority, then by age. One that comes back after a lost worker stands where it stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) priority: i32,
    pub(crate) execution: ExecutionId,
}

/// All queues of executions and of idle workers.
#[derive(Debug, Default)]
pub(crate) struct PlatformQueues {
    kinds: BTreeMap<KindId, Kind>,
    by_offer: BTreeMap<Offer, KindId>,
    /// Everything that waits, the few included that no kind could run.
    waiting: BTreeMap<Place, Waiting>,
    /// Kinds without workers, until they are given up.
    unused: Deadlines<KindId>,
    kinds_made: u64,
}

#[derive(Debug)]
struct Kind {
    offer: Offer,
    /// The operator knows of it, so it stays without workers.
    is_configured: bool,
    workers: usize,
    queue: BTreeSet<Place>,
    idle: BTreeSet<Ticket>,
}

#[derive(Debug)]
struct Waiting {
    requirements: Requirements,
    kinds: Vec<KindId>,
}

impl PlatformQueues {
    /// Makes the queues of the platforms that the operator knows of.
    pub(crate) fn new(platforms: &[Offer]) -> Self {
        let mut queues = Self::default();
        for offer in platforms {
            let kind = queues.kind_of(offer);
            queues.kind_mut(kind).is_configured = true;
        }
        queues
    }

    /// How many executions wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Counts in a worker, and says which kind it is.
    ///
    /// # Errors
    /// [`Error::Full`] if it would be a new kind, and there are `kinds_max`.
    pub(crate) fn add_worker(&mut self, offer: &Offer, kinds_max: usize) -> Result<KindId> {
        if self.kinds.len() >= kinds_max && !self.by_offer.contains_key(offer) {
            return Err(Error::Full {
                what: "different platforms of workers",
                limit: kinds_max,
            });
        }
        let id = self.kind_of(offer);
        self.kind_mut(id).workers += 1;
        self.unused.clear(&id);
        Ok(id)
    }

    /// Counts out a worker, which no longer waits. Its kind stays known for `retention` after the last one.
    pub(crate) fn remove_worker(&mut self, id: KindId, now: Time, retention: Duration) {
        let kind = self.kind_mut(id);
        kind.workers -= 1;
        if kind.workers == 0 && !kind.is_configured {
            self.unused.set(id, now.after(retention));
        }
    }

    /// Gives up a kind that had no workers for long, if there is one. `Some` has the executions that waited for it and that
    /// no kind could run now; they still wait.
    pub(crate) fn give_up_kind(&mut self, now: Time) -> Option<Vec<ExecutionId>> {
        let id = self.unused.pop_due(now)?;
        let kind = self.kinds.remove(&id).expect("an unused kind is a kind");
        assert!(kind.idle.is_empty(), "a kind without workers has none that wait");
        self.by_offer.remove(&kind.offer);
        let mut stranded = Vec::new();
        for place in kind.queue {
            let waiting = self.waiting.get_mut(&place).expect("a queue holds what waits");
            waiting.kinds.retain(|other| *other != id);
            if waiting.kinds.is_empty() {
                stranded.push(place.execution);
            }
        }
        Some(stranded)
    }

    /// Says why no known worker, connected or not, can run an action with these requirements; `None` if one can.
    pub(crate) fn refusal(&self, requirements: &Requirements) -> Option<Error> {
        let offers = self.kinds.values().map(|kind| &kind.offer);
        if offers.len() == 0 {
            return Some(Error::NoWorkers);
        }
        if offers.clone().any(|offer| offer.satisfies(requirements)) {
            return None;
        }
        let unsatisfiable = Unsatisfiable::explain(requirements, offers);
        Some(Error::Unsatisfiable(Box::new(unsatisfiable)))
    }

    /// Puts an execution in the queues of all kinds that could run it. None of them has idle workers.
    pub(crate) fn push(&mut self, place: Place, requirements: Requirements) {
        let kinds = self.matching(&requirements);
        for id in &kinds {
            let kind = self.kind_mut(*id);
            assert!(
                kind.idle.is_empty(),
                "an execution waits only while all its workers are busy"
            );
            kind.queue.insert(place);
        }
        let replaced = self.waiting.insert(place, Waiting { requirements, kinds });
        assert!(replaced.is_none(), "an execution waits once");
    }

    /// Takes an execution out of all queues.
    pub(crate) fn remove(&mut self, place: Place) -> Requirements {
        let waiting = self.waiting.remove(&place).expect("only what waits is taken out");
        for id in &waiting.kinds {
            self.kind_mut(*id).queue.remove(&place);
        }
        waiting.requirements
    }

    /// The execution that a worker of this kind should run next.
    pub(crate) fn first_for(&self, id: KindId) -> Option<Place> {
        self.kinds[&id].queue.first().copied()
    }

    /// The execution that has waited longest among the most urgent ones.
    pub(crate) fn first(&self) -> Option<Place> {
        self.waiting.keys().next().copied()
    }

    /// Lets a worker wait. Nothing waits for it.
    pub(crate) fn add_idle(&mut self, id: KindId, ticket: Ticket) {
        let kind = self.kind_mut(id);
        assert!(
            kind.queue.is_empty(),
            "a worker waits only while there is nothing for it"
        );
        kind.idle.insert(ticket);
    }

    /// Lets a worker wait no longer.
    pub(crate) fn remove_idle(&mut self, id: KindId, ticket: Ticket) {
        self.kind_mut(id).idle.remove(&ticket);
    }

    /// The request for work that has waited longest of those that could run the action.
    pub(crate) fn idle_for(&self, requirements: &Requirements) -> Option<Ticket> {
        let idle = self.kinds.values().filter_map(|kind| {
            let oldest = *kind.idle.first()?;
            kind.offer.satisfies(requirements).then_some(oldest)
        });
        idle.min()
    }

    fn matching(&self, requirements: &Requirements) -> Vec<KindId> {
        let matching = self.kinds.iter().filter(|(_, kind)| kind.offer.satisfies(requirements));
        matching.map(|(id, _)| *id).collect()
    }

    fn kind_mut(&mut self, id: KindId) -> &mut Kind {
        self.kinds
            .get_mut(&id)
            .expect("a kind is given up only without workers")
    }

    fn kind_of(&mut self, offer: &Offer) -> KindId {
        if let Some(id) = self.by_offer.get(offer) {
            return *id;
        }
        let id = KindId(self.kinds_made);
        self.kinds_made += 1;
        let queue = self.queue_for(id, offer);
        self.by_offer.insert(offer.clone(), id);
        self.kinds.insert(
            id,
            Kind {
                offer: offer.clone(),
                is_configured: false,
                workers: 0,
                queue,
                idle: BTreeSet::new(),
            },
        );
        id
    }

    fn queue_for(&mut self, id: KindId, offer: &Offer) -> BTreeSet<Place> {
        let mut queue = BTreeSet::new();
        for (place, waiting) in &mut self.waiting {
            if offer.satisfies(&waiting.requirements) {
                waiting.kinds.push(id);
                queue.insert(*place);
            }
        }
        queue
    }
}
