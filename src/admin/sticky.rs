//! How clients are bound to endpoints, as the status tells it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::telemetry::reasons::Stuck;
use crate::upstream::Upstream;

#[derive(Debug, Serialize)]
pub struct Sticky {
    cookie: String,
    path: String,
    domain: Option<String>,
    /// `null`: until the browser ends.
    max_age_seconds: Option<u64>,
    same_site: &'static str,
    /// `null`: where the request came by HTTPS.
    secure: Option<bool>,
    http_only: bool,
    /// How many are accepted; the first of them signs.
    secrets: usize,
    /// What became of what clients showed.
    requests: BTreeMap<&'static str, u64>,
}

pub fn of(upstream: &Upstream) -> Option<Sticky> {
    let spec = upstream.sticky.as_ref()?.spec();
    Some(Sticky {
        cookie: spec.cookie.clone(),
        path: spec.path.clone(),
        domain: spec.domain.clone(),
        max_age_seconds: spec.max_age.map(|max_age| max_age.as_secs()),
        same_site: spec.same_site.label(),
        secure: spec.secure,
        http_only: spec.http_only,
        secrets: spec.keys.len(),
        requests: Stuck::ALL
            .map(|result| (result.label(), upstream.series.sum(|s| s.stuck(result))))
            .into(),
    })
}
