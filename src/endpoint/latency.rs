//! How slow an endpoint is now: one number in one atomic word, raised at once and lowered slowly.
//!
//! Finagle's peak EWMA. A response that took longer than the estimate replaces it; a shorter one
//! pulls it down by as much as time has passed, and so does silence. An attempt that failed counts as
//! one that took as long as the caller says, and each further failure in a row doubles the
//! estimate: however fast an endpoint fails, it does not look fast.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::base::clock;

/// After so long what is known has lost all but a third of its weight (Finagle's and linkerd's decay).
const DECAY: Duration = Duration::from_secs(10);
/// After so many decays without an attempt nothing is known any more.
const FORGOTTEN: f32 = 4.0;
/// No failures in a row look slower than this.
const WORST: f32 = 60e6;
/// Stamps count in these: the low half of a word reaches for 38 hours.
const TICK_US: u64 = 64;
const DECAY_TICKS: f32 = DECAY.as_micros() as f32 / TICK_US as f32;
/// Beside the estimate, which is never negative: the last attempt failed.
const FAILED: u32 = 1 << 31;

/// An estimate in microseconds (a float's 31 bits), a flag, and when it was made.
#[derive(Debug, Default)]
pub struct PeakEwma(AtomicU64);

/// How an attempt ended, as far as an estimate is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// It was answered after so long.
    Answered(Duration),
    /// It failed or was shed, and counts as having taken so long.
    Failed(Duration),
    /// It was given up after so long: an answer would have taken longer.
    Longer(Duration),
}

impl PeakEwma {
    /// Takes in how an attempt ended at `now`.
    pub fn observe(&self, now: Instant, sample: Sample) {
        let now = ticks(now);
        // Never `None`, so never an error.
        let _ = self
            .0
            .fetch_update(Relaxed, Relaxed, |word| Some(after(word, now, sample)));
    }

    /// In microseconds; `None`: nothing is known, or nothing is any more.
    pub fn at(&self, now: Instant) -> Option<f32> {
        let (estimate, _, then) = unpack(self.0.load(Relaxed));
        let age = age(ticks(now), then);
        (estimate > 0.0 && age < FORGOTTEN).then(|| estimate * (-age).exp())
    }
}

fn after(word: u64, now: u32, sample: Sample) -> u64 {
    let (estimate, failed, then) = unpack(word);
    let keep = (-age(now, then)).exp();
    let us = |took: Duration| (took.as_secs_f32() * 1e6).clamp(1.0, WORST);
    let (estimate, failed) = match sample {
        Sample::Answered(took) if us(took) > estimate => (us(took), false),
        Sample::Answered(took) => (estimate * keep + us(took) * (1.0 - keep), false),
        Sample::Failed(took) if failed => ((2.0 * estimate * keep).clamp(us(took), WORST), true),
        Sample::Failed(took) => (us(took).max(estimate * keep), true),
        Sample::Longer(took) => (us(took).max(estimate * keep), failed),
    };
    pack(estimate, failed, now)
}

fn pack(estimate: f32, failed: bool, then: u32) -> u64 {
    let flag = if failed { FAILED } else { 0 };
    (u64::from(estimate.to_bits() | flag) << 32) | u64::from(then)
}

fn unpack(word: u64) -> (f32, bool, u32) {
    let high = (word >> 32) as u32;
    (f32::from_bits(high & !FAILED), high & FAILED != 0, word as u32)
}

fn ticks(moment: Instant) -> u32 {
    (clock::micros(moment) / TICK_US) as u32
}

/// In decays. Workers' clocks may be a little apart, so that `then` lies after `now`.
fn age(now: u32, then: u32) -> f32 {
    now.wrapping_sub(then).cast_signed().max(0) as f32 / DECAY_TICKS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn after_ms(start: Instant, ms: u32) -> Instant {
        start + ms * MS
    }

    #[test]
    fn rises_at_once_and_falls_slowly() {
        let (ewma, start) = (PeakEwma::default(), Instant::now());
        assert_eq!(ewma.at(start), None);
        ewma.observe(start, Sample::Answered(10 * MS));
        ewma.observe(start, Sample::Answered(200 * MS));
        let near = |ms, value: f32| {
            let at = ewma.at(after_ms(start, ms)).unwrap();
            assert!((at / value - 1.0).abs() < 0.01, "{at} for {value}");
        };
        near(0, 200_000.0);
        near(10_000, 73_576.0);
        ewma.observe(after_ms(start, 10_000), Sample::Answered(10 * MS));
        near(10_000, 73_576.0 + 10_000.0 * 0.632);
        assert_eq!(ewma.at(after_ms(start, 51_000)), None, "forgotten");
    }

    #[test]
    fn failures_cost_what_they_are_charged_and_double_in_a_row() {
        let (ewma, start) = (PeakEwma::default(), Instant::now());
        ewma.observe(start, Sample::Answered(MS));
        ewma.observe(start, Sample::Failed(50 * MS));
        assert_eq!(ewma.at(start), Some(50_000.0));
        ewma.observe(start, Sample::Failed(50 * MS));
        ewma.observe(start, Sample::Failed(50 * MS));
        assert_eq!(ewma.at(start), Some(200_000.0));
        for _ in 0..100 {
            ewma.observe(start, Sample::Failed(MS));
        }
        assert_eq!(ewma.at(start), Some(WORST));
        // One answer, and the next failure is the first again.
        ewma.observe(after_ms(start, 40_000), Sample::Answered(MS));
        let before = ewma.at(after_ms(start, 40_000)).unwrap();
        ewma.observe(after_ms(start, 40_000), Sample::Failed(MS));
        assert_eq!(ewma.at(after_ms(start, 40_000)), Some(before));
    }

    #[test]
    fn what_was_given_up_took_at_least_so_long() {
        let (ewma, start) = (PeakEwma::default(), Instant::now());
        ewma.observe(start, Sample::Answered(100 * MS));
        ewma.observe(start, Sample::Longer(10 * MS));
        assert_eq!(ewma.at(start), Some(100_000.0));
        ewma.observe(start, Sample::Longer(300 * MS));
        assert_eq!(ewma.at(start), Some(300_000.0));
    }

    #[test]
    fn a_clock_that_is_behind_does_no_harm() {
        let (ewma, start) = (PeakEwma::default(), Instant::now());
        ewma.observe(after_ms(start, 5), Sample::Answered(10 * MS));
        ewma.observe(start, Sample::Answered(10 * MS));
        assert_eq!(ewma.at(start), Some(10_000.0));
    }
}
