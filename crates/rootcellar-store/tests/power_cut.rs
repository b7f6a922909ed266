//! What the layouts of this crate promise about crashes, proved on a disk that loses power.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::sync::Arc;
use std::time::Duration;

use rootcellar_store::Durability;
use rootcellar_store::layout::{HybridKind, LayoutKind, LooseKind, PackedKind};
use rootcellar_store::testing::check_power_cuts;

/// Workloads for each layout and mode. A thousand of them are some ten thousand crashes.
const WORKLOADS: u64 = 100;
const FIRST: &str = "ROOTCELLAR_SEED";

fn check(layout: impl LayoutKind, durability: Durability) {
    let layout: Arc<dyn LayoutKind> = Arc::new(layout);
    let seeds = match std::env::var(FIRST) {
        Ok(first) => {
            let first = first.parse().unwrap();
            first..first + 1
        }
        Err(_) => 0..WORKLOADS,
    };
    check_power_cuts(&layout, durability, seeds);
}

const SECOND: Durability = Durability::Interval(Duration::from_secs(1));

/// With packs for the smallest only, so that both sorts come about.
const HYBRID: HybridKind = HybridKind { packed_max_bytes: 1500 };

#[test]
fn loose_always() {
    check(LooseKind, Durability::Always);
}

#[test]
fn loose_interval() {
    check(LooseKind, SECOND);
}

#[test]
fn packed_always() {
    check(PackedKind, Durability::Always);
}

#[test]
fn packed_interval() {
    check(PackedKind, SECOND);
}

#[test]
fn hybrid_always() {
    check(HYBRID, Durability::Always);
}

#[test]
fn hybrid_interval() {
    check(HYBRID, SECOND);
}

#[test]
fn hybrid_none() {
    check(HYBRID, Durability::None);
}
