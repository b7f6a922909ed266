//! Sizes of blobs: the mixes of `rootcellar-bench`, read from its source so that there is one copy of them, and this
//! machine's `/usr`.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const SOURCE: &str = include_str!("../../../../crates/rootcellar-bench/src/mix.rs");
const TAIL_AT: [u64; 9] = [9500, 9600, 9700, 9800, 9900, 9950, 9990, 9999, 10_000];

/// A sequence of numbers (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(number) * u128::from(bound)) >> 64) as u64
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end as u64 + 1) as usize);
        }
    }
}

/// Where sizes come from.
pub enum Mix {
    /// Sizes at marks between 0 and 10,000; in between they are drawn evenly.
    Quantiles { name: String, marks: Vec<(u64, u64)> },
    /// Every size of a tree.
    Tree { name: String, sizes: Vec<u64> },
}

impl Mix {
    pub fn all() -> Vec<Self> {
        let mut all: Vec<Self> = SOURCE.split("    Mix {").skip(1).map(Self::parse).collect();
        all.push(Self::of_tree("/usr"));
        all
    }

    pub fn named(name: &str) -> Self {
        let mix = Self::all().into_iter().find(|mix| mix.name() == name);
        mix.unwrap_or_else(|| panic!("no mix {name}"))
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Quantiles { name, .. } | Self::Tree { name, .. } => name,
        }
    }

    fn parse(text: &str) -> Self {
        let numbers = |after: &str| -> Vec<u64> {
            let list = text
                .split(after)
                .nth(1)
                .expect("a list")
                .split(']')
                .next()
                .expect("its end");
            let digits = |number: &str| number.trim().replace('_', "").parse().ok();
            list.split(',').filter_map(digits).collect()
        };
        let steps = numbers("quantiles: [")
            .into_iter()
            .enumerate()
            .take(19)
            .map(|(at, size)| (at as u64 * 500, size));
        let tail = TAIL_AT.into_iter().zip(numbers("tail: ["));
        Self::Quantiles {
            name: text.split('"').nth(1).expect("a name").to_owned(),
            marks: steps.chain(tail).collect(),
        }
    }

    /// The sizes of a tree's files, each inode once, the empty ones left out.
    fn of_tree(root: &str) -> Self {
        let (mut sizes, mut seen, mut dirs) = (Vec::new(), HashSet::new(), vec![root.into()]);
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir::<&Path>(std::path::PathBuf::as_path(&dir))
                .into_iter()
                .flatten()
                .flatten()
            {
                let Ok(status) = fs::symlink_metadata(entry.path()) else {
                    continue;
                };
                if status.is_dir() {
                    dirs.push(entry.path());
                } else if status.is_file() && status.len() > 0 && seen.insert(status.ino()) {
                    sizes.push(status.len());
                }
            }
        }
        Self::Tree {
            name: root.to_owned(),
            sizes,
        }
    }

    /// Draws a size.
    pub fn size(&self, random: &mut Random) -> u64 {
        match self {
            Self::Tree { sizes, .. } => sizes[random.below(sizes.len() as u64) as usize],
            Self::Quantiles { marks, .. } => {
                let at = random.below(10_000);
                let above = marks.partition_point(|(mark, _)| *mark <= at);
                let ((from, low), (to, high)) = (marks[above - 1], marks[above]);
                (low + (high - low) * (at - from) / (to - from)).clamp(1, 64 << 20)
            }
        }
    }
}
