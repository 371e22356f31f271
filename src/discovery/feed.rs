//! What a source has told last, and how it is doing: the link between its task and those who use it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::base::task::{self, Handle};

/// Characters of a reason.
const MAX_REASON: usize = 300;

/// How a source is doing, for status and metrics.
#[derive(Debug)]
pub struct Report {
    /// `dns`, `srv`, `file`, `consul` or `kubernetes`.
    pub kind: &'static str,
    /// The name, path or URL that is asked.
    pub source: String,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Default)]
pub struct State {
    /// Answers that differed from the one before, that did not, and those that were none.
    pub changed: u64,
    pub unchanged: u64,
    pub failed: u64,
    pub last_success: Option<SystemTime>,
    /// When and why, until an answer comes.
    pub last_error: Option<(SystemTime, String)>,
}

impl Report {
    pub fn new(kind: &'static str, source: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            kind,
            source: source.into(),
            state: Mutex::default(),
        })
    }

    pub fn state(&self) -> State {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left whole values behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source at work; it ends when this is dropped.
#[derive(Debug)]
pub struct Feed<T> {
    told: watch::Receiver<Told<T>>,
    pub report: Arc<Report>,
    _task: Handle,
}

#[derive(Debug)]
struct Told<T> {
    value: Option<Arc<T>>,
    /// It has answered or failed since it was started.
    answered: bool,
}

/// The end that the source's task holds.
#[derive(Debug)]
pub struct Teller<T> {
    told: watch::Sender<Told<T>>,
    report: Arc<Report>,
    changed: Arc<Notify>,
}

/// Starts `work`, which tells what it finds; `changed` is notified when that is news. `known`: what is believed
/// until it has told something. Must be called in a tokio runtime.
pub fn start<T, W>(
    report: Arc<Report>,
    changed: Arc<Notify>,
    known: Option<Arc<T>>,
    work: impl FnOnce(Teller<T>) -> W,
) -> Feed<T>
where
    T: Send + Sync + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let (sender, told) = watch::channel(Told {
        value: known,
        answered: false,
    });
    let teller = Teller {
        told: sender,
        report: report.clone(),
        changed,
    };
    Feed {
        told,
        report,
        _task: task::spawn(work(teller)),
    }
}

impl<T> Feed<T> {
    /// The last good answer.
    pub fn latest(&self) -> Option<Arc<T>> {
        self.told.borrow().value.clone()
    }

    /// Waits for the first answer or failure.
    pub fn answered(&self) -> impl Future<Output = ()> + use<T> {
        let mut told = self.told.clone();
        async move {
            // An error: the task has ended, so that nothing will come.
            let _ = told.wait_for(|told| told.answered).await;
        }
    }
}

impl<T> Teller<T> {
    /// What is believed now.
    pub fn last(&self) -> Option<Arc<T>> {
        self.told.borrow().value.clone()
    }
}

impl<T: PartialEq> Teller<T> {
    /// A good answer. Whether it differs from the last one.
    pub fn found(&self, value: T) -> bool {
        let is_new = self.publish(value);
        let mut state = self.report.lock();
        let count = if is_new {
            &mut state.changed
        } else {
            &mut state.unchanged
        };
        *count += 1;
        state.last_success = Some(SystemTime::now());
        let failed = state.last_error.take();
        drop(state);
        let Report { kind, source, .. } = &*self.report;
        if is_new {
            debug!(kind, source, "discovery: the answer has changed");
        }
        if failed.is_some() {
            info!(kind, source, "discovery: answers again");
        }
        is_new
    }

    /// As [`Teller::found`], without being an answer: nothing is counted.
    pub fn publish(&self, value: T) -> bool {
        let is_new = self.told.borrow().value.as_deref() != Some(&value);
        self.told.send_modify(|told| {
            told.answered = true;
            if is_new {
                told.value = Some(Arc::new(value));
            }
        });
        if is_new {
            self.changed.notify_one();
        }
        is_new
    }

    /// No answer: the last good one stays.
    pub fn failed(&self, reason: String) {
        let reason = one_line(&reason);
        self.told.send_modify(|told| told.answered = true);
        let Report { kind, source, .. } = &*self.report;
        let mut state = self.report.lock();
        state.failed += 1;
        let known = state.last_error.as_ref().is_some_and(|(_, last)| *last == reason);
        if known {
            debug!(kind, source, reason, "discovery: still fails");
        } else {
            let kept = self.told.borrow().value.is_some();
            warn!(kind, source, reason, kept, "discovery: fails");
        }
        state.last_error = Some((SystemTime::now(), reason));
    }
}

/// What others have written may be long, and made to look like more lines of a log.
fn one_line(reason: &str) -> String {
    let words = reason.split(|c: char| c.is_whitespace() || c.is_control());
    let mut line = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().take(MAX_REASON));
        if line.len() >= MAX_REASON {
            return line.chars().take(MAX_REASON).chain(['…']).collect();
        }
    }
    line
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A teller whose feed nobody reads; the value and the counts (changed, unchanged, failed) can be looked at.
    pub fn teller<T>() -> Teller<T> {
        Teller {
            told: watch::channel(Told {
                value: None,
                answered: false,
            })
            .0,
            report: Report::new("test", "test"),
            changed: Arc::default(),
        }
    }

    impl<T> Teller<T> {
        pub fn counts(&self) -> (u64, u64, u64) {
            let state = self.report.state();
            (state.changed, state.unchanged, state.failed)
        }

        pub fn error(&self) -> String {
            self.report.state().last_error.map(|(_, why)| why).unwrap_or_default()
        }
    }

    #[test]
    fn reasons_are_one_short_line() {
        assert_eq!(one_line(" a\r\nb\x1b[0m\tc "), "a b [0m c");
        let long = one_line(&"word ".repeat(1000));
        assert!(long.chars().count() == MAX_REASON + 1 && long.ends_with('…'));
        assert_eq!(one_line(&"ü".repeat(1000)).chars().count(), MAX_REASON + 1);
    }

    #[tokio::test]
    async fn failures_keep_what_was_found_and_news_wakes() {
        let changed = Arc::new(Notify::new());
        let feed = start(
            Report::new("test", "x"),
            changed.clone(),
            Some(Arc::new(1)),
            |teller| async move {
                teller.failed("not today".into());
                assert!(!teller.found(1) && teller.found(2) && !teller.found(2));
                teller.failed("gone".into());
                std::future::pending::<()>().await;
            },
        );
        assert_eq!(feed.latest().as_deref(), Some(&1), "what was believed before");
        feed.answered().await;
        changed.notified().await;
        assert_eq!(feed.latest().as_deref(), Some(&2));
        let state = feed.report.state();
        assert_eq!((state.changed, state.unchanged, state.failed), (1, 2, 2));
        assert_eq!(state.last_error.unwrap().1, "gone");
        assert!(state.last_success.is_some());
    }
}
