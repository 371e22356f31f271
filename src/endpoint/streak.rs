//! Failures in a row, counted by the data path: an alarm at the limit, and whether the endpoint is ejected.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use crate::telemetry::series::{EjectReason, Outcome};
use crate::telemetry::shard::LocalCounter;

/// No limit.
const OFF: u32 = u32::MAX;

/// Why an endpoint is out, and until when.
#[derive(Debug, Clone)]
pub struct Ejection {
    pub reason: EjectReason,
    pub until: SystemTime,
    /// The how-manieth in a row.
    pub times: u32,
}

/// One endpoint's. Successes only read, unless they end a row of failures.
#[derive(Debug)]
pub struct Streak {
    /// Answers with 5xx and gateway failures since the last success.
    errors: AtomicU32,
    /// Gateway failures since the last answer.
    gateway: AtomicU32,
    max_errors: AtomicU32,
    max_gateway: AtomicU32,
    alarm: OnceLock<Arc<Notify>>,
    ejected: AtomicBool,
    /// For people.
    ejection: Mutex<Option<Ejection>>,
    ejections: [LocalCounter; EjectReason::ALL.len()],
}

impl Default for Streak {
    fn default() -> Self {
        Self {
            errors: AtomicU32::new(0),
            gateway: AtomicU32::new(0),
            max_errors: AtomicU32::new(OFF),
            max_gateway: AtomicU32::new(OFF),
            alarm: OnceLock::new(),
            ejected: AtomicBool::new(false),
            ejection: Mutex::new(None),
            ejections: Default::default(),
        }
    }
}

impl Streak {
    /// Takes in how an attempt ended.
    pub fn took(&self, outcome: Outcome) {
        match outcome {
            Outcome::Success if self.errors.load(Relaxed) == 0 => {}
            Outcome::Success => self.forget(),
            Outcome::ServerError => {
                self.gateway.store(0, Relaxed);
                self.failed(&self.errors, &self.max_errors);
            }
            outcome if outcome.is_gateway_failure() => {
                self.failed(&self.errors, &self.max_errors);
                self.failed(&self.gateway, &self.max_gateway);
            }
            // Says nothing about the endpoint.
            _ => {}
        }
    }

    fn failed(&self, count: &AtomicU32, limit: &AtomicU32) {
        let now = count.fetch_add(1, Relaxed).saturating_add(1);
        if now >= limit.load(Relaxed)
            && let Some(alarm) = self.alarm.get()
        {
            alarm.notify_one();
        }
    }

    /// Failures in a row after which `alarm` is raised; 0: never. The alarm of the first call stays.
    pub fn watch(&self, max_errors: u32, max_gateway: u32, alarm: &Arc<Notify>) {
        let limit = |n| if n == 0 { OFF } else { n };
        self.max_errors.store(limit(max_errors), Relaxed);
        self.max_gateway.store(limit(max_gateway), Relaxed);
        self.alarm.get_or_init(|| alarm.clone());
    }

    /// Which limit is reached.
    pub fn tripped(&self) -> Option<EjectReason> {
        if self.gateway.load(Relaxed) >= self.max_gateway.load(Relaxed) {
            return Some(EjectReason::ConsecutiveGateway);
        }
        (self.errors.load(Relaxed) >= self.max_errors.load(Relaxed)).then_some(EjectReason::Consecutive5xx)
    }

    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// Takes it out; counting starts anew.
    pub fn eject(&self, reason: EjectReason, time: Duration, times: u32) {
        self.ejections[reason as usize].add(1);
        *self.locked() = Some(Ejection {
            reason,
            until: SystemTime::now() + time,
            times,
        });
        self.ejected.store(true, Relaxed);
        self.forget();
    }

    /// Lets it in again; what still failed meanwhile is not held against it.
    pub fn readmit(&self) {
        *self.locked() = None;
        self.ejected.store(false, Relaxed);
        self.forget();
    }

    /// Counting starts anew.
    pub fn forget(&self) {
        self.errors.store(0, Relaxed);
        self.gateway.store(0, Relaxed);
    }

    /// The ejection it is in.
    pub fn ejection(&self) -> Option<Ejection> {
        self.locked().clone()
    }

    /// How often it was ejected for `reason`.
    pub fn ejections(&self, reason: EjectReason) -> u64 {
        self.ejections[reason as usize].get()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Option<Ejection>> {
        // A panic while it was held left a whole value behind.
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(outcomes: &[Outcome]) -> Option<EjectReason> {
        let streak = Streak::default();
        streak.watch(5, 3, &Arc::default());
        outcomes.iter().for_each(|outcome| streak.took(*outcome));
        streak.tripped()
    }

    #[test]
    fn rows_of_failures_trip_and_successes_end_them() {
        use Outcome::{Cancelled, ConnectFailed, Exhausted, Reset, ServerError, Success};
        assert_eq!(after(&[ServerError; 4]), None);
        assert_eq!(after(&[ServerError; 5]), Some(EjectReason::Consecutive5xx));
        assert_eq!(
            after(&[Reset, ConnectFailed, Reset]),
            Some(EjectReason::ConsecutiveGateway)
        );
        // An answer, even of failure, shows that somebody is there.
        assert_eq!(after(&[Reset, Reset, ServerError, Reset]), None);
        assert_eq!(
            after(&[Reset, Reset, ServerError, Reset, Reset]),
            Some(EjectReason::Consecutive5xx)
        );
        assert_eq!(after(&[Reset, Reset, Success, Reset, Reset]), None);
        assert_eq!(after(&[Reset, Reset, Cancelled, Exhausted]), None);
        assert_eq!(
            after(&[Reset, Reset, Cancelled, Reset]),
            Some(EjectReason::ConsecutiveGateway)
        );
    }

    #[tokio::test]
    async fn the_alarm_is_raised_at_the_limit() {
        let (streak, alarm) = (Streak::default(), Arc::new(Notify::new()));
        streak.took(Outcome::Reset);
        streak.watch(0, 2, &alarm);
        streak.took(Outcome::Reset);
        alarm.notified().await;
        streak.eject(EjectReason::ConsecutiveGateway, Duration::from_secs(1), 1);
        assert!(streak.is_ejected() && streak.tripped().is_none());
        assert_eq!(streak.ejections(EjectReason::ConsecutiveGateway), 1);
        streak.readmit();
        assert!(!streak.is_ejected() && streak.ejection().is_none());
    }
}
