//! Endpoints that are no longer anybody's: they take no new work, and are remembered until what runs there has ended.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::endpoint::State;
use crate::endpoint::duty::{By, Duty};
use crate::snapshot::Snapshot;
use crate::upstream::Upstream;

/// An endpoint and the upstream it belonged to.
pub type Former = (Arc<str>, Arc<State>);

/// All that belong to an upstream of `snapshot` now.
pub fn present(snapshot: &Snapshot) -> Vec<Former> {
    snapshot
        .upstreams
        .iter()
        .flat_map(|upstream| members(upstream))
        .collect()
}

/// All that belong to `upstream` now.
pub fn members(upstream: &Upstream) -> Vec<Former> {
    let members = upstream.members();
    let former = members.iter().map(|m| (upstream.name.clone(), m.endpoint.clone()));
    former.collect()
}

/// Those with work left.
#[derive(Debug, Default)]
pub struct Leaving(Mutex<Vec<Former>>);

impl Leaving {
    /// Lets those of `before` go that are not in `after`.
    pub fn part(&self, before: Vec<Former>, after: &[Former]) {
        let stay: HashSet<u32> = after.iter().map(|(_, endpoint)| endpoint.id).collect();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (upstream, endpoint) in before {
            if stay.contains(&endpoint.id) {
                continue;
            }
            // Whatever held it goes on with what it holds, and its connections at rest close.
            endpoint.orders.set_duty(By::Removal, Duty::Disabled);
            if endpoint.active() > 0 {
                tracing::info!(%upstream, endpoint = %endpoint.label, active = endpoint.active(), "an endpoint is leaving");
                all.push((upstream, endpoint));
            }
        }
    }

    /// Those that still have work.
    pub fn list(&self) -> Vec<Former> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, endpoint)| endpoint.active() > 0);
        all.clone()
    }
}
