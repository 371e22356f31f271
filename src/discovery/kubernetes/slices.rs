//! EndpointSlices: what the API says of them, and the endpoints they add up to.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::PortName;
use crate::discovery::{Listed, MAX_ENDPOINTS, zone};
use crate::net::addr::EndpointAddr;

/// One page of a list.
#[derive(Deserialize)]
pub struct List {
    pub metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<Slice>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    #[serde(default)]
    pub resource_version: String,
    /// Where the next page begins; empty on the last one.
    #[serde(default)]
    pub r#continue: String,
}

/// One line of a watch.
#[derive(Deserialize)]
struct Event {
    r#type: String,
    object: serde_json::Value,
}

/// What a line of a watch means.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    Changed,
    /// Nothing has changed up to this version.
    Bookmark,
    /// The version that was asked for is forgotten: everything is to be read again.
    Expired,
    Failed(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slice {
    metadata: Metadata,
    #[serde(default)]
    address_type: String,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    resource_version: String,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
    zone: Option<String>,
    hints: Option<Hints>,
}

/// Which zones are to use it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hints {
    for_zones: Option<Vec<ForZone>>,
}

#[derive(Deserialize)]
struct ForZone {
    name: String,
}

/// Each may be missing, which has a meaning of its own.
#[derive(Deserialize, Default, Clone, Copy)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct Port {
    #[serde(default)]
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

/// What a pod is good for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// New work.
    Ready,
    /// It ends soon and still answers.
    Draining,
}

/// All slices of a service, by name, and the version they are of.
#[derive(Default)]
pub struct Slices {
    pub version: String,
    slices: BTreeMap<String, Vec<(Listed, Use)>>,
}

impl Slices {
    /// Takes in a page of a list.
    pub fn page(&mut self, body: &[u8], port: &PortName) -> Result<ListMeta, String> {
        let list: List = serde_json::from_slice(body).map_err(|e| format!("the answer is no list of slices: {e}"))?;
        for slice in list.items.into_iter().flatten() {
            self.put(slice, port)?;
        }
        self.version.clone_from(&list.metadata.resource_version);
        Ok(list.metadata)
    }

    /// Takes in a line of a watch.
    pub fn line(&mut self, line: &[u8], port: &PortName) -> Result<Told, String> {
        let event: Event = serde_json::from_slice(line).map_err(|e| format!("a line of the watch is no event: {e}"))?;
        if event.r#type == "ERROR" {
            let text = |key: &str| {
                event
                    .object
                    .get(key)
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or_default()
            };
            return Ok(match event.object.get("code").and_then(serde_json::Value::as_u64) {
                Some(410) => Told::Expired,
                _ => Told::Failed(format!("{} {}", text("reason"), text("message"))),
            });
        }
        let slice: Slice =
            serde_json::from_value(event.object).map_err(|e| format!("an object of the watch is no slice: {e}"))?;
        let version = slice.metadata.resource_version.clone();
        let told = match event.r#type.as_str() {
            "ADDED" | "MODIFIED" => {
                self.put(slice, port)?;
                Told::Changed
            }
            "DELETED" => {
                self.slices.remove(&slice.metadata.name);
                Told::Changed
            }
            // Whatever else there may be one day is passed over.
            _ => Told::Bookmark,
        };
        if !version.is_empty() {
            self.version = version;
        }
        Ok(told)
    }

    fn put(&mut self, slice: Slice, port: &PortName) -> Result<(), String> {
        if self.slices.len() >= MAX_ENDPOINTS && !self.slices.contains_key(&slice.metadata.name) {
            return Err(format!("more than {MAX_ENDPOINTS} slices"));
        }
        let endpoints = match number(slice.ports.as_deref().unwrap_or_default(), port)? {
            Some(number) => endpoints(&slice, number),
            None => Vec::new(),
        };
        self.slices.insert(slice.metadata.name, endpoints);
        Ok(())
    }

    /// Every endpoint once (one may stand in two slices while it moves), sorted. Those that end soon drain; when all do,
    /// they are used on.
    pub fn endpoints(&self) -> Vec<Listed> {
        let mut all: Vec<_> = self.slices.values().flatten().collect();
        all.sort_by(|(a, a_use), (b, b_use)| (&a.addr, a_use).cmp(&(&b.addr, b_use)));
        all.dedup_by(|(a, _), (b, _)| a.addr == b.addr);
        let has_others = all.iter().any(|(_, is)| *is == Use::Ready);
        let listed = all.into_iter().map(|(listed, is)| Listed {
            draining: has_others && *is == Use::Draining,
            ..listed.clone()
        });
        listed.take(MAX_ENDPOINTS).collect()
    }
}

