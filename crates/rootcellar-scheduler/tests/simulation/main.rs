//! Random histories of a scheduler, checked after every event against a model of it.
//!
//! The model (`model/`) is the specification once more, written for plainness: lists that are searched from end to end. It
//! says what must come of every event; where the scheduler has a choice, the model checks that it chose rightly, and takes
//! it over. The world (`world.rs`) makes up clients, workers and time.
//!
//! A history is a seed. A failing test prints it; `ROOTCELLAR_SIMULATION_SEED=<seed>` replays that one and prints its events, and
//! `ROOTCELLAR_SIMULATION_SEEDS=<count>` runs more of them.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod model;
mod random;
mod world;

use std::env;
use std::ops::Range;

use random::Random;
use world::World;

const SEEDS: u64 = 2000;
const STEPS: usize = 200;

/// Prints the seed of a history that ends in a panic.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("replay with ROOTCELLAR_SIMULATION_SEED={}", self.0);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().expect("a seed or a count is a number"))
}

fn seeds() -> (Range<u64>, bool) {
    if let Some(seed) = number("ROOTCELLAR_SIMULATION_SEED") {
        return (seed..seed + 1, true);
    }
    (0..number("ROOTCELLAR_SIMULATION_SEEDS").unwrap_or(SEEDS), false)
}

#[test]
fn every_history_keeps_the_promises() {
    let (seeds, is_replay) = seeds();
    let mut completed = 0;
    for seed in seeds {
        let _guard = Seed(seed);
        let mut world = World::new(Random::new(seed), is_replay);
        for _ in 0..STEPS {
            world.step();
        }
        completed += world.end();
    }
    assert!(completed > 0, "histories in which nothing happens prove nothing");
    println!("{completed} operations completed");
}
