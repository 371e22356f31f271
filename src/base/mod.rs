//! What everything else stands on: units, hashing, randomness. Knows nothing of the proxy.

pub mod hash;
pub mod pairs;
pub mod rng;
pub mod units;
