//! Connections at rest: when each has waited long enough, and who is told that the world has changed. One table a worker, in
//! place of a timer and a listener for each of many thousands.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// One worker's connections that wait for a request.
#[derive(Debug, Default)]
pub struct Resting {
    places: RefCell<Places>,
    /// Seconds since the worker began.
    tick: Cell<u32>,
}

#[derive(Debug, Default)]
struct Places {
    all: Vec<Waiting>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Waiting {
    waker: Option<Waker>,
    /// The tick at which it has waited long enough.
    due: u32,
    called: bool,
}

/// Why a connection at rest is woken by others than its client.
#[derive(Debug, PartialEq, Eq)]
pub enum Woken {
    /// Its time is over.
    Over,
    /// It is to look whether its listener still exists.
    Changed,
}

/// One connection's place in the table, free again when dropped.
pub struct Place<'a> {
    resting: &'a Resting,
    index: u32,
}

impl Resting {
    /// A place for one that may rest for `time`, which is rounded up to seconds.
    pub fn begin(&self, time: Duration) -> Place<'_> {
        // The current second has begun already.
        let ticks = u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        let waiting = Waiting {
            waker: None,
            due: self.tick.get().saturating_add(ticks).saturating_add(1),
            called: false,
        };
        let places = &mut *self.places.borrow_mut();
        let index = match places.free.pop() {
            Some(index) => {
                if let Some(place) = places.all.get_mut(index as usize) {
                    *place = waiting;
                }
                index
            }
            None => {
                places.all.push(waiting);
                // More connections than descriptors there are not.
                u32::try_from(places.all.len() - 1).unwrap_or(u32::MAX)
            }
        };
        Place { resting: self, index }
    }

    /// Wakes all, so that they see what has changed.
    pub fn call(&self) {
        for waiting in &mut self.places.borrow_mut().all {
            waiting.called = true;
            waiting.waker.iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Wakes those whose time is over. To be called once a second.
    pub fn sweep(&self) {
        let now = self.tick.get().saturating_add(1);
        self.tick.set(now);
        for waiting in &self.places.borrow().all {
            if waiting.due <= now {
                waiting.waker.iter().for_each(Waker::wake_by_ref);
            }
        }
    }
}

impl Place<'_> {
    /// Ready when the connection has to look up.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Woken> {
        let mut places = self.resting.places.borrow_mut();
        let Some(waiting) = places.all.get_mut(self.index as usize) else {
            return Poll::Ready(Woken::Over);
        };
        if waiting.due <= self.resting.tick.get() {
            return Poll::Ready(Woken::Over);
        }
        if std::mem::take(&mut waiting.called) {
            return Poll::Ready(Woken::Changed);
        }
        match &mut waiting.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let places = &mut *self.resting.places.borrow_mut();
        if let Some(waiting) = places.all.get_mut(self.index as usize) {
            waiting.waker = None;
            places.free.push(self.index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// One connection's task: how often it was woken.
    fn task() -> (Arc<Count>, Waker) {
        let count = Arc::<Count>::default();
        (count.clone(), count.into())
    }

    #[test]
    fn nobody_is_woken_early_and_everybody_a_second_late_at_most() {
        for (time, ticks) in [(0, 1), (1, 2), (999, 2), (1000, 2), (1001, 3), (5000, 6)] {
            let resting = Resting::default();
            let place = resting.begin(Duration::from_millis(time));
            let (count, waker) = task();
            let cx = &mut Context::from_waker(&waker);
            for _ in 0..ticks {
                assert_eq!(place.poll(cx), Poll::Pending, "{time}");
                assert_eq!(count.0.load(Relaxed), 0, "{time}");
                resting.sweep();
            }
            assert_eq!(count.0.load(Relaxed), 1, "{time}");
            assert_eq!(place.poll(cx), Poll::Ready(Woken::Over));
        }
    }

    #[test]
    fn a_change_reaches_all_that_rest_once() {
        let resting = Resting::default();
        let places = [resting.begin(Duration::MAX), resting.begin(Duration::from_secs(1))];
        let (count, waker) = task();
        let cx = &mut Context::from_waker(&waker);
        assert_eq!(places[0].poll(cx), Poll::Pending);
        resting.call();
        assert_eq!(count.0.load(Relaxed), 1, "the other has not waited yet, but will know");
        for place in &places {
            assert_eq!(place.poll(cx), Poll::Ready(Woken::Changed));
            assert_eq!(place.poll(cx), Poll::Pending);
        }
    }

    #[test]
    fn places_are_used_again_without_what_was_there() {
        let resting = Resting::default();
        let (count, waker) = task();
        let cx = &mut Context::from_waker(&waker);
        for _ in 0..1000 {
            let (one, other) = (resting.begin(Duration::ZERO), resting.begin(Duration::from_secs(9)));
            resting.call();
            assert_eq!(one.poll(cx), Poll::Ready(Woken::Changed));
            drop(one);
            let next = resting.begin(Duration::from_secs(9));
            assert_eq!(next.poll(cx), Poll::Pending);
            assert_eq!(other.poll(cx), Poll::Ready(Woken::Changed));
        }
        assert_eq!(resting.places.borrow().all.len(), 2);
        resting.call();
        assert_eq!(count.0.load(Relaxed), 0, "who has left is not woken");
    }
}
