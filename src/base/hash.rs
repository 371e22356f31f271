//! A hash that is the same on every machine and in every version, for placing keys and endpoints.
//!
//! `std`'s hasher differs between processes, so two proxies in front of the same endpoints would
//! send the same key to different places. XXH3 (64 bit) is fixed by its specification.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Hashes `bytes`; the same input gives the same output everywhere, for ever.
pub fn stable(bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, 0)
}

/// As [`stable`], with a seed, for algorithms that need several independent hashes of one key.
pub fn stable_seeded(bytes: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}
