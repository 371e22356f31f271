//! Work that waits for a thread: bounded, in order.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug)]
pub struct Line<J> {
    state: Mutex<State<J>>,
    more: Condvar,
}

#[derive(Debug)]
struct State<J> {
    jobs: VecDeque<J>,
    closed: bool,
}

/// What a thread gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<J> {
    Job(J),
    /// Nothing came in time.
    Late,
    /// Nothing will come any more.
    Closed,
}

impl<J> Default for Line<J> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                closed: false,
            }),
            more: Condvar::new(),
        }
    }
}

impl<J> Line<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, unless so many wait, or nobody comes for it.
    pub fn push(&self, job: J, most: usize) -> Result<(), J> {
        let mut state = self.lock();
        if state.closed || state.jobs.len() >= most {
            return Err(job);
        }
        state.jobs.push_back(job);
        drop(state);
        self.more.notify_one();
        Ok(())
    }

    /// Waits for the next one, at most so long.
    pub fn next(&self, most: Option<Duration>) -> Next<J> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Next::Job(job);
            }
            if state.closed {
                return Next::Closed;
            }
            state = match most {
                None => self.more.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(most) => {
                    let (state, waited) = self
                        .more
                        .wait_timeout(state, most)
                        .unwrap_or_else(PoisonError::into_inner);
                    if waited.timed_out() && state.jobs.is_empty() && !state.closed {
                        return Next::Late;
                    }
                    state
                }
            };
        }
    }

    /// What waits is still done.
    pub fn close(&self) {
        self.lock().closed = true;
        self.more.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_comes_in_order_and_no_more_than_there_is_room_for() {
        let line = Line::default();
        assert_eq!(line.next(Some(Duration::from_millis(1))), Next::Late);
        assert_eq!(
            (line.push(1, 2), line.push(2, 2), line.push(3, 2)),
            (Ok(()), Ok(()), Err(3))
        );
        line.close();
        assert_eq!(line.push(4, 9), Err(4));
        assert_eq!(
            (line.next(None), line.next(None), line.next(None)),
            (Next::Job(1), Next::Job(2), Next::Closed)
        );
    }
}
