//! What the size of packs does to reclaiming, simulated: no disk, only places.
//!
//! Projects are rebuilt again and again. A build uses every blob of its project, and replaces a tenth of them. When
//! room is low the pack goes of which half, by bytes, was used longest ago; what in it is younger is written once
//! more. This is what the engine does.

use std::collections::{BTreeMap, BTreeSet};

use crate::mix::{Mix, Random};

const BOUND_BYTES: u64 = 4 << 30;
const MARGIN_BYTES: u64 = BOUND_BYTES / 64;
const BLOBS: usize = 20_000;
const PACKED_MAX: u64 = 16 << 10;
const BUILDS: u32 = 1200;

#[derive(Clone, Copy)]
struct Place {
    pack: u32,
    used: u32,
    bytes: u32,
}

#[derive(Default)]
struct Pack {
    bytes: u64,
    blobs: Vec<u32>,
}

struct Store {
    pack_bytes: u64,
    /// By the blob's number.
    places: Vec<Option<Place>>,
    packs: BTreeMap<u32, Pack>,
    open: u32,
    bytes: u64,
    moved: u64,
}

impl Store {
    fn put(&mut self, blob: u32, used: u32, bytes: u32) {
        let padded = u64::from(bytes).next_multiple_of(512);
        if self
            .packs
            .get(&self.open)
            .is_none_or(|pack| pack.bytes + padded > self.pack_bytes)
        {
            self.open += 1;
        }
        let pack = self.packs.entry(self.open).or_default();
        pack.bytes += padded;
        pack.blobs.push(blob);
        self.bytes += padded;
        let at = blob as usize;
        self.places.resize(self.places.len().max(at + 1), None);
        self.places[at] = Some(Place {
            pack: self.open,
            used,
            bytes,
        });
    }

    fn place(&self, blob: u32) -> Option<Place> {
        self.places.get(blob as usize).copied().flatten()
    }

    /// Frees a margin, and as much as a pack, as the engine does.
    fn make_room(&mut self, dropped: &mut BTreeMap<u32, u64>) {
        if self.bytes + self.pack_bytes + MARGIN_BYTES / 2 <= BOUND_BYTES {
            return;
        }
        let mut plan: Vec<(u32, u32)> = self
            .packs
            .iter()
            .map(|(number, pack)| (self.median(*number, pack), *number))
            .collect();
        plan.sort_unstable();
        for (median, number) in plan {
            if self.bytes + self.pack_bytes + MARGIN_BYTES <= BOUND_BYTES {
                return;
            }
            if number != self.open {
                dropped.insert(number, self.packs[&number].bytes);
                self.drop_pack(number, median);
            }
        }
    }

    /// The use that half of a pack is not younger than; what is out of date counts as the oldest.
    fn median(&self, number: u32, pack: &Pack) -> u32 {
        let live = pack
            .blobs
            .iter()
            .filter_map(|blob| self.place(*blob).filter(|place| place.pack == number));
        let mut uses: Vec<(u32, u32)> = live.map(|place| (place.used, place.bytes)).collect();
        uses.sort_unstable();
        let mut left = pack.bytes / 2;
        for (used, bytes) in uses.iter().rev() {
            if u64::from(*bytes) >= left {
                return *used;
            }
            left -= u64::from(*bytes);
        }
        0
    }

    fn drop_pack(&mut self, number: u32, median: u32) {
        let pack = self.packs.remove(&number).expect("a pack of the plan");
        self.bytes -= pack.bytes;
        for blob in pack.blobs {
            let Some(place) = self.place(blob).filter(|place| place.pack == number) else {
                continue;
            };
            if place.used > median {
                self.moved += u64::from(place.bytes);
                self.put(blob, place.used, place.bytes);
            } else {
                self.places[blob as usize] = None;
            }
        }
    }
}

pub fn run(mix: &str) {
    println!(
        "mix {mix}, packed up to {PACKED_MAX} B, bound {} MiB, projects of {BLOBS} blobs, {BUILDS} builds\n",
        BOUND_BYTES >> 20
    );
    println!(
        "| uses | pack, MiB | moved B per put B | put again | useful, % | packs per image | \
         its own MiB | the packs it touches | held after half a turnover |"
    );
    println!("|{}", "---|".repeat(9));
    for (label, projects, is_random) in [("builds", 24, false), ("builds", 60, false), ("single blobs", 24, true)] {
        for pack_mib in [4, 16, 32, 64, 128, 256, 1024] {
            let row = simulate(mix, projects, pack_mib << 20, is_random);
            println!("| {label}, {projects} projects | {pack_mib} | {row} |");
        }
    }
}

