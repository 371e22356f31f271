//! How long a client may be waited for in all: a pause at a time, and longer only for bytes it has moved.
//!
//! A time-out for each pause alone lets a client that moves one byte a second hold a connection and an endpoint for as
//! long as it likes. So the time spent waiting for it adds up, and every byte buys some of it back. Time in which it
//! is not waited for (the endpoint is slow) costs it nothing.

use std::time::Duration;

use tokio::time::Instant;

/// One body on its way from or to a client.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Longest wait at a time, and what a client has in all before it moves a byte.
    pause: Duration,
    /// Bytes per second in the long run; 0: any.
    min_rate: u64,
    moved: u64,
    waited: Duration,
    since: Option<Instant>,
}

impl Pace {
    pub fn new(pause: Duration, min_rate: u64) -> Self {
        Self {
            pause,
            min_rate,
            moved: 0,
            waited: Duration::ZERO,
            since: None,
        }
    }

    /// `n` bytes were moved; the wait, if there was one, is over. The clock is asked after a wait alone.
    pub fn moved(&mut self, n: usize, now: impl FnOnce() -> Instant) {
        self.moved = self.moved.saturating_add(n as u64);
        if let Some(since) = self.since.take() {
            self.waited += now().saturating_duration_since(since);
        }
    }

    /// The client is waited for: until when. Asked again during one wait, the answer stays.
    pub fn wait(&mut self, now: impl FnOnce() -> Instant) -> Instant {
        let since = *self.since.get_or_insert_with(now);
        let bought = match self.moved.checked_mul(1000).and_then(|n| n.checked_div(self.min_rate)) {
            Some(milliseconds) => Duration::from_millis(milliseconds),
            None => return since + self.pause,
        };
        let left = (self.pause + bought).saturating_sub(self.waited);
        since + left.min(self.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    /// A client that moves `bytes` every `every`: when it is given up, if it is within an hour.
    fn given_up(bytes: usize, every: Duration, min_rate: u64) -> Option<Duration> {
        let begin = Instant::now();
        let mut now = begin;
        let mut pace = Pace::new(PAUSE, min_rate);
        while now - begin < Duration::from_secs(3600) {
            let until = pace.wait(|| now);
            if now + every > until {
                return Some(until - begin);
            }
            now += every;
            pace.moved(bytes, || now);
        }
        None
    }

    #[tokio::test]
    async fn a_trickle_is_given_up_and_a_slow_link_is_not() {
        let second = Duration::from_secs(1);
        // One byte a second buys 2 ms of each.
        assert_eq!(given_up(1, second, 500), Some(Duration::from_millis(10_020)));
        assert_eq!(given_up(400, second, 500).map(|at| at > 40 * second), Some(true));
        assert_eq!(given_up(500, second, 500), None);
        assert_eq!(given_up(5000, 9 * second, 500), None);
        // A pause is still too long, and without a rate it is all that counts.
        assert_eq!(given_up(1 << 20, 11 * second, 500), Some(PAUSE));
        assert_eq!(given_up(1, 9 * second, 0), None);
    }

    #[tokio::test]
    async fn time_in_which_nobody_waits_for_it_is_not_its_own() {
        let begin = Instant::now();
        let mut pace = Pace::new(PAUSE, 500);
        pace.moved(1, || begin);
        let late = begin + Duration::from_secs(3600);
        assert_eq!(pace.wait(|| late), late + PAUSE);
        assert_eq!(pace.wait(|| late + PAUSE), late + PAUSE);
    }
}
