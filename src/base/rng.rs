//! A small, fast, seedable random number generator, passed as an argument wherever chance decides.
//!
//! Not for secrets. SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
//! generators", 2014).

use std::time::Duration;

/// SplitMix64. The same seed gives the same sequence.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose whole sequence follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator seeded by the standard library's per-process randomness.
    pub fn from_entropy() -> Self {
        use std::hash::{BuildHasher, Hasher};
        Self(std::collections::hash_map::RandomState::new().build_hasher().finish())
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..n`, without the bias of a modulo (Lemire's multiply and shift). 0 for `n == 0`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A duration between `(1 - share)` and the whole of `full`: jitter that never makes it longer.
    pub fn shortened(&mut self, full: Duration, share: f64) -> Duration {
        full.mul_f64(1.0 - share.clamp(0.0, 1.0) * self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_sequence() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        assert!((0..100).all(|_| a.next_u64() == b.next_u64()));
    }

    #[test]
    fn below_stays_in_range_and_reaches_all_of_it() {
        let mut rng = Rng::new(1);
        let mut seen = [0u32; 5];
        for _ in 0..5000 {
            seen[rng.below(5) as usize] += 1;
        }
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
    }

    #[test]
    fn jitter_only_shortens() {
        let mut rng = Rng::new(3);
        for _ in 0..1000 {
            let d = rng.shortened(Duration::from_secs(10), 0.2);
            assert!(d <= Duration::from_secs(10) && d >= Duration::from_secs(8));
        }
    }
}
