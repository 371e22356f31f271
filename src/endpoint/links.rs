//! The connections to one endpoint, of all workers together: how many there are, and how many there may be.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// Streams at once on one HTTP/2 connection; more open another. An endpoint that allows fewer makes the rest wait.
pub const STREAMS: u32 = 100;

/// Who waits asks again after so long: a worker may have had nothing to give when it was asked.
const AGAIN: Duration = Duration::from_millis(10);

/// One endpoint's. Opening and closing a connection takes a lock, requests on one that exists do not.
#[derive(Debug)]
pub struct Links {
    most: AtomicU32,
    /// Requests that one of them carries at once.
    each: AtomicU32,
    /// As long as the line: for those who only want to know whether anybody waits.
    waiting: AtomicU32,
    inner: Mutex<Inner>,
    asked: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    now: u32,
    /// Those who wait for a connection to be closed, in the order in which they came. While anybody does, there are as many
    /// as may be.
    line: VecDeque<oneshot::Sender<Link>>,
}

/// The right to have one connection, from before it is dialled until its socket is closed. Holders drop it after that.
pub struct Link(Option<Arc<Links>>);

impl Default for Links {
    /// As many as anybody wants.
    fn default() -> Self {
        Self {
            most: AtomicU32::new(u32::MAX),
            each: AtomicU32::new(1),
            waiting: AtomicU32::new(0),
            inner: Mutex::default(),
            asked: Notify::new(),
        }
    }
}

impl Links {
    /// Connections at rest, at work and being made.
    pub fn now(&self) -> u32 {
        self.lock().now
    }

    /// `None`: any number.
    pub fn limit(&self) -> Option<u32> {
        Some(self.most.load(Relaxed)).filter(|most| *most < u32::MAX)
    }

    /// Sets how many there may be; `None`: any number. Those beyond that stay until they are closed, and no other is opened.
    pub fn set_limit(self: &Arc<Self>, most: Option<u32>) {
        let mut inner = self.lock();
        let most = most.unwrap_or(u32::MAX);
        self.most.store(most, Relaxed);
        while inner.now < most && self.hand_over(&mut inner) {
            inner.now += 1;
        }
    }

    /// Whether as many connections as may be carry `active` requests.
    pub fn allow(&self, active: u32) -> bool {
        active <= self.most.load(Relaxed).saturating_mul(self.each.load(Relaxed))
    }

    /// What the endpoint was found to speak.
    pub fn set_h2(&self, h2: bool) {
        self.each.store(if h2 { STREAMS } else { 1 }, Relaxed);
    }

    /// Whether the endpoint is known to speak HTTP/2.
    pub fn speak_h2(&self) -> bool {
        self.each.load(Relaxed) > 1
    }

    /// Whether another may be opened at once.
    pub fn have_room(&self) -> bool {
        self.now() < self.most.load(Relaxed)
    }

    /// Whether there are more than may be, because they may be fewer than before.
    pub fn are_too_many(&self) -> bool {
        self.limit().is_some_and(|most| self.now() > most)
    }

    /// How many wait for a connection to be closed.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Returns when a worker that has connections at rest is asked to close one. Each request wakes one worker.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// The right to one more, if there may be one now.
    pub fn try_open(self: &Arc<Self>) -> Option<Link> {
        self.another(&mut self.lock())
    }

    /// The right to one more, in the order in which it was asked for; workers that have connections at rest are asked to
    /// close them. `None`: there was none `within` that time. Dropped, it leaves the line.
    pub async fn open(self: &Arc<Self>, within: Duration) -> Option<Link> {
        let mut turn = {
            let mut inner = self.lock();
            if let Some(link) = self.another(&mut inner) {
                return Some(link);
            }
            let (sender, granted) = oneshot::channel();
            inner.line.push_back(sender);
            self.tell(&inner);
            Turn { links: self, granted }
        };
        let asking = async {
            loop {
                self.asked.notify_one();
                if let Ok(link) = timeout(AGAIN, &mut turn.granted).await {
                    return link.ok();
                }
            }
        };
        timeout(within, asking).await.ok().flatten()
    }

    fn another(self: &Arc<Self>, inner: &mut Inner) -> Option<Link> {
        (inner.now < self.most.load(Relaxed)).then(|| {
            inner.now += 1;
            Link(Some(self.clone()))
        })
    }

    /// Gives the right to one to whoever waits first. `false`: nobody does.
    fn hand_over(self: &Arc<Self>, inner: &mut Inner) -> bool {
        let handed_over = loop {
            let Some(next) = inner.line.pop_front() else {
                break false;
            };
            match next.send(Link(Some(self.clone()))) {
                Ok(()) => break true,
                // Gone. It is not to be given back: it is the next one's.
                Err(mut link) => drop(link.0.take()),
            }
        };
        self.tell(inner);
        handed_over
    }

