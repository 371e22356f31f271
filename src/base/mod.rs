//! What everything else stands on: units, hashing, randomness. Knows nothing of the proxy.

pub mod hash;
pub mod rng;
pub mod units;
