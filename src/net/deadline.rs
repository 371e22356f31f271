//! A deadline that moves often and fires rarely: one timer per connection, re-armed only when it fires.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A movable deadline. Moving it later costs a store; the timer below is only touched when it fires
/// early or the deadline moves nearer.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// A deadline `after` from now.
    pub fn after(after: Duration) -> Self {
        let mut deadline = Self::default();
        deadline.set(after);
        deadline
    }

    /// Moves the deadline to `after` from now.
    pub fn set(&mut self, after: Duration) {
        self.set_at(Instant::now() + after);
    }

    /// Sets the deadline to `after` from now unless one is set.
    pub fn set_if_clear(&mut self, after: Duration) {
        if self.at.is_none() {
            self.set(after);
        }
    }

    pub fn set_at(&mut self, at: Instant) {
        self.at = Some(at);
    }

    /// No deadline until the next `set`. The timer may still wake the task once.
    pub fn clear(&mut self) {
        self.at = None;
    }

    /// Gives the timer back, for a connection that goes to rest elsewhere.
    pub fn release(&mut self) {
        *self = Self::default();
    }

    /// Ready once the deadline has passed. Without a deadline: never.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn moves_later_and_nearer() {
        tokio::time::timeout(Duration::from_secs(5), async {
            let start = Instant::now();
            let mut d = Deadline::after(Duration::from_millis(20));
            let early = std::future::poll_fn(|cx| Poll::Ready(d.poll(cx))).await;
            assert!(early.is_pending());
            d.set(Duration::from_millis(60));
            std::future::poll_fn(|cx| d.poll(cx)).await;
            assert!(start.elapsed() >= Duration::from_millis(60));
            d.set(Duration::from_secs(3600));
            assert!(std::future::poll_fn(|cx| Poll::Ready(d.poll(cx))).await.is_pending());
            d.set(Duration::from_millis(1));
            std::future::poll_fn(|cx| d.poll(cx)).await;
        })
        .await
        .expect("fires");
    }
}
