//! Where a worker finds an endpoint's connections: small numbers, used again once their endpoint is gone, so that tables
//! indexed by them are as long as there were endpoints at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};

/// Gives out places, the lowest free one first.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    next: u32,
    free: BinaryHeap<Reverse<u32>>,
}

/// One endpoint's. Free again when it is dropped, which is when nobody holds the endpoint any more.
#[derive(Debug)]
pub struct Place {
    number: u32,
    from: Places,
}

impl Places {
    pub fn take(&self) -> Place {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match inner.free.pop() {
            Some(Reverse(free)) => free,
            None => {
                inner.next += 1;
                inner.next - 1
            }
        };
        drop(inner);
        Place {
            number,
            from: self.clone(),
        }
    }
}

impl Place {
    pub fn number(&self) -> usize {
        self.number as usize
    }
}

impl Default for Place {
    /// Of somebody who is alone.
    fn default() -> Self {
        Places::default().take()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.from.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.free.push(Reverse(self.number));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn a_million_changes_take_no_more_places_than_there_were_at_once() {
        let places = Places::default();
        let rng = &mut Rng::new(1);
        let mut live: VecDeque<Place> = (0..100).map(|_| places.take()).collect();
        let mut highest = 0;
        for _ in 0..1_000_000 {
            // Some outlive many others, as endpoints with long connections do.
            let goes = rng.below(live.len() as u64) as usize;
            live.remove(goes);
            let place = places.take();
            highest = highest.max(place.number());
            live.push_back(place);
        }
        assert!(highest < 100, "{highest}");
        let mut numbers: Vec<_> = live.iter().map(Place::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 100, "nobody shares a place");
    }
}
