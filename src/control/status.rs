//! How the process is doing: what control knows and operators ask.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::leaving::Leaving;
use crate::config::report::{self, Entry};
use crate::discovery::feed::Report;

/// How one reload ended: when, and what changed or why it was rejected.
#[derive(Debug, Clone)]
pub struct LastReload {
    pub at: SystemTime,
    pub result: Result<String, Rejected>,
}

/// Why a configuration was not taken: every error, as text for people and as data.
#[derive(Debug, Clone)]
pub struct Rejected {
    pub text: String,
    pub errors: Vec<Entry>,
}

impl From<report::Report> for Rejected {
    fn from(report: report::Report) -> Self {
        Self {
            text: report.render(false),
            errors: report.entries(),
        }
    }
}

impl From<String> for Rejected {
    /// An error that has no place in a file.
    fn from(message: String) -> Self {
        let error = Entry {
            severity: "error",
            message: message.clone(),
            file: None,
            line: None,
            column: None,
            label: None,
            help: None,
        };
        Self {
            text: message,
            errors: vec![error],
        }
    }
}

/// A listener's name and an address it is bound to, with the port the system chose.
pub type Place = (Arc<str>, String);

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
    listening: Mutex<Vec<Place>>,
    sources: Mutex<HashMap<Arc<str>, Vec<Arc<Report>>>>,
    pub leaving: Leaving,
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
            listening: Mutex::new(Vec::new()),
            sources: Mutex::new(HashMap::new()),
            leaving: Leaving::default(),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// Counts a reload.
    pub fn reloaded(&self, result: Result<String, Rejected>) {
        let counter = if result.is_ok() { &self.accepted } else { &self.rejected };
        counter.fetch_add(1, Relaxed);
        *locked(&self.last_reload) = Some(LastReload {
            at: SystemTime::now(),
            result,
        });
    }

    /// Reloads accepted and rejected since the start.
    pub fn reloads(&self) -> (u64, u64) {
        (self.accepted.load(Relaxed), self.rejected.load(Relaxed))
    }

    pub fn last_reload(&self) -> Option<LastReload> {
        locked(&self.last_reload).clone()
    }

    /// Which listener is bound where.
    pub fn listening(&self) -> Vec<Place> {
        locked(&self.listening).clone()
    }

    pub fn set_listening(&self, places: Vec<Place>) {
        *locked(&self.listening) = places;
    }

    /// The sources of endpoints of each upstream that has any.
    pub fn sources(&self) -> HashMap<Arc<str>, Vec<Arc<Report>>> {
        locked(&self.sources).clone()
    }

    pub fn set_sources(&self, sources: HashMap<Arc<str>, Vec<Arc<Report>>>) {
        *locked(&self.sources) = sources;
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
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held left a whole value behind.
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
