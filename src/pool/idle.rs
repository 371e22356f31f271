//! One endpoint's connections at rest on one worker: the one used last is taken first, so that those nobody needs
//! grow old and go.

use std::collections::VecDeque;

use crate::endpoint::idle::{Learned, allowance};

/// How long a connection may rest, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    pub at_most: u32,
    /// The endpoint has said so itself.
    pub told: bool,
}

impl Keep {
    /// By the configuration, and by what the endpoint has [`announced`].
    pub fn new(configured: u32, told: Option<u32>) -> Self {
        match told {
            Some(told) if told <= configured => Self {
                at_most: told,
                told: true,
            },
            _ => Self {
                at_most: configured,
                told: false,
            },
        }
    }
}

/// What a response's `Keep-Alive: timeout=N` leaves, in milliseconds: a second less, for the way and the endpoint's clock.
pub fn announced(field: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(field).ok()?;
    let seconds = text.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_it = name.trim().eq_ignore_ascii_case("timeout");
        is_it.then_some(value.trim())
    })?;
    let seconds: u32 = seconds.parse().ok()?;
    let told = seconds.saturating_mul(1_000);
    Some(told.saturating_sub(1_000).max(told.min(1_000) / 2))
}

/// Connections at rest; the one used last stands last.
pub(super) struct Resting<C>(VecDeque<One<C>>);

struct One<C> {
    conn: C,
    epoch: u64,
    keep: Keep,
    since: u64,
    /// It was known to be open then.
    seen: u64,
}

impl<C> Default for Resting<C> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<C> One<C> {
    fn rested(&self, now: u64) -> u32 {
        now.saturating_sub(self.since).try_into().unwrap_or(u32::MAX)
    }

    /// How long it had rested when the endpoint closed it, at least: known to be open then, or half of the time.
    fn closed_after(&self, now: u64) -> u32 {
        let open = self.seen.saturating_sub(self.since).try_into().unwrap_or(u32::MAX);
        (self.rested(now) / 2).max(open)
    }
}

impl<C> Resting<C> {
    /// The one used last, if it may be used again. `careful`: the request cannot be sent twice.
    pub fn take(
        &mut self,
        epoch: u64,
        now: u64,
        careful: bool,
        learned: &Learned,
        mut is_open: impl FnMut(&C) -> bool,
    ) -> Option<C> {
        let limit = learned.limit(now);
        let mut closed = None;
        let mut taken = None;
        while let Some(last) = self.0.back() {
            let within = |careful| last.rested(now) < allowance(last.keep.at_most, last.keep.told, limit, careful);
            let usable = last.epoch == epoch && within(false);
            if usable && careful && !within(true) {
                // All others have rested longer.
                break;
            }
            let Some(last) = self.0.pop_back() else { break };
            if !usable {
                continue;
            }
            if is_open(&last.conn) {
                taken = Some(last.conn);
                break;
            }
            // What is closed together was closed by something else than a time-out, unless it is the oldest.
            closed = Some(last.closed_after(now));
        }
        if let Some(rested) = closed {
            learned.closed(rested, now);
        }
        taken
    }

    /// Keeps one that has been used just now, and `most` of them.
    pub fn put(&mut self, conn: C, epoch: u64, now: u64, keep: Keep, most: usize) {
        while self.0.len() >= most.max(1) {
            self.0.pop_front();
        }
        self.0.push_back(One {
            conn,
            epoch,
            keep,
            since: now,
            seen: now,
        });
    }

    /// Closes what has rested too long or was closed by the endpoint. `is_open` is also told how long it has rested.
    pub fn sweep(&mut self, now: u64, learned: &Learned, mut is_open: impl FnMut(&C, u32) -> bool) {
        let limit = learned.limit(now);
        let mut closed = None;
        self.0.retain_mut(|one| {
            let rested = one.rested(now);
            if !is_open(&one.conn, rested) {
                closed = closed.max(Some(one.closed_after(now)));
                return false;
            }
            one.seen = now;
            rested < allowance(one.keep.at_most, one.keep.told, limit, false)
        });
        if let Some(rested) = closed {
            learned.closed(rested, now);
        }
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
    }

