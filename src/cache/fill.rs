//! Fetches under way: one for a key, however many wait for it on whichever worker, each of whom gets the bytes as they
//! arrive and takes them at its own pace.
//!
//! What is to be stored is kept whole meanwhile, within the budget of the store. What is not (it grew too large) is
//! kept until the slowest has it, and the endpoint is read no faster than that.

mod seat;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use foldhash::quality::RandomState;
use http::HeaderMap;

pub use self::seat::Seat;
use super::entry::{Entry, Meta};
use super::key::Key;
use super::range::Span;
use super::reason::Reason;
use super::store::Budget;
use super::vary::Vary;

/// Bytes that may wait for the slowest reader of what is not stored.
const WINDOW: u64 = 256 * 1024;
/// What a part costs beside its bytes: many small ones are not small.
const PER_PART: u64 = 64;
const SHARDS: usize = 16;

/// The head of a response on its way.
#[derive(Debug)]
pub struct Opening {
    pub meta: Meta,
    /// When it was asked for, by the cache's clock.
    pub asked: i64,
    /// As the endpoint sent it: 206 for a part of what is 200.
    pub wire_status: u16,
    /// Of the body, where it is known.
    pub length: Option<u64>,
    /// What part of how long a whole it is.
    pub part: Option<(Span, u64)>,
    /// Why it is not stored in the end, where that is known already.
    pub unkept: Option<Reason>,
    /// What it was chosen by, and the key that follows from it.
    pub vary: Vary,
    pub key: Box<[u8]>,
}

/// Why there is no response: everybody who waited is told the same.
#[derive(Debug, Clone)]
pub struct Failure {
    pub status: http::StatusCode,
    pub detail: std::borrow::Cow<'static, str>,
}

/// What became of a fetch.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The head is there, the body follows.
    Open(Arc<Opening>),
    /// It is stored.
    Done(Arc<Entry>),
    /// It is for the one who asked alone: everybody else asks for himself.
    Released,
    Failed(Failure),
}

/// The body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// One fetch, as all see it.
#[derive(Debug)]
struct Fill {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Outcome>,
    chunks: VecDeque<Bytes>,
    /// The number of the first of them.
    first: usize,
    /// How many read which of them next, and how many wait for one more: so that it is known without asking each of
    /// thousands which nobody needs any more.
    at: VecDeque<usize>,
    /// Bytes in them, and of them those taken from the budget.
    held: u64,
    charged: u64,
    end: Option<Result<(), Broken>>,
    /// What came behind the body.
    trailers: Option<Arc<HeaderMap>>,
    /// It is to be stored: everything is kept.
    keeps: bool,
    /// It may be: no purge has meant it.
    storable: bool,
    seats: Vec<Option<Place>>,
    free: Vec<usize>,
    pump: Option<Waker>,
}

#[derive(Debug, Default)]
struct Place {
    /// The number of the next chunk.
    next: usize,
    waker: Option<Waker>,
}

/// Fetches by their key.
type Listed = HashMap<Box<[u8]>, Arc<Fill>>;

/// All fetches others may join.
#[derive(Debug)]
pub struct Fills {
    hasher: RandomState,
    shards: [Mutex<Listed>; SHARDS],
}

/// Whoever asks for a key.
pub enum Joined {
    /// Is the first, and fetches it. The seat is its own.
    Lead(Lead, Seat),
    Follow(Seat),
}

/// The one that fetches. Dropped, it leaves nobody waiting.
pub struct Lead {
    fill: Arc<Fill>,
    budget: Arc<Budget>,
    /// Where others find it.
    listed: Option<(Arc<Fills>, Key)>,
}

impl Default for Fills {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Fills {
    /// All variants of a URL are in one.
    fn shard(&self, key: &Key) -> MutexGuard<'_, Listed> {
        let index = self.hasher.hash_one(key.primary()) as usize % SHARDS;
        // The index is below the number of shards.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the fetch for `key`, or begins one.
    pub fn join(self: &Arc<Self>, key: &Key, budget: &Arc<Budget>) -> Joined {
        let mut shard = self.shard(key);
        if let Some(fill) = shard.get(key.text.as_slice()) {
            return Joined::Follow(Fill::seat(fill));
        }
        let fill = Fill::begin();
        let seat = Fill::seat(&fill);
        shard.insert(key.text.as_slice().into(), fill.clone());
        let lead = Lead {
            fill,
            budget: budget.clone(),
            listed: Some((self.clone(), key.clone())),
        };
        Joined::Lead(lead, seat)
    }

    /// A fetch that nobody joins.
    pub fn alone(budget: &Arc<Budget>) -> (Lead, Seat) {
        let fill = Fill::begin();
        let seat = Fill::seat(&fill);
        let lead = Lead {
            fill,
            budget: budget.clone(),
            listed: None,
        };
        (lead, seat)
    }

