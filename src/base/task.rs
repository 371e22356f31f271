//! A task that ends with its owner.

use std::future::Future;

use tokio::task::AbortHandle;

/// A spawned task; dropping the handle aborts it at its next await.
#[derive(Debug)]
#[must_use = "the task ends when its handle is dropped"]
pub struct Handle(AbortHandle);

/// Spawns `task` on the runtime this is called in. Panics outside of one, as `tokio::spawn` does.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Handle {
    Handle(tokio::spawn(task).abort_handle())
}

/// The same on this thread's own set of tasks. Panics outside of one, as `tokio::task::spawn_local` does.
pub fn spawn_local(task: impl Future<Output = ()> + 'static) -> Handle {
    Handle(tokio::task::spawn_local(task).abort_handle())
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn ends_when_dropped() {
        let (held, gone) = tokio::sync::oneshot::channel::<()>();
        let handle = super::spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(handle);
        assert!(gone.await.is_err(), "the task's values were dropped");
    }
}