/// What an idle image maps.
struct Image {
    packs: BTreeSet<u32>,
    own_bytes: u64,
    /// Of the packs as a whole.
    touched_bytes: u64,
}

impl Image {
    fn of(store: &Store, blobs: &[(u32, u32)]) -> Self {
        let places = || blobs.iter().filter_map(|(blob, _)| store.place(*blob));
        let packs: BTreeSet<u32> = places().map(|place| place.pack).collect();
        Self {
            touched_bytes: packs.iter().map(|pack| store.packs[pack].bytes).sum(),
            packs,
            own_bytes: places().map(|place| u64::from(place.bytes)).sum(),
        }
    }
}

/// Blobs by project, with their sizes.
struct Projects {
    mix: Mix,
    random: Random,
    made: u32,
    blobs: Vec<Vec<(u32, u32)>>,
}

impl Projects {
    fn new(mix: &str, count: usize) -> Self {
        let mut projects = Self {
            mix: Mix::named(mix),
            random: Random::new(11),
            made: 0,
            blobs: vec![],
        };
        for _ in 0..count {
            let blobs = (0..BLOBS).map(|_| projects.make()).collect();
            projects.blobs.push(blobs);
        }
        projects
    }

    fn make(&mut self) -> (u32, u32) {
        let size = loop {
            let size = self.mix.size(&mut self.random);
            if size <= PACKED_MAX {
                break size as u32;
            }
        };
        self.made += 1;
        (self.made - 1, size)
    }

    /// The blobs that the next build uses.
    fn build(&mut self, is_random: bool) -> Vec<(u32, u32)> {
        // Every second build is of one of three busy projects.
        let busy = if self.random.below(2) == 0 {
            3
        } else {
            self.blobs.len() as u64
        };
        let project = self.random.below(busy) as usize;
        for _ in 0..BLOBS / 10 {
            let at = self.random.below(BLOBS as u64) as usize;
            self.blobs[project][at] = self.make();
        }
        if !is_random {
            return self.blobs[project].clone();
        }
        let count = self.blobs.len() as u64;
        (0..BLOBS)
            .map(|at| self.blobs[self.random.below(count) as usize][at])
            .collect()
    }
}

fn simulate(mix: &str, count: usize, pack_bytes: u64, is_random: bool) -> String {
    const MIB: f64 = (1 << 20) as f64;
    let mut projects = Projects::new(mix, count);
    let mut store = Store {
        pack_bytes,
        places: Vec::new(),
        packs: BTreeMap::new(),
        open: 0,
        bytes: 0,
        moved: 0,
    };
    let (mut put, mut again, mut known) = (0, 0, Vec::new());
    let (mut images, mut put_at_half, mut pinned) = (Vec::new(), 0, None);
    let mut dropped = BTreeMap::new();
    for build in 0..BUILDS {
        for (blob, bytes) in projects.build(is_random) {
            if let Some(place) = store.places.get_mut(blob as usize).and_then(Option::as_mut) {
                place.used = build;
                continue;
            }
            put += u64::from(bytes);
            known.resize(known.len().max(blob as usize + 1), false);
            again += if std::mem::replace(&mut known[blob as usize], true) {
                u64::from(bytes)
            } else {
                0
            };
            store.put(blob, build, bytes);
        }
        store.make_room(&mut dropped);
        if build == BUILDS / 2 {
            images = projects.blobs.iter().map(|blobs| Image::of(&store, blobs)).collect();
            put_at_half = put;
        }
        if pinned.is_none() && !images.is_empty() && put - put_at_half > BOUND_BYTES / 2 {
            let gone = |image: &Image| image.packs.iter().filter_map(|pack| dropped.get(pack)).sum::<u64>();
            pinned = Some(images.iter().map(gone).sum::<u64>() as f64 / MIB / images.len() as f64);
        }
    }
    let is_stored = |blob: &&(u32, u32)| store.place(blob.0).is_some();
    let useful: u64 = projects
        .blobs
        .iter()
        .flatten()
        .filter(is_stored)
        .map(|(_, bytes)| u64::from(*bytes))
        .sum();
    let mean = |of: fn(&Image) -> u64| images.iter().map(of).sum::<u64>() as f64 / images.len() as f64;
    format!(
        "{:.2} | {:.3} | {:.0} | {:.1} | {:.0} | {:.0} | {:.0}",
        store.moved as f64 / put as f64,
        again as f64 / put as f64,
        useful as f64 * 100.0 / BOUND_BYTES as f64,
        mean(|image| image.packs.len() as u64),
        mean(|image| image.own_bytes) / MIB,
        mean(|image| image.touched_bytes) / MIB,
        pinned.unwrap_or(f64::NAN),
    )
}
