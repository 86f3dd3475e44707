//! Chance that can be repeated, and waiting between tries.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

/// Numbers that follow from a seed. Not secret.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    /// The numbers of `seed` for one user of it.
    pub(crate) fn new(seed: u64, user: u64) -> Self {
        Self { seed: mix(&(seed, user)), drawn: 0 }
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.drawn += 1;
        mix(&(self.seed, self.drawn)) % bound
    }

    /// One of several.
    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Puts a list into another order.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// The pause after so many failures in a row: at once after the first, since a kept connection may just have died,
    /// then 0.5, 1, 2, 4 and 8 s, less up to a quarter.
    pub(crate) fn backoff(&mut self, failures: u32) -> Duration {
        if failures < 2 {
            return Duration::ZERO;
        }
        let longest = 500 << (failures - 2).min(4);
        Duration::from_millis(longest - self.below(longest / 4))
    }
}

fn mix(value: &impl std::hash::Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_repeats_and_users_differ() {
        let draw = |seed, user| {
            let mut random = Random::new(seed, user);
            (0..8).map(|_| random.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn backoff_grows_and_ends_at_8_s() {
        let mut random = Random::new(1, 1);
        assert_eq!(random.backoff(1), Duration::ZERO);
        for failures in 2..40 {
            let pause = random.backoff(failures).as_millis();
            let longest = 500 << (failures - 2).min(4);
            assert!((longest - longest / 4..=longest).contains(&pause), "{failures}: {pause}");
        }
    }
}
