//! `ring_hash`: endpoints as points on a circle; a key goes to the next point after its own.
//!
//! Consistent hashing (Karger et al., 1997) as ketama and Envoy have it. An endpoint's points follow from its
//! label and weight alone, so when it goes, its keys alone move, each to the next point on the circle.
//!
//! There are 1,024 points for each unit of weight, or half as many, or a quarter and so on where the
//! circle would have more than 262,144: the more points an endpoint has, the less its share is left to
//! chance (off by `1 / sqrt(points)`: 3 % with 1,024). Sums of weights up to 256 have them all; 10,000 endpoints
//! get 16 each. Only where a change of members crosses such a step do more keys move than must.
//!
//! A pick is O(1): points are hashes and so spread evenly, and an index with an entry for
//! every point leads to where the search begins, one step before its end on average.

use super::bounded::Walk;
use super::{Balancer, Candidate, Hashing, Memory, PickContext, UNIT, labels, weights};
use crate::base::hash;
use crate::base::rng::Rng;

/// Points for a weight of 1, where there is room.
const POINTS: u64 = 1024;
/// The most points on the circle, unless more endpoints want one each.
const MOST: u64 = 1 << 18;

/// Points on a circle.
#[derive(Debug)]
pub struct RingHash {
    walk: Walk,
    circle: Circle,
}

#[derive(Debug, Default)]
struct Circle {
    /// In order.
    places: Box<[u64]>,
    /// The position of the candidate at each place.
    owners: Box<[u32]>,
    /// For each value of the topmost `bits` bits, the number of the first place that is not below it.
    index: Box<[u32]>,
    bits: u32,
}

impl RingHash {
    /// The order of `candidates` does not matter, only their labels and weights.
    pub fn new(candidates: &[Candidate], hashing: &Hashing, memory: &Memory) -> Self {
        Self {
            walk: Walk::new(candidates, hashing, memory),
            circle: Circle::new(&labels(candidates), &weights(candidates)),
        }
    }
}

impl Balancer for RingHash {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let key = cx.key.unwrap_or_else(|| cx.rng.next_u64());
        let (before, from) = self.circle.owners.split_at_checked(self.circle.next(key))?;
        self.walk
            .pick(cx, from.iter().chain(before).map(|position| *position as usize))
    }
}

impl Circle {
    /// Sorted by topmost bits first: these are hashes, so what then is left to sort are ones and twos.
    fn new(labels: &[&str], weights: &[u32]) -> Self {
        let points = points(labels, weights);
        if points.is_empty() {
            return Self {
                bits: 1,
                ..Self::default()
            };
        }
        let bits = points.len().max(2).ilog2();
        let mut index = vec![0u32; 1 << bits];
        // Counts, then sums of what is below. `top` is below the length of `index`, a sum at most that of `points`.
        for (place, _) in &points {
            index[top(*place, bits)] += 1;
        }
        let mut below = 0;
        for entry in &mut index {
            below += std::mem::replace(entry, below);
        }
        let mut next = index.clone();
        let mut sorted = vec![(0, 0); points.len()];
        for point in points {
            let entry = &mut next[top(point.0, bits)];
            sorted[*entry as usize] = point;
            *entry += 1;
        }
        for (from, to) in index.iter().zip(next) {
            // Two at one place: the same one first in every proxy, whatever order it lists them in.
            let label = |position: u32| labels.get(position as usize).copied();
            sorted[*from as usize..to as usize].sort_unstable_by_key(|(place, owner)| (*place, label(*owner)));
        }
        Self {
            places: sorted.iter().map(|(place, _)| *place).collect(),
            owners: sorted.iter().map(|(_, owner)| *owner).collect(),
            index: index.into(),
            bits,
        }
    }

    /// The number of the first point at or after `key`.
    fn next(&self, key: u64) -> usize {
        let from = self.index.get(top(key, self.bits)).map_or(0, |first| *first as usize);
        let rest = self.places.get(from..).unwrap_or_default();
        from + rest.iter().take_while(|place| **place < key).count()
    }
}

fn top(place: u64, bits: u32) -> usize {
    (place >> (64 - bits)) as usize
}

/// Every point with its owner.
fn points(labels: &[&str], weights: &[u32]) -> Vec<(u64, u32)> {
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let mut per_unit = POINTS;
    while per_unit > 1 && sum * per_unit > MOST * u64::from(UNIT) {
        per_unit /= 2;
    }
    let mut points = Vec::new();
    for (position, (label, weight)) in (0u32..).zip(labels.iter().zip(weights)) {
        let mut rng = Rng::new(hash::stable_seeded(label.as_bytes(), 4));
        let count = (u64::from(*weight) * per_unit / u64::from(UNIT)).max(1);
        points.extend((0..count).map(|_| (rng.next_u64(), position)));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::super::contract::{candidates, hashing};
    use super::*;

    fn ring(weights: &[u16]) -> RingHash {
        RingHash::new(&candidates(weights), &hashing(None), &Memory::default())
    }

    #[test]
    fn a_key_goes_to_the_next_point_round_the_circle() {
        for count in [1, 2, 3, 300] {
            let ring = ring(&vec![1; count]);
            let mut rng = Rng::new(9);
            let last = *ring.circle.places.last().unwrap();
            for key in (0..2_000)
                .map(|_| rng.next_u64())
                .chain([0, last, last.wrapping_add(1), u64::MAX])
            {
                assert_eq!(
                    ring.circle.next(key),
                    ring.circle.places.partition_point(|place| *place < key),
                    "{key}"
                );
            }
        }
    }

    #[test]
    fn points_follow_the_weights_and_have_a_limit() {
        assert_eq!(ring(&[1, 3]).circle.places.len(), 4096);
        assert_eq!(ring(&[1; 10_000]).circle.places.len(), 160_000);
        let ring = ring(&[256; 300]);
        assert!(ring.circle.places.len() <= MOST as usize);
    }

    #[test]
    fn the_circle_is_the_same_for_ever_and_in_any_order() {
        let labels = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
        let named = |labels: &[&str], weights: &[u32]| -> Vec<(u64, String)> {
            let circle = Circle::new(labels, weights);
            let owner = |owner: &u32| labels[*owner as usize].to_owned();
            circle
                .places
                .iter()
                .copied()
                .zip(circle.owners.iter().map(owner))
                .collect()
        };
        let circle = named(&labels, &[64, 128, 192]);
        let digest = circle.iter().fold(0, |digest, (place, owner)| {
            hash::stable_seeded(owner.as_bytes(), place ^ digest)
        });
        // A change here moves the keys of everyone who upgrades.
        assert_eq!(digest, 3_201_655_975_760_744_655);
        let turned = [labels[2], labels[1], labels[0]];
        assert_eq!(circle, named(&turned, &[192, 128, 64]));
    }
}