    fn tell(&self, inner: &Inner) {
        self.waiting.store(inner.line.len() as u32, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line.
struct Turn<'a> {
    links: &'a Links,
    granted: oneshot::Receiver<Link>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Granted or not, this is no longer waited for. What was granted and not taken goes to the next.
        self.granted.close();
        let mut inner = self.links.lock();
        if inner.line.iter().any(oneshot::Sender::is_closed) {
            inner.line.retain(|turn| !turn.is_closed());
            self.links.tell(&inner);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some(links) = self.0.take() else { return };
        let mut inner = links.lock();
        if inner.now > links.most.load(Relaxed) || !links.hand_over(&mut inner) {
            inner.now -= 1;
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn links(most: u32) -> Arc<Links> {
        let links = Arc::new(Links::default());
        links.set_limit(Some(most));
        links
    }

    async fn open(links: &Arc<Links>) -> Link {
        links.open(LONG).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_than_may_be() {
        let links = links(2);
        let (one, _two) = (open(&links).await, open(&links).await);
        assert!(!links.have_room());
        assert!(links.open(LONG).await.is_none());
        drop(one);
        let _three = open(&links).await;
        assert_eq!((links.now(), links.waiting()), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_first_is_first_and_who_left_is_passed_over() {
        let links = links(1);
        let held = open(&links).await;
        let mut line = [pin!(links.open(LONG)), pin!(links.open(LONG))];
        let mut gone = Box::pin(links.open(LONG));
        assert!(timeout(Duration::ZERO, gone.as_mut()).await.is_err());
        for waits in &mut line {
            assert!(timeout(Duration::ZERO, waits.as_mut()).await.is_err());
        }
        drop(gone);
        drop(held);
        assert_eq!(links.waiting(), 1);
        let [first, second] = &mut line;
        assert!(timeout(Duration::ZERO, second.as_mut()).await.is_err());
        let held = first.await.unwrap();
        drop(held);
        assert!(second.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_that_arrives_too_late_goes_to_the_next() {
        let links = links(1);
        let held = open(&links).await;
        let mut first = Box::pin(links.open(LONG));
        let mut second = pin!(links.open(LONG));
        assert!(timeout(Duration::ZERO, first.as_mut()).await.is_err());
        assert!(timeout(Duration::ZERO, second.as_mut()).await.is_err());
        drop(held);
        drop(first);
        assert!(second.await.is_some());
        assert_eq!(links.now(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn another_limit_counts_from_now_on() {
        let links = links(1);
        let held = open(&links).await;
        let mut waits = pin!(links.open(LONG));
        assert!(timeout(Duration::ZERO, waits.as_mut()).await.is_err());
        links.set_limit(Some(3));
        let more = [waits.await.unwrap(), open(&links).await];
        links.set_limit(Some(1));
        assert!(links.are_too_many());
        drop(more);
        assert!(!links.are_too_many() && !links.have_room());
        drop(held);
        assert!(links.have_room());
        links.set_limit(None);
        let many: Vec<_> = [open(&links).await, open(&links).await].into();
        assert_eq!((many.len(), links.limit()), (2, None));
    }

    #[tokio::test(start_paused = true)]
    async fn one_worker_is_asked_again_and_again_to_close_one() {
        let links = links(1);
        let held = std::cell::RefCell::new(Some(open(&links).await));
        let gives = async {
            links.asked().await;
            links.asked().await;
            held.borrow_mut().take();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = gives => {}
            link = links.open(LONG) => assert!(link.is_some()),
        }
    }

    #[test]
    fn http_2_carries_many_on_one() {
        let links = links(2);
        assert!(links.allow(2) && !links.allow(3));
        links.set_h2(true);
        assert!(links.allow(2 * STREAMS) && !links.allow(2 * STREAMS + 1));
        links.set_limit(None);
        assert!(links.allow(u32::MAX));
    }

    #[test]
    fn many_threads_never_have_more() {
        let links = links(3);
        let most = AtomicU32::new(0);
        let now = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .build()
                        .unwrap();
                    runtime.block_on(async {
                        for _ in 0..500 {
                            let link = open(&links).await;
                            most.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
                            tokio::task::yield_now().await;
                            now.fetch_sub(1, Relaxed);
                            drop(link);
                        }
                    });
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!((links.now(), links.waiting()), (0, 0));
    }
}
