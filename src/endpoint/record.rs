//! What is remembered of an endpoint for people: its last probe, and how it came to be what it is.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::telemetry::series::ProbeResult;
use crate::telemetry::shard::LocalCounter;

/// How many changes are remembered.
const MAX_CHANGES: usize = 16;

/// How one probe ended.
#[derive(Debug, Clone)]
pub struct Probed {
    pub at: SystemTime,
    pub took: Duration,
    pub result: ProbeResult,
    /// Why it failed.
    pub reason: Option<String>,
}

/// An endpoint became something else.
#[derive(Debug, Clone)]
pub struct Change {
    pub at: SystemTime,
    pub from: &'static str,
    pub to: &'static str,
    pub reason: String,
}

/// Written by control alone, now and then.
#[derive(Debug, Default)]
pub struct Record {
    probes: [LocalCounter; ProbeResult::ALL.len()],
    last: Mutex<Option<Probed>>,
    changes: Mutex<VecDeque<Change>>,
}

impl Record {
    pub fn probed(&self, probed: Probed) {
        self.probes[probed.result as usize].add(1);
        *locked(&self.last) = Some(probed);
    }

    /// How many probes ended so.
    pub fn probes(&self, result: ProbeResult) -> u64 {
        self.probes[result as usize].get()
    }

    pub fn last_probe(&self) -> Option<Probed> {
        locked(&self.last).clone()
    }

    /// Remembers a change; the oldest is forgotten.
    pub fn changed(&self, from: &'static str, to: &'static str, reason: String) {
        let mut changes = locked(&self.changes);
        changes.truncate(MAX_CHANGES - 1);
        changes.push_front(Change {
            at: SystemTime::now(),
            from,
            to,
            reason,
        });
    }

    /// The last changes, the newest first.
    pub fn changes(&self) -> Vec<Change> {
        locked(&self.changes).iter().cloned().collect()
    }
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held left a whole value behind.
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_changes_are_kept_newest_first() {
        let record = Record::default();
        for n in 0..40 {
            record.changed("up", "down", n.to_string());
        }
        let reasons: Vec<_> = record.changes().into_iter().map(|c| c.reason).collect();
        assert_eq!(reasons.len(), MAX_CHANGES);
        assert_eq!((reasons[0].as_str(), reasons[15].as_str()), ("39", "24"));
    }
}