/// The number of the port that is wanted. `None`: this slice does not have it, as when a service is being changed.
fn number(ports: &[Port], wanted: &PortName) -> Result<Option<u16>, String> {
    let is_tcp = |port: &&Port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    let mut ports = ports
        .iter()
        .filter(is_tcp)
        .filter(|port| port.port.is_some_and(|n| n > 0));
    Ok(match wanted {
        PortName::Number(n) => ports.any(|port| port.port == Some(*n)).then_some(*n),
        PortName::Name(name) => ports
            .find(|port| port.name.as_deref() == Some(name))
            .and_then(|port| port.port),
        PortName::Only => match (ports.next(), ports.next()) {
            (only, None) => only.and_then(|port| port.port),
            _ => return Err("the service has several ports: set `port` to the name of one".into()),
        },
    })
}

fn endpoints(slice: &Slice, port: u16) -> Vec<(Listed, Use)> {
    let all = slice.endpoints.iter().flatten().filter_map(|endpoint| {
        let is = endpoint.conditions.r#use()?;
        // All addresses of an endpoint lead to the same pod.
        let host = endpoint.addresses.first()?;
        let text = match slice.address_type.as_str() {
            "IPv6" => format!("[{host}]:{port}"),
            _ => format!("{host}:{port}"),
        };
        let addr = EndpointAddr::parse(&text)
            .ok()
            .filter(|addr| !matches!(addr, EndpointAddr::Unix(_)))?;
        let hinted = endpoint
            .hints
            .as_ref()
            .and_then(|hints| Some(&hints.for_zones.as_ref()?.first()?.name));
        let zone = zone(hinted.or(endpoint.zone.as_ref()).map_or("", String::as_str));
        Some((
            Listed {
                zone,
                ..Listed::at(addr)
            },
            is,
        ))
    });
    all.collect()
}

impl Conditions {
    /// As their documentation says: no `ready` is ready, no `serving` is as `ready`, no `terminating` is not.
    fn r#use(self) -> Option<Use> {
        let ready = self.ready.unwrap_or(true);
        let serving = self.serving.unwrap_or(ready);
        match (ready, serving, self.terminating.unwrap_or(false)) {
            (true, ..) => Some(Use::Ready),
            (false, true, true) => Some(Use::Draining),
            (false, ..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slice(name: &str, version: u32, endpoints: &str) -> String {
        format!(
            r#"{{"metadata": {{"name": "{name}", "resourceVersion": "{version}"}}, "addressType": "IPv4",
               "endpoints": [{endpoints}], "ports": [{{"name": "http", "port": 8080, "protocol": "TCP"}},
               {{"name": "dns", "port": 53, "protocol": "UDP"}}, {{"name": "admin", "port": 9000}}]}}"#
        )
    }

