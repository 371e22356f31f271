//! Moments as small numbers: for idle times, and for stamps that share an atomic word with something else.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since some moment before the process began. Costs next to nothing and is a few of them coarse.
pub fn coarse_ms() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    let (seconds, nanos) = (now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned());
    seconds.wrapping_mul(1_000).wrapping_add(nanos / 1_000_000)
}

/// An hour before the process first asked, so that moments before that have a number too.
static EPOCH: LazyLock<Instant> = LazyLock::new(|| {
    let now = Instant::now();
    now.checked_sub(Duration::from_secs(3600)).unwrap_or(now)
});

/// Microseconds since an epoch of this process.
pub fn micros(moment: Instant) -> u64 {
    moment.saturating_duration_since(*EPOCH).as_micros() as u64
}
