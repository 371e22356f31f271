//! How often each algorithm would have picked an endpoint, since it was last asked: what shadow scoring counts.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Algorithms that can be told apart: as many as `balance` has.
pub const ALGORITHMS: usize = 8;

/// One endpoint's. Only sampled picks write here.
#[derive(Debug, Default)]
pub struct Tally([AtomicU32; ALGORITHMS]);

impl Tally {
    /// The algorithm of this number would have picked it.
    pub fn count(&self, algorithm: usize) {
        if let Some(count) = self.0.get(algorithm) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// What has been counted; counting starts anew.
    pub fn take(&self) -> [u32; ALGORITHMS] {
        self.0.each_ref().map(|count| match count.load(Relaxed) {
            // Mostly, and then there is nothing to write.
            0 => 0,
            _ => count.swap(0, Relaxed),
        })
    }
}
