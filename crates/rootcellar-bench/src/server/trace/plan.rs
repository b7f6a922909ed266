//! What a trace does, without contents: which files there are, which actions read and make them, and what changes from build to build.
//!
//! ```text
//!   headers ──┬──► compile ──► object ──┐
//!   source  ──┘                         ├──► link ──► program
//!               (many of these) ────────┘
//! ```
//!
//! All of it follows from a seed.

use std::collections::BTreeSet;

use crate::Mix;
use crate::random::Random;

/// Compiles whose objects one link takes.
const OBJECTS_A_LINK: usize = 20;
const HEADERS: usize = 300;
const HEADERS_A_COMPILE: usize = 60;
const SOURCES_A_COMPILE: usize = 2;
/// One source in so many changes from one build to the next.
const CHANGED_PART: usize = 25;
const SOURCE_BYTES_MAX: u64 = 128 << 10;
const OBJECT_BYTES_MAX: u64 = 4 << 20;
/// Large enough to go by itself and not in a batch.
const PROGRAM_BYTES: u64 = 3 << 20;

/// A project and its builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The sizes of all files: headers, sources, and what actions make.
    pub(super) sizes: Vec<u64>,
    /// In an order in which they can run.
    pub(super) actions: Vec<Action>,
    /// The first is from nothing.
    pub(super) builds: Vec<Build>,
}

/// An action: files in, files out, as indices of [`Plan::sizes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) inputs: Vec<usize>,
    pub(super) output: usize,
}

/// One build of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Build {
    /// The files that are not what they were, those that actions make included.
    pub(super) changed: BTreeSet<usize>,
}

impl Plan {
    /// A project of so many compiles, and the builds of it.
    pub(super) fn new(seed: u64, compiles: usize, builds: usize) -> Self {
        let mut random = Random::new(seed);
        let mut plan = Self {
            sizes: Vec::new(),
            actions: Vec::new(),
            builds: Vec::new(),
        };
        let source_sizes = Mix::named("node-modules").expect("it is one of the mixes");
        let object_sizes = Mix::named("c-debug").expect("it is one of the mixes");
        let headers: Vec<usize> = (0..HEADERS)
            .map(|_| plan.file(source_sizes.size(&mut random).min(SOURCE_BYTES_MAX)))
            .collect();
        let (mut sources, mut objects) = (Vec::new(), Vec::new());
        for _ in 0..compiles {
            let mut inputs = some_of(&headers, HEADERS_A_COMPILE, &mut random);
            for _ in 0..SOURCES_A_COMPILE {
                let source = plan.file(source_sizes.size(&mut random).min(SOURCE_BYTES_MAX));
                sources.push(source);
                inputs.push(source);
            }
            let object = object_sizes.size(&mut random).min(OBJECT_BYTES_MAX);
            objects.push(plan.action(inputs, object));
        }
        for objects in objects.chunks(OBJECTS_A_LINK) {
            plan.action(objects.to_vec(), PROGRAM_BYTES);
        }
        plan.builds.push(Build {
            changed: (0..plan.sizes.len()).collect(),
        });
        for _ in 1..builds {
            let changed = some_of(&sources, sources.len().div_ceil(CHANGED_PART), &mut random);
            plan.builds.push(plan.build(changed));
        }
        plan
    }

    fn file(&mut self, size: u64) -> usize {
        self.sizes.push(size);
        self.sizes.len() - 1
    }

    fn action(&mut self, inputs: Vec<usize>, output_bytes: u64) -> usize {
        let output = self.file(output_bytes);
        self.actions.push(Action { inputs, output });
        output
    }

    /// What changes with these files: what is made of them, too.
    fn build(&self, sources: Vec<usize>) -> Build {
        let mut changed: BTreeSet<usize> = sources.into_iter().collect();
        for action in &self.actions {
            if action.inputs.iter().any(|input| changed.contains(input)) {
                changed.insert(action.output);
            }
        }
        Build { changed }
    }
}

fn some_of(items: &[usize], count: usize, random: &mut Random) -> Vec<usize> {
    let mut items = items.to_vec();
    random.shuffle(&mut items);
    items.truncate(count);
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_plan_and_another_one_another() {
        assert_eq!(Plan::new(7, 100, 5), Plan::new(7, 100, 5));
        assert_ne!(Plan::new(7, 100, 5), Plan::new(8, 100, 5));
    }

    #[test]
    fn later_builds_run_a_small_part_again_and_all_that_depends_on_it() {
        let plan = Plan::new(1, 200, 4);
        assert_eq!(plan.builds[0].changed.len(), plan.sizes.len());
        for build in &plan.builds[1..] {
            let again = |action: &&Action| build.changed.contains(&action.output);
            let run_again = plan.actions.iter().filter(again).count();
            assert!((1..plan.actions.len() / 3).contains(&run_again), "{run_again}");
            for action in &plan.actions {
                let is_affected = action.inputs.iter().any(|input| build.changed.contains(input));
                assert_eq!(is_affected, build.changed.contains(&action.output));
            }
        }
    }

    #[test]
    fn an_action_comes_after_those_that_make_its_inputs() {
        let plan = Plan::new(1, 50, 1);
        for action in &plan.actions {
            assert!(action.inputs.iter().all(|input| *input < action.output));
        }
    }
}
