//! A hash that is the same on every machine and in every version, for placing keys and endpoints.
//!
//! `std`'s hasher differs between processes, so two proxies in front of the same endpoints would
//! send the same key to different places. XXH3 (64 bit) is fixed by its specification.

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64_with_seed};

/// Hashes `bytes`; the same input gives the same output everywhere, for ever.
pub fn stable(bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, 0)
}

/// As [`stable`], with a seed, for algorithms that need several independent hashes of one key.
pub fn stable_seeded(bytes: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

/// As [`stable`], of bytes that do not lie in one piece.
pub fn stable_of(bytes: impl Iterator<Item = u8>) -> u64 {
    let mut hasher = Xxh3Default::new();
    for byte in bytes {
        hasher.update(&[byte]);
    }
    hasher.digest()
}

/// The hash of what comes piece by piece.
#[derive(Default)]
pub struct Running(Xxh3Default);

impl Running {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all that came, which is that of [`stable`]; what follows is hashed anew.
    pub fn take(&mut self) -> u64 {
        let hash = self.0.digest();
        self.0.reset();
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_what_the_specification_says() {
        // From the test vectors of xxHash 0.8.
        assert_eq!(stable(b""), 0x2D06_8005_38D3_94C2);
    }

    #[test]
    fn does_not_depend_on_how_the_bytes_arrive() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for length in [0, 1, 16, 17, 240, 241, 1000] {
            assert_eq!(stable_of(bytes[..length].iter().copied()), stable(&bytes[..length]));
            let mut running = Running::default();
            bytes[..length].chunks(7).for_each(|part| running.add(part));
            assert_eq!(running.take(), stable(&bytes[..length]));
            assert_eq!(running.take(), stable(b""));
        }
    }
}
