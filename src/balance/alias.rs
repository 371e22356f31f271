//! Weighted random choice in constant time: the alias method.
//!
//! Walker's tables built as in Vose, "A linear algorithm for generating random numbers with a given
//! distribution" (1991), in whole numbers, so no rounding can leave a slot unfilled.

use crate::base::rng::Rng;

/// Draws positions with a probability proportional to their weight.
#[derive(Debug)]
pub struct Alias(Box<[Slot]>);

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The share of this slot that is its own, of 2^64.
    own: u64,
    /// Whose the rest is.
    other: u32,
}

impl Alias {
    /// Tables for `weights`: fewer than 2^32 of them, none 0.
    pub fn new(weights: &[u32]) -> Self {
        let count = weights.len() as u64;
        // A slot holds `total` parts, a weight is worth `weight * count` parts: they fill the slots exactly.
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut parts: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) * count).collect();
        let mut slots: Box<[Slot]> = (0..count as u32).map(|other| Slot { own: u64::MAX, other }).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|position| parts[*position] < total);
        // Positions come from `0..weights.len()`, the length of both tables.
        while let (Some(&poor), Some(&rich)) = (small.last(), large.last()) {
            small.pop();
            slots[poor] = Slot {
                own: ((u128::from(parts[poor]) << 64) / u128::from(total)) as u64,
                other: rich as u32,
            };
            parts[rich] -= total - parts[poor];
            if parts[rich] < total {
                large.pop();
                small.push(rich);
            }
        }
        Self(slots)
    }

    /// A position; `None` for an empty table.
    pub fn draw(&self, rng: &mut Rng) -> Option<usize> {
        // One random number serves twice: the product's high half is the slot, its low half the place within.
        let product = u128::from(rng.next_u64()) * self.0.len() as u128;
        let (position, place) = ((product >> 64) as usize, product as u64);
        let slot = self.0.get(position)?;
        Some(if place < slot.own {
            position
        } else {
            slot.other as usize
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::rng::Rng;

    /// The share of each position, of 1, exactly as the tables have it.
    fn shares(alias: &Alias) -> Vec<f64> {
        let mut shares = vec![0.0; alias.0.len()];
        for (position, slot) in alias.0.iter().enumerate() {
            let own = slot.own as f64 / (u64::MAX as f64);
            shares[position] += own / alias.0.len() as f64;
            shares[slot.other as usize] += (1.0 - own) / alias.0.len() as f64;
        }
        shares
    }

    proptest! {
        #[test]
        fn the_tables_hold_the_weights(weights in prop::collection::vec(1u32..=256, 1..200)) {
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (share, weight) in shares(&Alias::new(&weights)).into_iter().zip(weights) {
                prop_assert!((share - f64::from(weight) / total).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn draws_follow_the_weights() {
        let alias = Alias::new(&[1, 3, 6]);
        let mut rng = Rng::new(5);
        let mut seen = [0u32; 3];
        for _ in 0..10_000 {
            seen[alias.draw(&mut rng).unwrap()] += 1;
        }
        assert!(
            (900..1100).contains(&seen[0]) && (2850..3150).contains(&seen[1]),
            "{seen:?}"
        );
    }

    #[test]
    fn an_empty_table_draws_nothing() {
        assert_eq!(Alias::new(&[]).draw(&mut Rng::new(0)), None);
    }
}
