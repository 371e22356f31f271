//! What everything else stands on: units, hashing, randomness, secrets, tasks. Knows nothing of the proxy.

pub mod clock;
pub mod hash;
pub mod pairs;
pub mod rng;
pub mod secret;
pub mod tail;
pub mod task;
pub mod terminal;
pub mod units;