    /// Closes the one that has rested longest. `false`: there is none.
    pub fn close_oldest(&mut self) -> bool {
        self.0.pop_front().is_some()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::base::rng::Rng;

    const KEEP: Keep = Keep {
        at_most: 15_000,
        told: false,
    };

    fn resting(list: &[(u32, u64)]) -> Resting<u32> {
        let mut resting = Resting::default();
        for (conn, since) in list {
            resting.put(*conn, 1, *since, KEEP, 100);
        }
        resting
    }

    #[test]
    fn the_last_used_is_first_and_the_old_are_gone() {
        let learned = Learned::default();
        let mut all = resting(&[(1, 0), (2, 10_000), (3, 12_000)]);
        assert_eq!(all.take(1, 12_500, false, &learned, |_| true), Some(3));
        assert_eq!(
            all.take(1, 12_500, true, &learned, |_| true),
            None,
            "2.5 s are too long for POST"
        );
        assert_eq!(all.take(1, 12_500, false, &learned, |_| true), Some(2));
        assert_eq!(all.take(1, 15_000, false, &learned, |_| true), None);
        assert_eq!(all.len(), 0);
        assert_eq!(learned.limit(15_000), None, "nothing was closed by the endpoint");
        assert_eq!(
            resting(&[(1, 0)]).take(2, 0, false, &learned, |_| true),
            None,
            "of other settings"
        );
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut all = Resting::default();
        for conn in 0..5u32 {
            all.put(conn, 1, 0, KEEP, 3);
        }
        let learned = Learned::default();
        let rest: Vec<_> = std::iter::from_fn(|| all.take(1, 0, false, &learned, |_| true)).collect();
        assert_eq!(rest, [4, 3, 2]);
    }

    #[test]
    fn announcements_count_with_a_margin() {
        let told = |at_most| Keep { at_most, told: true };
        let of = |field: &str| Keep::new(15_000, announced(field.as_bytes()));
        assert_eq!(of("timeout=5"), told(4_000));
        assert_eq!(of("max=100, Timeout = 5"), told(4_000));
        assert_eq!(of("timeout=1"), told(500));
        assert_eq!(of("timeout=0"), told(0));
        for field in [
            "",
            "timeout",
            "timeout=",
            "timeout=x",
            "timeout=-1",
            "timeout=5s",
            "max=5",
            "timeout=75",
        ] {
            assert_eq!(of(field), KEEP, "{field}");
        }
        assert_eq!(of("timeout=99999999999"), KEEP);
        assert_eq!(Keep::new(15_000, None), KEEP);
    }

    #[test]
    fn a_restart_teaches_less_than_a_time_out() {
        let learned = Learned::default();
        // All at once: the oldest had rested for 9 s.
        resting(&[(1, 1_000), (2, 5_000), (3, 9_900)]).sweep(10_000, &learned, |_, _| false);
        assert_eq!(learned.limit(10_000), Some(4_500));
        let learned = Learned::default();
        assert_eq!(
            resting(&[(1, 0), (2, 9_000)]).take(1, 10_000, false, &learned, |_| false),
            None
        );
        assert_eq!(learned.limit(10_000), Some(5_000));
    }

    /// An endpoint that closes after `timeout`, seen through second-long sweeps and takes at random times: how many of
    /// the last half of the takes met a closed connection, and how many found one at all.
    fn simulate(timeout: impl Fn(&mut Rng) -> u64, gap: u64, careful: bool) -> (u32, u32) {
        let learned = Learned::default();
        let rng = &mut Rng::new(7);
        // Each connection carries the moment at which the endpoint will close it.
        let mut all: Resting<u64> = Resting::default();
        let (mut now, mut met, mut found) = (0, Rc::new(Cell::new(0)), 0);
        for round in 0..20_000 {
            if round == 10_000 {
                (met, found) = (Rc::default(), 0);
            }
            let wait = rng.below(2 * gap + 1);
            for second in now / 1_000 + 1..=(now + wait) / 1_000 {
                all.sweep(second * 1_000, &learned, |end, _| *end > second * 1_000);
            }
            now += wait;
            let counted = met.clone();
            let taken = all.take(1, now, careful, &learned, |end| {
                counted.set(counted.get() + u32::from(*end <= now));
                *end > now
            });
            found += u32::from(taken.is_some());
            all.put(now + timeout(rng), 1, now, KEEP, 100);
        }
        (met.get(), found)
    }

    #[test]
    fn a_time_out_is_learned_and_then_rarely_met() {
        for timeout in [2_000, 5_000, 10_000] {
            let (met, found) = simulate(|_| timeout, timeout / 2, false);
            assert!(met <= 150, "{timeout} ms: {met} of 10000 met a closed connection");
            assert!(found > 4_000, "{timeout} ms: only {found} were used again");
            let (met, _) = simulate(|_| timeout, timeout / 2, true);
            assert_eq!(met, 0, "{timeout} ms");
        }
    }

    #[test]
    fn what_closes_at_any_time_is_not_used_for_what_cannot_be_sent_twice() {
        let (_, found) = simulate(|rng| rng.below(300), 20, true);
        assert_eq!(found, 0);
    }
}
