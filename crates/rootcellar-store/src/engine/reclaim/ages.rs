//! How much of what is stored was used how long ago.

/// Bytes by the age of their last use, in steps of an eighth of an octave.
#[derive(Debug, Clone)]
pub(super) struct Ages(Box<[u64; Ages::STEPS]>);

impl Ages {
    const STEPS: usize = 33 * 8;

    pub(super) fn new() -> Self {
        Self(vec![0; Self::STEPS].try_into().expect("as many as there are steps"))
    }

    pub(super) fn step(age: u32) -> usize {
        let age = u64::from(age) + 8;
        let octave = age.ilog2();
        let eighth = (age >> (octave - 3)) & 7;
        ((octave - 3) * 8) as usize + usize::try_from(eighth).expect("less than eight")
    }

    /// The least age in a step.
    fn age_of(step: usize) -> u32 {
        let (octave, eighth) = (step / 8, (step % 8) as u64);
        u32::try_from(((8 + eighth) << octave) - 8).unwrap_or(u32::MAX)
    }

    pub(super) fn add(&mut self, age: u32, bytes: u64) {
        self.0[Self::step(age)] += bytes;
    }

    pub(super) fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The least age of the oldest that are together no more than `bytes`, as far as that can be told; `u32::MAX` if there are none.
    pub(super) fn of_oldest_within(&self, bytes: u64) -> u32 {
        let mut sum = 0;
        for (step, counted) in self.0.iter().enumerate().rev() {
            sum += counted;
            if sum > bytes {
                return Self::age_of(step + 1);
            }
        }
        0
    }

    /// The age that `bytes` of those counted have at the least; `u32::MAX` if that is none of them.
    pub(super) fn of_oldest(&self, bytes: u64) -> u32 {
        let mut sum = 0;
        for (step, counted) in self.0.iter().enumerate().rev() {
            if sum >= bytes {
                return Self::age_of(step + 1);
            }
            sum += counted;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_ages_holds_what_it_says() {
        for age in (0..5000).chain([u32::MAX / 3, u32::MAX - 9]) {
            let step = Ages::step(age);
            assert!(Ages::age_of(step) <= age, "{age}");
            assert!(age < Ages::age_of(step + 1), "{age}");
        }
    }

    #[test]
    fn the_age_of_the_oldest() {
        let mut ages = Ages::new();
        ages.add(1000, 10);
        ages.add(100, 30);
        ages.add(3, 60);
        assert_eq!(ages.sum(), 100);
        assert_eq!(ages.of_oldest(0), u32::MAX);
        assert!((900..=1000).contains(&ages.of_oldest(10)));
        assert!((90..=100).contains(&ages.of_oldest(11)));
        assert_eq!(ages.of_oldest(100), 3);
        assert_eq!(ages.of_oldest(101), 0);
        assert!(ages.of_oldest_within(9) > 1000);
        assert!((101..=1000).contains(&ages.of_oldest_within(10)));
        assert!((101..=1000).contains(&ages.of_oldest_within(39)));
        assert!((4..=100).contains(&ages.of_oldest_within(40)));
        assert!((4..=100).contains(&ages.of_oldest_within(99)));
        assert_eq!(ages.of_oldest_within(100), 0);
    }
}
