//! The sizes that builds are made of.
//!
//! Each mix was taken from a real tree: every distinct content once, the empty one left out. It is kept as quantiles, 21 of all and 9
//! of the largest twentieth, between which sizes are drawn evenly. The largest sizes are cut at 64 MiB, so that one of them does not
//! decide what a run of some hundred MiB shows.

use rootcellar_digest::DigestFunction;
use rootcellar_store::Verified;

use crate::random::Random;

/// The sizes of a tree's blobs.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it was taken from, and how.
    pub origin: &'static str,
    /// Sizes at every twentieth of all blobs, the smallest first.
    quantiles: [u64; 21],
    /// Sizes at 95, 96, 97, 98, 99, 99.5, 99.9, 99.99 and 100 percent.
    tail: [u64; 9],
}

/// Where the sizes of [`Mix::tail`] stand, in ten-thousandths.
const TAIL_AT: [u64; 9] = [9500, 9600, 9700, 9800, 9900, 9950, 9990, 9999, 10_000];

const SIZE_MAX: u64 = 64 << 20;

/// Every mix.
pub const MIXES: [Mix; 8] = [
    Mix {
        name: "deb-root",
        origin: "mmdebstrap of Debian 12 with build-essential, git, cmake and python3: a root to build in",
        quantiles: [
            1, 114, 233, 364, 532, 698, 911, 1190, 1505, 1860, 2229, 2728, 3424, 4410, 6295, 9007, 13_475, 18_680,
            32_142, 67_389, 35_464_168,
        ],
        tail: [
            67_389, 84_186, 115_735, 170_166, 360_714, 817_080, 3_823_968, 31_949_128, 35_464_168,
        ],
    },
    Mix {
        name: "rust-target",
        origin: "the target directory of a crate with tokio, axum, sqlx and such, debug and release",
        quantiles: [
            14, 16, 16, 16, 335, 425, 523, 655, 1152, 2118, 3304, 6104, 10_200, 17_144, 27_904, 51_600, 128_790,
            342_315, 702_471, 2_552_720, 29_334_158,
        ],
        tail: [
            2_552_720, 3_318_774, 4_351_830, 4_937_746, 7_243_476, 10_331_860, 20_259_128, 29_334_158, 29_334_158,
        ],
    },
    Mix {
        name: "c-kernel",
        origin: "make defconfig kernel/ mm/ fs/ lib/ net/ of Linux 6.1, the output directory",
        quantiles: [
            8, 136, 564, 2976, 4768, 7127, 10_035, 13_528, 17_168, 25_320, 35_304, 50_821, 58_568, 65_346, 70_678,
            75_296, 80_065, 84_881, 93_970, 98_569, 1_102_168,
        ],
        tail: [
            98_569, 102_815, 117_056, 153_104, 205_928, 352_144, 821_304, 1_102_168, 1_102_168,
        ],
    },
    Mix {
        name: "c-debug",
        origin: "objects and archives of seven C libraries, built with -O0 -g",
        quantiles: [
            1, 144, 507, 1312, 2379, 3146, 4013, 4228, 4318, 5935, 8450, 12_272, 16_208, 22_552, 30_746, 41_368,
            59_760, 102_528, 462_344, 587_800, 46_052_980,
        ],
        tail: [
            587_800, 630_776, 733_696, 876_856, 2_425_776, 6_571_864, 14_607_826, 46_052_980, 46_052_980,
        ],
    },
    Mix {
        name: "py-venv",
        origin: "a venv with numpy, scipy, pandas, django, jupyterlab, boto3 and such",
        quantiles: [
            1, 193, 337, 575, 757, 1008, 1294, 1692, 2264, 2980, 3922, 5188, 6758, 8644, 11_402, 15_234, 20_015,
            27_860, 40_890, 76_659, 25_409_073,
        ],
        tail: [
            76_659, 92_349, 115_248, 153_897, 226_338, 367_177, 1_529_553, 5_568_040, 25_409_073,
        ],
    },
    Mix {
        name: "node-modules",
        origin: "react-scripts, next, typescript, webpack, jest and such",
        quantiles: [
            1,
            86,
            110,
            165,
            235,
            319,
            391,
            491,
            616,
            761,
            917,
            1106,
            1366,
            1757,
            2260,
            3000,
            4010,
            5836,
            9465,
            19_614,
            100_917_352,
        ],
        tail: [
            19_614,
            25_092,
            33_793,
            52_296,
            126_125,
            289_798,
            1_364_777,
            11_427_952,
            100_917_352,
        ],
    },
    Mix {
        name: "headers",
        origin: "Linux headers, libc, libstdc++, boost and llvm development packages",
        quantiles: [
            6, 412, 576, 729, 908, 1083, 1280, 1535, 1831, 2155, 2549, 2999, 3587, 4307, 5288, 6596, 8389, 11_299,
            16_572, 31_048, 16_201_718,
        ],
        tail: [
            31_048, 37_874, 48_448, 68_340, 132_901, 292_645, 3_018_522, 10_441_182, 16_201_718,
        ],
    },
    Mix {
        name: "linux-src",
        origin: "the sources of Linux 6.1, unpacked",
        quantiles: [
            5, 263, 455, 699, 973, 1294, 1635, 2057, 2546, 3150, 3896, 4814, 5945, 7301, 9083, 11_472, 14_885, 19_989,
            28_862, 48_226, 23_944_620,
        ],
        tail: [
            48_226, 55_994, 66_722, 84_035, 124_988, 191_231, 1_120_270, 11_368_060, 23_944_620,
        ],
    },
];

