//! A clock that costs next to nothing and is a few milliseconds coarse: for idle times.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since some moment before the process began.
pub fn coarse_ms() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    let (seconds, nanos) = (now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned());
    seconds.wrapping_mul(1_000).wrapping_add(nanos / 1_000_000)
}
