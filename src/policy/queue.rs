//! Who waits for room at an upstream: the more important first, and of those the first that came.
//!
//! One line for all workers, behind a lock that is taken only by those who wait and by those who make room for them.
//! Nobody is handed a place: whoever stands first is woken when something was given back, looks for himself, and leaves
//! the line only with what he waited for or for good. So no wake-up can be lost with the one it was meant for: leaving
//! wakes the next.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

/// `queue = { size, timeout }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// How many may wait.
    pub size: usize,
    /// For how long.
    pub timeout: Duration,
}

/// Who goes first, and who is sent away first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Importance {
    High,
    Normal,
    Low,
}

/// An upstream's requests under way, and those that wait to be.
#[derive(Debug, Default)]
pub struct Gate {
    active: AtomicU32,
    waiting: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// By importance and number: the first is the next, the last the first to be sent away.
    places: BTreeMap<(Importance, u64), Option<Waker>>,
    next: u64,
}

/// One request under way, counted until dropped.
#[derive(Debug)]
pub struct Entered {
    gate: Arc<Gate>,
    /// Nobody is woken when it leaves.
    silent: bool,
}

/// A place in the line, until dropped.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    key: (Importance, u64),
}

/// Where somebody stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is his turn to look for room.
    First,
    Behind,
    /// He had to leave for somebody more important.
    SentAway,
}

