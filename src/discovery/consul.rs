//! Consul: the instances of a service with their checks, by blocking queries on its HTTP API.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};

use super::api::{self, Tls, Url, credentials};
use super::dns::Resolver;
use super::feed::{self, Feed, Report};
use super::{Answer, Listed, MAX_ENDPOINTS, MIN_WAIT, Start, back_off, jittered, zone};
use crate::base::rng::Rng;
use crate::base::secret::Secret;
use crate::net::addr::EndpointAddr;
use crate::tls::ClientSpec;

/// How long Consul may wait for news before it answers without.
const WAIT: Duration = Duration::from_secs(55);
/// It adds up to a sixteenth of that, and the answer has to come here.
const DEADLINE: Duration = Duration::from_secs(55 + 55 / 16 + 10);
/// From the head of an answer to its end.
const BODY: Duration = Duration::from_secs(10);
/// The longest pause after failures.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);
/// 10,000 instances with all their checks are smaller.
const MAX_BYTES: usize = 64 << 20;
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

#[derive(Debug, Clone)]
pub struct Spec {
    pub url: Url,
    /// For `https`.
    pub tls: Option<ClientSpec>,
    pub service: String,
    /// All of them.
    pub tags: Vec<String>,
    pub datacenter: Option<String>,
    pub token: Option<Secret>,
    /// `false`: those with a check that warns are used too.
    pub only_passing: bool,
}

/// Asks at once and then waits for news, until the feed is dropped.
pub fn watch(spec: &Spec, start: Start) -> Feed<Answer<Listed>> {
    let spec = spec.clone();
    let report = Report::new("consul", format!("{} {}", spec.url, spec.service));
    feed::start(report, start.changed, start.known, |teller| async move {
        let mut rng = Rng::from_entropy();
        let tls = match spec.tls.as_ref().map(Tls::new).transpose() {
            Ok(tls) => tls,
            Err(reason) => return teller.failed(reason),
        };
        let (mut index, mut failures) = (0, 0);
        loop {
            let begun = Instant::now();
            match ask(&spec, &start.resolver, tls.as_ref(), index).await {
                Ok((answered, endpoints)) => {
                    failures = 0;
                    index = next(index, answered);
                    teller.found(endpoints.into());
                    // An index that moves all the time must not make this a busy loop.
                    sleep_until(begun + MIN_WAIT).await;
                }
                Err(reason) => {
                    failures += 1;
                    // At once, not when there is news: whether it answers again.
                    index = 0;
                    teller.failed(reason);
                    sleep(jittered(back_off(failures, MAX_BACK_OFF), &mut rng)).await;
                }
            }
        }
    })
}

/// What to wait for after an answer with this index: an index that goes backwards means that Consul has begun anew.
fn next(index: u64, answered: u64) -> u64 {
    if answered < index { 0 } else { answered.max(1) }
}

async fn ask(spec: &Spec, resolver: &Resolver, tls: Option<&Tls>, index: u64) -> Result<(u64, Vec<Listed>), String> {
    let token = spec.token.as_ref().map(|token| credentials("", token)).transpose()?;
    let fields = token.into_iter().map(|token| (TOKEN, token)).collect();
    let answer = api::get(resolver, &spec.url, tls, &target(spec, index), fields, DEADLINE).await;
    let answer = answer.map_err(|(_, reason)| reason)?;
    let index = index_of(&answer.headers).ok_or("the answer has no X-Consul-Index: it is not Consul's")?;
    let body = answer.whole(MAX_BYTES, BODY).await?;
    Ok((index, endpoints(&body, spec.only_passing)?))
}

fn target(spec: &Spec, index: u64) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut target = format!("/v1/health/service/{}?stale", encoded(&spec.service));
    if spec.only_passing {
        target.push_str("&passing=1");
    }
    for tag in &spec.tags {
        target.push_str(&format!("&tag={}", encoded(tag)));
    }
    if let Some(datacenter) = &spec.datacenter {
        target.push_str(&format!("&dc={}", encoded(datacenter)));
    }
    if index > 0 {
        target.push_str(&format!("&index={index}&wait={}s", WAIT.as_secs()));
    }
    target
}

fn index_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(INDEX)?.to_str().ok()?.parse().ok()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: u64,
    weights: Option<Weights>,
    locality: Option<Locality>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Locality {
    #[serde(default)]
    zone: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    #[serde(default)]
    passing: u64,
    #[serde(default)]
    warning: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}

/// The instances that may be used, sorted, so that the order of an answer says nothing.
fn endpoints(body: &[u8], only_passing: bool) -> Result<Vec<Listed>, String> {
    let entries: Vec<Entry> = serde_json::from_slice(body).map_err(|e| format!("the answer is not Consul's: {e}"))?;
    let mut listed: Vec<Listed> = entries.iter().filter_map(|entry| one(entry, only_passing)).collect();
    listed.sort_by(|a, b| a.addr.cmp(&b.addr));
    listed.dedup_by(|a, b| a.addr == b.addr);
    listed.truncate(MAX_ENDPOINTS);
    Ok(listed)
}

