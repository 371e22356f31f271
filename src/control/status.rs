//! How the process is doing: what control knows and operators ask.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

/// How one reload ended: when, and what changed or why it was rejected.
#[derive(Debug, Clone)]
pub struct LastReload {
    pub at: SystemTime,
    pub result: Result<String, String>,
}

/// Shared by control, which writes it, and admin, which shows it.
#[derive(Debug)]
pub struct Status {
    pub started: SystemTime,
    pub workers: usize,
    /// Where the configuration came from.
    pub config: String,
    accepted: AtomicU64,
    rejected: AtomicU64,
    last_reload: Mutex<Option<LastReload>>,
    ready: AtomicBool,
    draining: AtomicBool,
}

impl Status {
    pub fn new(workers: usize, config: String) -> Self {
        Self {
            started: SystemTime::now(),
            workers,
            config,
            accepted: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            last_reload: Mutex::new(None),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// Counts a reload.
    pub fn reloaded(&self, result: Result<String, String>) {
        let counter = if result.is_ok() { &self.accepted } else { &self.rejected };
        counter.fetch_add(1, Relaxed);
        *self.lock() = Some(LastReload {
            at: SystemTime::now(),
            result,
        });
    }

    /// Reloads accepted and rejected since the start.
    pub fn reloads(&self) -> (u64, u64) {
        (self.accepted.load(Relaxed), self.rejected.load(Relaxed))
    }

    pub fn last_reload(&self) -> Option<LastReload> {
        self.lock().clone()
    }

    /// All listeners accept.
    pub fn set_ready(&self) {
        self.ready.store(true, Relaxed);
    }

    /// The process ends when what runs has finished.
    pub fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// New connections are welcome.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed) && !self.is_draining()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<LastReload>> {
        // A panic while it was held left a whole value behind.
        self.last_reload
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
