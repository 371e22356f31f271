//! Whoever waits for a fetch, and reads what it brings.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use super::{Broken, Fill, Outcome, State, WINDOW};

/// One that waits, and reads.
pub struct Seat {
    pub(super) fill: Arc<Fill>,
    pub(super) index: usize,
    /// The trailers were handed out.
    pub(super) trailed: bool,
}

impl Seat {
    /// What became of the fetch.
    pub fn poll_outcome(&self, cx: &Context<'_>) -> Poll<Outcome> {
        let state = &mut *self.fill.lock();
        match &state.outcome {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                self.wait(state, cx);
                Poll::Pending
            }
        }
    }

    /// The next part of the body.
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let (polled, pump) = {
            let state = &mut *self.fill.lock();
            let next = state.seats[self.index].as_ref().map_or(0, |place| place.next);
            match state.chunks.get(next - state.first).cloned() {
                Some(chunk) => {
                    if let Some(place) = &mut state.seats[self.index] {
                        place.next += 1;
                        state.moved(Some(next), Some(next + 1));
                    }
                    state.trim();
                    let pump = if state.held < WINDOW { state.pump.take() } else { None };
                    (Poll::Ready(Some(Ok(chunk))), pump)
                }
                None => match state.end {
                    Some(Ok(())) => (Poll::Ready(None), None),
                    Some(Err(broken)) => (Poll::Ready(Some(Err(broken))), None),
                    None => {
                        self.wait(state, cx);
                        (Poll::Pending, None)
                    }
                },
            }
        };
        if let Some(pump) = pump {
            pump.wake();
        }
        polled
    }

    /// What came behind the body, once.
    pub fn take_trailers(&mut self) -> Option<Arc<HeaderMap>> {
        match std::mem::replace(&mut self.trailed, true) {
            true => None,
            false => self.fill.lock().trailers.clone(),
        }
    }

    /// Others wait or read as well.
    pub fn has_company(&self) -> bool {
        let state = self.fill.lock();
        state.seats.len() - state.free.len() > 1
    }

    /// All has been read and nothing follows.
    pub fn is_end(&self) -> bool {
        let state = &*self.fill.lock();
        let next = state.seats[self.index].as_ref().map_or(0, |place| place.next);
        let trails = !self.trailed && state.trailers.is_some();
        state.end == Some(Ok(())) && next - state.first >= state.chunks.len() && !trails
    }

    fn wait(&self, state: &mut State, cx: &Context<'_>) {
        if let Some(place) = &mut state.seats[self.index] {
            match &mut place.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seat").field(&self.index).finish()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let pump = {
            let state = &mut *self.fill.lock();
            let place = state.seats[self.index].take();
            state.moved(place.map(|place| place.next), None);
            state.free.push(self.index);
            state.trim();
            state.pump.take()
        };
        if let Some(pump) = pump {
            pump.wake();
        }
    }
}