    fn pod(addr: &str, conditions: &str) -> String {
        format!(r#"{{"addresses": ["{addr}", "10.9.9.9"], "conditions": {{{conditions}}}, "zone": "a"}}"#)
    }

    fn http() -> PortName {
        PortName::Name("http".into())
    }

    fn told(slices: &mut Slices, kind: &str, object: &str) -> Told {
        let line = format!(r#"{{"type": "{kind}", "object": {object}}}"#);
        slices.line(line.as_bytes(), &http()).unwrap()
    }

    fn addrs(slices: &Slices) -> Vec<String> {
        let text = |e: &Listed| format!("{}{}", e.addr, if e.draining { " drains" } else { "" });
        slices.endpoints().iter().map(text).collect()
    }

    #[test]
    fn slices_add_up_and_events_change_them() {
        let mut slices = Slices::default();
        let first = slice(
            "a",
            3,
            &format!("{},{}", pod("10.0.0.2", "\"ready\": true"), pod("10.0.0.1", "")),
        );
        let list = format!(r#"{{"metadata": {{"resourceVersion": "7", "continue": "next"}}, "items": [{first}]}}"#);
        let meta = slices.page(list.as_bytes(), &http()).unwrap();
        assert_eq!((meta.r#continue.as_str(), slices.version.as_str()), ("next", "7"));
        assert_eq!(addrs(&slices), ["10.0.0.1:8080", "10.0.0.2:8080"]);
        let moved = slice("b", 8, &format!("{},{}", pod("10.0.0.2", ""), pod("10.0.0.3", "")));
        assert_eq!(told(&mut slices, "ADDED", &moved), Told::Changed);
        assert_eq!(addrs(&slices).len(), 3);
        assert_eq!(told(&mut slices, "DELETED", &slice("a", 9, "")), Told::Changed);
        assert_eq!(addrs(&slices), ["10.0.0.2:8080", "10.0.0.3:8080"]);
        let bookmark = r#"{"kind": "EndpointSlice", "metadata": {"resourceVersion": "20"}}"#;
        assert_eq!(told(&mut slices, "BOOKMARK", bookmark), Told::Bookmark);
        assert_eq!(slices.version, "20");
        assert_eq!(addrs(&slices).len(), 2);
        assert_eq!(
            told(&mut slices, "ERROR", r#"{"code": 410, "reason": "Expired"}"#),
            Told::Expired
        );
        let failed = told(
            &mut slices,
            "ERROR",
            r#"{"code": 500, "reason": "InternalError", "message": "no"}"#,
        );
        assert_eq!(failed, Told::Failed("InternalError no".into()));
    }

    #[test]
    fn hints_say_the_zone_better_than_where_a_pod_is() {
        let mut slices = Slices::default();
        let hinted = pod("10.0.0.1", "").replace(
            r#""zone": "a""#,
            r#""zone": "a", "hints": {"forZones": [{"name": "b"}]}"#,
        );
        told(
            &mut slices,
            "ADDED",
            &slice("a", 1, &format!("{hinted},{}", pod("10.0.0.2", ""))),
        );
        let zones: Vec<_> = slices.endpoints().into_iter().map(|e| e.zone).collect();
        assert_eq!(zones, [Some("b".into()), Some("a".into())]);
    }

    #[test]
    fn conditions_say_who_is_used() {
        let of = |pods: &[(&str, &str)]| {
            let mut slices = Slices::default();
            let pods: Vec<_> = pods.iter().map(|(addr, conditions)| pod(addr, conditions)).collect();
            told(&mut slices, "ADDED", &slice("a", 1, &pods.join(",")));
            addrs(&slices)
        };
        let draining = r#""ready": false, "serving": true, "terminating": true"#;
        let ending = r#""ready": false, "serving": false, "terminating": true"#;
        let starting = r#""ready": false, "serving": false, "terminating": false"#;
        let all = [
            ("10.0.0.1", ""),
            ("10.0.0.2", draining),
            ("10.0.0.3", ending),
            ("10.0.0.4", starting),
        ];
        assert_eq!(of(&all), ["10.0.0.1:8080", "10.0.0.2:8080 drains"]);
        assert_eq!(of(&all[1..]), ["10.0.0.2:8080"]);
        assert_eq!(of(&all[2..]), [""; 0]);
        assert_eq!(of(&[("10.0.0.5", "\"ready\": null")]), ["10.0.0.5:8080"]);
    }

    #[test]
    fn ports_are_found_by_name_or_number_or_are_the_only_one() {
        let ports = |text: &str| serde_json::from_str::<Vec<Port>>(text).unwrap();
        let two = ports(r#"[{"name": "a", "port": 1}, {"name": "b", "port": 2, "protocol": "TCP"}]"#);
        let one = ports(r#"[{"name": "", "port": 3}, {"name": "u", "port": 4, "protocol": "UDP"}]"#);
        assert_eq!(number(&two, &PortName::Name("b".into())), Ok(Some(2)));
        assert_eq!(number(&two, &PortName::Name("c".into())), Ok(None));
        assert_eq!(number(&two, &PortName::Number(1)), Ok(Some(1)));
        assert_eq!(number(&two, &PortName::Number(9)), Ok(None));
        assert!(number(&two, &PortName::Only).is_err());
        assert_eq!(number(&one, &PortName::Only), Ok(Some(3)));
        assert_eq!(number(&[], &PortName::Only), Ok(None));
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>, from in 0usize..400, len in 0usize..9, text in "\\PC{0,6}") {
            let mut slices = Slices::default();
            let _ = slices.page(&bytes, &PortName::Only);
            let _ = slices.line(&bytes, &PortName::Only);
            let mut line = format!(r#"{{"type": "ADDED", "object": {}}}"#, slice("a", 1, &pod("10.0.0.1", "")));
            line.replace_range(from.min(line.len())..(from + len).min(line.len()), &text);
            let _ = slices.line(line.as_bytes(), &http());
            slices.endpoints();
        }
    }
}
