//! hyper's executor on a worker: every future stays on the thread that made it.

use std::future::Future;

/// Spawns on the current worker's runtime.
#[derive(Debug, Clone, Copy)]
pub struct LocalExec;

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