impl Mix {
    /// The mix with a name.
    pub fn named(name: &str) -> Option<Self> {
        MIXES.into_iter().find(|mix| mix.name == name)
    }

    /// Draws a size.
    pub fn size(&self, random: &mut Random) -> u64 {
        let at = random.below(10_000);
        let size = match TAIL_AT.iter().rposition(|mark| *mark <= at) {
            Some(step) => between(
                at,
                TAIL_AT[step],
                TAIL_AT[step + 1],
                self.tail[step],
                self.tail[step + 1],
            ),
            None => {
                let step = at / 500;
                let index = usize::try_from(step).expect("twenty steps");
                between(
                    at,
                    step * 500,
                    (step + 1) * 500,
                    self.quantiles[index],
                    self.quantiles[index + 1],
                )
            }
        };
        size.clamp(1, SIZE_MAX)
    }

    /// Draws blobs of about `bytes` in all, all of them different.
    pub fn blobs(&self, seed: u64, bytes: u64) -> Vec<Verified> {
        let mut random = Random::new(seed);
        let (mut blobs, mut sum) = (Vec::new(), 0);
        while sum < bytes {
            // The last of a run is not larger than what is left: some mixes have blobs as large as a run.
            let size = self.size(&mut random).min(bytes - sum).max(1);
            sum += size;
            blobs.push(Verified::of(DigestFunction::Sha256, random.bytes(size)));
        }
        blobs
    }
}

/// The size at `at`, on the line from `low` at `from` to `high` at `to`.
fn between(at: u64, from: u64, to: u64, low: u64, high: u64) -> u64 {
    low + (high - low) * (at - from) / (to - from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_has_the_quantiles_that_it_was_made_of() {
        for mix in MIXES {
            let mut random = Random::new(1);
            let mut sizes: Vec<u64> = (0..20_000).map(|_| mix.size(&mut random)).collect();
            sizes.sort_unstable();
            for (step, quantile) in mix.quantiles.iter().enumerate().take(19).skip(2) {
                let found = sizes[step * 1000];
                let (low, high) = (mix.quantiles[step - 1], mix.quantiles[step + 1]);
                assert!(
                    (low..=high).contains(&found),
                    "{} at {step}/20: {found}, not {quantile}",
                    mix.name
                );
            }
        }
    }
}