fn one(entry: &Entry, only_passing: bool) -> Option<Listed> {
    let mut is_passing = true;
    for check in entry.checks.iter().flatten() {
        match check.status.as_str() {
            "passing" => {}
            "warning" if !only_passing => is_passing = false,
            // Critical, in maintenance, or unheard of.
            _ => return None,
        }
    }
    let Service {
        address,
        port,
        weights,
        locality,
    } = &entry.service;
    let host = if address.is_empty() {
        &entry.node.address
    } else {
        address
    };
    let text = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    // Instances without a port are reached in other ways.
    let addr = EndpointAddr::parse(&text)
        .ok()
        .filter(|addr| !matches!(addr, EndpointAddr::Unix(_)))?;
    let weight = weights
        .as_ref()
        .map_or(1, |w| if is_passing { w.passing } else { w.warning });
    Some(Listed {
        weight: weight.clamp(1, 256) as u16,
        zone: zone(locality.as_ref().map_or("", |locality| &locality.zone)),
        ..Listed::at(addr)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(body: &str, only_passing: bool) -> Vec<String> {
        let listed = endpoints(body.as_bytes(), only_passing).unwrap();
        listed.iter().map(|e| format!("{} {}", e.addr, e.weight)).collect()
    }

    /// As Consul answers, with what is not used left out.
    const BODY: &str = r#"[
        {"Node": {"Node": "n1", "Address": "10.0.0.1", "Datacenter": "dc1"},
         "Service": {"ID": "web-1", "Service": "web", "Address": "", "Port": 8080, "Weights": {"Passing": 10, "Warning": 2}},
         "Checks": [{"CheckID": "serfHealth", "Status": "passing"}, {"CheckID": "web", "Status": "warning"}]},
        {"Node": {"Node": "n2", "Address": "10.0.0.2"},
         "Service": {"ID": "web-2", "Address": "web2.internal", "Port": 8081, "Locality": {"Region": "eu", "Zone": "eu-1"}, "Weights": {"Passing": 1000, "Warning": 1}},
         "Checks": [{"Status": "passing"}]},
        {"Node": {"Node": "n3", "Address": "2001:db8::3"},
         "Service": {"ID": "web-3", "Address": "", "Port": 80}, "Checks": []},
        {"Node": {"Node": "n4", "Address": "10.0.0.4"},
         "Service": {"ID": "web-4", "Address": "", "Port": 80}, "Checks": [{"Status": "critical"}]},
        {"Node": {"Node": "n5", "Address": "10.0.0.5"},
         "Service": {"ID": "web-5", "Address": "", "Port": 0}, "Checks": null}
    ]"#;

    #[test]
    fn instances_become_endpoints_by_their_checks() {
        assert_eq!(listed(BODY, true), ["[2001:db8::3]:80 1", "web2.internal:8081 256"]);
        assert_eq!(
            listed(BODY, false),
            ["10.0.0.1:8080 2", "[2001:db8::3]:80 1", "web2.internal:8081 256"]
        );
        let zones = endpoints(BODY.as_bytes(), true).unwrap();
        assert_eq!([&zones[0].zone, &zones[1].zone], [&None, &Some("eu-1".into())]);
        assert_eq!(listed("[]", true), [""; 0]);
        assert!(endpoints(b"{}", true).is_err());
        assert!(endpoints(b"[{}]", true).is_err());
    }

    #[test]
    fn the_question_says_all_that_was_configured() {
        let mut spec = Spec {
            url: Url::new(false, "a", 8500),
            tls: None,
            service: "web/ü".into(),
            tags: Vec::new(),
            datacenter: None,
            token: None,
            only_passing: true,
        };
        assert_eq!(target(&spec, 0), "/v1/health/service/web%2F%C3%BC?stale&passing=1");
        spec.tags = vec!["v2".into(), "a&b".into()];
        spec.datacenter = Some("dc1".into());
        spec.only_passing = false;
        assert_eq!(
            target(&spec, 7),
            "/v1/health/service/web%2F%C3%BC?stale&tag=v2&tag=a%26b&dc=dc1&index=7&wait=55s"
        );
    }

    #[test]
    fn the_index_goes_on_or_begins_anew() {
        assert_eq!(
            [next(0, 5), next(5, 9), next(5, 5), next(9, 5), next(0, 0)],
            [5, 9, 5, 0, 1]
        );
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>, from in 0usize..1300, len in 0usize..9, text in "\\PC{0,6}") {
            let _ = endpoints(&bytes, true);
            let mut body = BODY.to_owned();
            body.replace_range(from.min(body.len())..(from + len).min(body.len()), &text);
            let _ = endpoints(body.as_bytes(), false);
        }
    }
}
