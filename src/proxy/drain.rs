//! What runs at an endpoint that drains: how long it may.

use std::future::Future;
use std::time::Duration;

use crate::endpoint::Active;

/// `work` to its end; `None`: its endpoint has been draining for `time`.
pub async fn within_drain<T>(active: &Active, time: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    let Some(time) = time else {
        return Some(work.await);
    };
    tokio::select! {
        done = work => Some(done),
        () = active.endpoint().orders.over(time) => None,
    }
}
