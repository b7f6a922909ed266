//! Which shards a blob belongs to: weighted rendezvous hashing.
//!
//! Each shard draws a number for a key, and the highest ones win: `-weight / ln(u)`, where `u` in (0, 1) is a hash of the key and the
//! shard's name. So a shard wins as often as its weight says, and one that comes or goes changes nothing between the others: a key moves
//! only to a shard that came, or from one that went. (Thaler and Ravishankar 1998; the weights: Schindelhauer and Schomaker 2005.)

use rootcellar_digest::Digest;

use crate::checksum::{hash_with_seed, seed_of};
use crate::layout::function_number;
use crate::{Error, ErrorKind, Result};

/// Shards by their names and weights.
#[derive(Debug, Clone)]
pub(super) struct Rendezvous {
    shards: Vec<Drawer>,
}

#[derive(Debug, Clone)]
struct Drawer {
    seed: u64,
    weight: f64,
}

impl Rendezvous {
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if a name is there twice, a weight is no number from 0 up, or all are 0.
    pub(super) fn new<'a>(shards: impl Iterator<Item = (&'a str, f64)>) -> Result<Self> {
        let invalid = |reason: String| Err(Error::new(ErrorKind::InvalidArgument, "shard", reason));
        let (mut drawers, mut names): (Vec<Drawer>, Vec<&str>) = (Vec::new(), Vec::new());
        for (name, weight) in shards {
            if names.contains(&name) {
                return invalid(format!("two shards are named {name:?}"));
            }
            if !(weight.is_finite() && weight >= 0.0) {
                return invalid(format!(
                    "shard {name:?}: its weight is {weight}, and should be 0 or more"
                ));
            }
            names.push(name);
            drawers.push(Drawer {
                seed: seed_of(name.as_bytes()),
                weight,
            });
        }
        if !drawers.iter().any(|drawer| drawer.weight > 0.0) {
            return invalid("there is no shard with a weight above 0".to_owned());
        }
        Ok(Self { shards: drawers })
    }

    /// The shards of a blob, the first choice first: `count` of them, or all that have a weight.
    pub(super) fn of_blob(&self, digest: &Digest, count: usize) -> Vec<usize> {
        let mut key = [0; 1 + 64];
        let hash = digest.hash();
        key[0] = function_number(digest.function());
        key[1..=hash.len()].copy_from_slice(hash);
        self.of_key(&key[..=hash.len()], count)
    }

    /// The same for any key.
    pub(super) fn of_key(&self, key: &[u8], count: usize) -> Vec<usize> {
        let drawn = self.shards.iter().enumerate().filter(|(_, drawer)| drawer.weight > 0.0);
        let mut drawn: Vec<(f64, usize)> = drawn.map(|(shard, drawer)| (drawer.draw(key), shard)).collect();
        drawn.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        drawn.truncate(count);
        drawn.into_iter().map(|(_, shard)| shard).collect()
    }
}

impl Drawer {
    fn draw(&self, key: &[u8]) -> f64 {
        let hash = hash_with_seed(self.seed, key);
        // 53 bits, and never 0 or 1.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -self.weight / uniform.ln()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rootcellar_digest::DigestFunction;

    use super::*;

    fn rendezvous(shards: &[(String, f64)]) -> Rendezvous {
        Rendezvous::new(shards.iter().map(|(name, weight)| (name.as_str(), *weight))).unwrap()
    }

    fn blobs(count: u32) -> impl Iterator<Item = Digest> {
        (0..count).map(|number| Digest::of(DigestFunction::Sha256, &number.to_le_bytes()))
    }

    fn names<'a>(shards: &'a [(String, f64)], chosen: &[usize]) -> Vec<&'a str> {
        chosen.iter().map(|shard| shards[*shard].0.as_str()).collect()
    }

    prop_compose! {
        fn shards()(weights in proptest::collection::btree_map("[a-z]{1,6}", 1..100_u32, 2..9)) -> Vec<(String, f64)> {
            weights.into_iter().map(|(name, weight)| (name, f64::from(weight) / 10.0)).collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the shards, their weights and the number of copies.
        #[test]
        fn a_shard_that_goes_moves_only_what_it_had(shards in shards(), replicas in 1..4_usize, gone in any::<prop::sample::Index>()) {
            let gone = gone.index(shards.len());
            let mut left = shards.clone();
            let (gone, _) = left.remove(gone);
            let (before, after) = (rendezvous(&shards), rendezvous(&left));
            for digest in blobs(500) {
                let had = before.of_blob(&digest, replicas);
                let had = names(&shards, &had);
                let has = after.of_blob(&digest, replicas);
                let has = names(&left, &has);
                let kept: Vec<&str> = had.iter().copied().filter(|name| *name != gone).collect();
                prop_assert_eq!(&kept[..], &has[..kept.len()], "what others had they have, in the same order");
                prop_assert!(had.contains(&gone.as_str()) || kept == has);
            }
        }

        #[test]
        fn each_shard_has_a_share_as_its_weight(shards in shards()) {
            const BLOBS: u32 = 20_000;
            let rendezvous = rendezvous(&shards);
            let mut shares: BTreeMap<usize, f64> = BTreeMap::new();
            for digest in blobs(BLOBS) {
                *shares.entry(rendezvous.of_blob(&digest, 1)[0]).or_default() += 1.0 / f64::from(BLOBS);
            }
            let sum: f64 = shards.iter().map(|(_, weight)| weight).sum();
            for (shard, (name, weight)) in shards.iter().enumerate() {
                let (share, expected) = (shares.get(&shard).copied().unwrap_or(0.0), weight / sum);
                // Six standard deviations.
                let tolerance = 6.0 * (expected * (1.0 - expected) / f64::from(BLOBS)).sqrt() + 1e-4;
                prop_assert!((share - expected).abs() < tolerance, "{name} has {share}, not {expected}");
            }
        }
    }

    #[test]
    fn all_copies_are_on_different_shards_and_weight_zero_gets_none() {
        let shards = [("a", 1.0), ("b", 0.0), ("c", 3.0)].map(|(name, weight)| (name.to_owned(), weight));
        let rendezvous = rendezvous(&shards);
        for digest in blobs(100) {
            let mut chosen = rendezvous.of_blob(&digest, 5);
            chosen.sort_unstable();
            assert_eq!(chosen, [0, 2]);
        }
    }

    /// All front ends have to agree, of whatever version.
    #[test]
    fn places_stay_what_they_are() {
        let shards: Vec<(String, f64)> = (0..5_u8)
            .map(|number| (format!("shard-{number}"), f64::from(number + 1)))
            .collect();
        let rendezvous = rendezvous(&shards);
        let chosen: Vec<usize> = blobs(16).map(|digest| rendezvous.of_blob(&digest, 1)[0]).collect();
        assert_eq!(chosen, [3, 4, 4, 1, 2, 3, 4, 3, 4, 3, 1, 3, 2, 4, 4, 4]);
    }

    #[test]
    fn names_are_unique_and_weights_are_sane() {
        for (bad, word) in [
            (vec![("a", 1.0), ("a", 2.0)], "two shards"),
            (vec![("a", f64::NAN)], "weight"),
            (vec![("a", -1.0)], "weight"),
            (vec![("a", 0.0)], "no shard"),
            (vec![], "no shard"),
        ] {
            let error = Rendezvous::new(bad.into_iter()).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