    /// What is under way for a URL was asked for before it was purged: it is not stored, and nobody joins it any more.
    pub fn purge(&self, key: &Key) {
        let primary = key.primary();
        Self::forget(&mut self.shard(key), |text| {
            let rest = text.strip_prefix(primary);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"\n"))
        });
    }

    /// The same for all that begin with `prefix`.
    pub fn purge_prefix(&self, prefix: &[u8]) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            Self::forget(&mut shard, |text| text.starts_with(prefix));
        }
    }

    fn forget(shard: &mut Listed, is_meant: impl Fn(&[u8]) -> bool) {
        shard.retain(|text, fill| {
            let meant = is_meant(text);
            if meant {
                fill.lock().storable = false;
            }
            !meant
        });
    }

    pub fn len(&self) -> usize {
        let count = |shard: &Mutex<Listed>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(count).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Fill {
    fn begin() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                at: VecDeque::from([0]),
                keeps: true,
                storable: true,
                ..State::default()
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seat(fill: &Arc<Self>) -> Seat {
        let index = {
            let state = &mut *fill.lock();
            let index = state.free.pop().unwrap_or_else(|| {
                state.seats.push(None);
                state.seats.len() - 1
            });
            state.seats[index] = Some(Place {
                next: state.first,
                waker: None,
            });
            state.moved(None, Some(state.first));
            index
        };
        Seat {
            fill: fill.clone(),
            index,
            trailed: false,
        }
    }
}

impl State {
    fn wake_all(&mut self) -> Vec<Waker> {
        self.seats
            .iter_mut()
            .flatten()
            .filter_map(|place| place.waker.take())
            .collect()
    }

    /// A reader takes another place.
    fn moved(&mut self, from: Option<usize>, to: Option<usize>) {
        let first = self.first;
        let mut count = |place: Option<usize>, change: fn(usize) -> usize| {
            if let Some(n) = place.and_then(|place| self.at.get_mut(place.checked_sub(first)?)) {
                *n = change(*n);
            }
        };
        count(from, |n| n - 1);
        count(to, |n| n + 1);
    }

    /// Lets go of what every reader has, where it is not to be stored.
    fn trim(&mut self) {
        while !self.keeps
            && self.at.front() == Some(&0)
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.at.pop_front();
            self.held -= chunk.len() as u64 + PER_PART;
            self.first += 1;
        }
    }
}

impl Lead {
    fn settle(&self, outcome: Outcome) {
        let wakers = {
            let state = &mut *self.fill.lock();
            state.outcome = Some(outcome);
            state.wake_all()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How many wait or read.
    pub fn watchers(&self) -> usize {
        let state = self.fill.lock();
        state.seats.len() - state.free.len()
    }

    /// It may be stored: no purge has meant it since.
    pub fn is_storable(&self) -> bool {
        self.fill.lock().storable
    }

    pub fn open(&self, opening: Arc<Opening>) {
        self.settle(Outcome::Open(opening));
    }

    pub fn done(&mut self, entry: Arc<Entry>) {
        self.settle(Outcome::Done(entry));
        self.unlist();
    }

    pub fn release(&mut self) {
        // Unlisted first: those who are woken must not find it again.
        self.unlist();
        self.settle(Outcome::Released);
    }

    pub fn fail(&mut self, failure: Failure) {
        self.unlist();
        self.settle(Outcome::Failed(failure));
    }

    /// Nobody joins it any more.
    pub fn unlist(&mut self) {
        if let Some((fills, key)) = self.listed.take() {
            let mut shard = fills.shard(&key);
            // A purge may have made room for another.
            let text = key.text.as_slice();
            if shard.get(text).is_some_and(|fill| Arc::ptr_eq(fill, &self.fill)) {
                shard.remove(text);
            }
        }
    }

    /// It will not be stored: what is read is let go.
    pub fn forgo(&mut self) {
        self.unlist();
        let state = &mut *self.fill.lock();
        state.keeps = false;
        self.budget.give(std::mem::take(&mut state.charged));
        state.trim();
    }

    /// The next part of the body. `false`: there is no room to keep it.
    pub fn push(&self, part: &[u8]) -> bool {
        let (fits, wakers) = {
            let state = &mut *self.fill.lock();
            let size = part.len() as u64 + PER_PART;
            let fits = !state.keeps || self.budget.take(size);
            if fits && state.keeps {
                state.charged += size;
            }
            state.held += size;
            // Copied: a part may hold a read buffer many times its size.
            state.chunks.push_back(Bytes::copy_from_slice(part));
            state.at.push_back(0);
            state.trim();
            (fits, state.wake_all())
        };
        wakers.into_iter().for_each(Waker::wake);
        fits
    }

    /// Ready when more may be pushed.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let state = &mut *self.fill.lock();
        if state.keeps || state.held < WINDOW || state.seats.len() == state.free.len() {
            return Poll::Ready(());
        }
        state.pump = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The body has ended; all of it, when it was kept.
    pub fn end(&self, trailers: Option<&HeaderMap>) -> Option<Vec<Bytes>> {
        let (wakers, kept) = {
            let state = &mut *self.fill.lock();
            state.end = Some(Ok(()));
            state.trailers = trailers.cloned().map(Arc::new);
            let kept = (state.keeps && state.storable).then(|| state.chunks.iter().cloned().collect());
            (state.wake_all(), kept)
        };
        wakers.into_iter().for_each(Waker::wake);
        kept
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.unlist();
        let wakers = {
            let state = &mut *self.fill.lock();
            self.budget.give(std::mem::take(&mut state.charged));
            state.outcome.get_or_insert(Outcome::Released);
            state.end.get_or_insert(Err(Broken));
            // Nobody comes any more: what all have read may go.
            state.keeps = false;
            state.trim();
            state.wake_all()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}