impl Gate {
    /// Counts a request as under way; `None` when there are `max` already.
    pub fn enter(self: &Arc<Self>, max: u32) -> Option<Entered> {
        let more = |active: u32| (active < max).then(|| active.saturating_add(1));
        self.active.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Entered {
            gate: self.clone(),
            silent: false,
        })
    }

    /// Requests under way.
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// A place in the line. When `size` wait already, the last of those who are less important goes for it; `None`: there
    /// is nobody less important.
    pub fn join(self: &Arc<Self>, importance: Importance, size: usize) -> Option<Place> {
        let mut line = self.line();
        if line.places.len() >= size {
            let last = line.places.last_entry().filter(|last| last.key().0 > importance)?;
            wake(last.remove());
        }
        let key = (importance, line.next);
        line.next += 1;
        line.places.insert(key, None);
        self.waiting.store(line.places.len(), Relaxed);
        drop(line);
        // Who gives something back after this sees that somebody waits; what was given back before, he sees himself.
        fence(SeqCst);
        Some(Place {
            gate: self.clone(),
            key,
        })
    }

    /// Something was given back, here or at an endpoint: whoever is first looks again.
    pub fn freed(&self) {
        fence(SeqCst);
        if self.waiting() > 0 {
            self.wake_first(&mut self.line());
        }
    }

    fn wake_first(&self, line: &mut Line) {
        if let Some(mut first) = line.places.first_entry() {
            wake(first.get_mut().take());
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // A panic while it was held left a whole line behind.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Entered {
    /// Leaves without waking anybody: for the first in the line, who found no room elsewhere and would wake himself.
    pub fn withdraw(mut self) {
        self.silent = true;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.gate.active.fetch_sub(1, Relaxed);
        if !self.silent {
            self.gate.freed();
        }
    }
}

impl Place {
    /// Where it stands now; `cx` is woken when that may have changed.
    pub fn poll(&self, cx: &Context<'_>) -> Standing {
        let mut line = self.gate.line();
        let Some(waker) = line.places.get_mut(&self.key) else {
            return Standing::SentAway;
        };
        *waker = Some(cx.waker().clone());
        match line.places.first_key_value() {
            Some((first, _)) if *first == self.key => Standing::First,
            _ => Standing::Behind,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = self.gate.line();
        line.places.remove(&self.key);
        self.gate.waiting.store(line.places.len(), Relaxed);
        // There may be room for more than one, or he was woken and left without looking.
        self.gate.wake_first(&mut line);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }

    /// Somebody in the line, and whether he was woken since he last looked.
    struct Waiter(Place, Arc<Woken>);

    impl Waiter {
        fn join(gate: &Arc<Gate>, importance: Importance, size: usize) -> Option<Self> {
            let waiter = Self(gate.join(importance, size)?, Arc::default());
            waiter.look();
            Some(waiter)
        }

        fn look(&self) -> Standing {
            self.0.poll(&Context::from_waker(&Waker::from(self.1.clone())))
        }

        fn was_woken(&self) -> bool {
            self.1.0.swap(false, SeqCst)
        }
    }

    use Importance::{High, Low, Normal};

    #[test]
    fn the_more_important_go_first_and_of_those_the_first_that_came() {
        let gate = Arc::new(Gate::default());
        let order = [Normal, Low, High, Normal, High, Low];
        let mut waiters: Vec<_> = order
            .into_iter()
            .map(|importance| Waiter::join(&gate, importance, 10).unwrap())
            .collect();
        assert_eq!(gate.waiting(), 6);
        let mut left = Vec::new();
        while !waiters.is_empty() {
            let first = waiters.iter().position(|w| w.look() == Standing::First).unwrap();
            assert_eq!(waiters.iter().filter(|w| w.look() == Standing::First).count(), 1);
            left.push(waiters.remove(first).0.key);
        }
        assert_eq!(
            left,
            [(High, 2), (High, 4), (Normal, 0), (Normal, 3), (Low, 1), (Low, 5)]
        );
        assert_eq!(gate.waiting(), 0);
    }

    #[test]
    fn a_full_line_sends_away_the_last_of_the_less_important() {
        let gate = Arc::new(Gate::default());
        let normal = Waiter::join(&gate, Normal, 3).unwrap();
        let (early, late) = (
            Waiter::join(&gate, Low, 3).unwrap(),
            Waiter::join(&gate, Low, 3).unwrap(),
        );
        assert!(Waiter::join(&gate, Low, 3).is_none(), "nobody is less important");
        let high = Waiter::join(&gate, High, 3).unwrap();
        assert!(late.was_woken() && late.look() == Standing::SentAway);
        assert!(early.look() == Standing::Behind && high.look() == Standing::First);
        drop(late);
        assert_eq!(gate.waiting(), 3);
        let another = Waiter::join(&gate, Normal, 3).unwrap();
        assert_eq!(early.look(), Standing::SentAway);
        assert!(Waiter::join(&gate, Normal, 3).is_none());
        assert_eq!((normal.look(), another.look()), (Standing::Behind, Standing::Behind));
    }

    #[test]
    fn what_is_given_back_wakes_the_first_and_leaving_the_next() {
        let gate = Arc::new(Gate::default());
        let held = gate.enter(1).unwrap();
        assert!(gate.enter(1).is_none() && gate.active() == 1);
        let (first, second) = (
            Waiter::join(&gate, Normal, 9).unwrap(),
            Waiter::join(&gate, Normal, 9).unwrap(),
        );
        drop(held);
        assert!(first.was_woken() && !second.was_woken());
        // He is gone without having looked: the next one does.
        drop(first);
        assert!(second.was_woken() && second.look() == Standing::First);
        assert!(gate.enter(1).is_some());
    }

    /// Threads that wait, enter, leave and sometimes give up: all get through, and never more at once than may.
    #[test]
    fn no_wake_up_is_lost_between_threads() {
        const MAX: u32 = 3;
        let gate = Arc::new(Gate::default());
        let served = AtomicUsize::new(0);
        let work = |seed: u64| {
            let mut rng = crate::base::rng::Rng::new(seed);
            for _ in 0..2_000 {
                if gate.waiting() == 0
                    && let Some(entered) = gate.enter(MAX)
                {
                    std::thread::yield_now();
                    drop(entered);
                    continue;
                }
                let importance = [High, Normal, Low][rng.below(3) as usize];
                let Some(place) = gate.join(importance, 6) else {
                    continue;
                };
                let parked = Waker::from(Arc::new(Parked(std::thread::current())));
                loop {
                    match place.poll(&Context::from_waker(&parked)) {
                        Standing::First => {
                            if let Some(entered) = gate.enter(MAX) {
                                drop(place);
                                std::thread::yield_now();
                                drop(entered);
                                served.fetch_add(1, Relaxed);
                                break;
                            }
                        }
                        Standing::SentAway => break,
                        Standing::Behind if rng.below(8) == 0 => break,
                        Standing::Behind => {}
                    }
                    // A lost wake-up would make this a wait for ever.
                    let begun = std::time::Instant::now();
                    std::thread::park_timeout(Duration::from_secs(10));
                    assert!(begun.elapsed() < Duration::from_secs(10), "not woken");
                }
            }
        };
        let work = &work;
        std::thread::scope(|scope| (0..8).for_each(|seed| drop(scope.spawn(move || work(seed)))));
        assert_eq!((gate.active(), gate.waiting()), (0, 0));
        assert!(served.into_inner() > 100, "nobody ever waited");
    }

    struct Parked(std::thread::Thread);

    impl Wake for Parked {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
}
