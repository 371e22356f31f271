//! Keeps away from a disk that fails: after some failures in a row nothing is tried for a while, then one thing.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const FAILURES: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Between two warnings of what goes on failing.
const QUIET: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Breaker {
    /// To be looked at before the lock.
    open: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    wait: Duration,
    /// Nothing is tried before.
    until: Option<Instant>,
    warned: Option<Instant>,
}

impl Breaker {
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Whether something may be tried.
    pub fn allows(&self, now: impl FnOnce() -> Instant) -> bool {
        if !self.is_open() {
            return true;
        }
        let now = now();
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let over = state.until.is_none_or(|until| now >= until);
        if over {
            // One, until it is known how that went.
            state.until = Some(now + state.wait);
        }
        over
    }

    /// `true`: it works again.
    pub fn worked(&self) -> bool {
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State::default();
        self.open.swap(false, Relaxed)
    }

    /// `true`: that should be told.
    pub fn failed(&self, now: Instant) -> bool {
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES {
            return false;
        }
        // Several that were on their way fail together.
        if state.until.is_none_or(|until| now >= until) || state.failures == FAILURES {
            state.wait = (state.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
        }
        state.until = Some(now + state.wait);
        self.open.store(true, Relaxed);
        let tell = state.warned.is_none_or(|at| now - at >= QUIET);
        if tell {
            state.warned = Some(now);
        }
        tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_left_alone_for_longer_and_longer_and_comes_back() {
        let breaker = Breaker::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(!breaker.failed(at(0)) && !breaker.failed(at(0)) && breaker.allows(|| at(0)));
        assert!(breaker.failed(at(0)), "the third is told");
        assert!(breaker.is_open() && !breaker.allows(|| at(0)));
        assert!(!breaker.failed(at(0)), "one that was on its way");
        assert!(breaker.allows(|| at(1)) && !breaker.allows(|| at(1)), "one is tried");
        assert!(!breaker.failed(at(2)), "told already");
        assert!(!breaker.allows(|| at(3)) && breaker.allows(|| at(4)));
        assert!(breaker.failed(at(100)), "told again a minute later");
        assert!(breaker.worked() && !breaker.is_open() && breaker.allows(|| at(100)));
        assert!(!breaker.worked() && !breaker.failed(at(100)));
    }
}
