//! The EndpointSlice part of a Kubernetes API server as its documentation describes it, over TLS: lists in pages,
//! watches with bookmarks, versions that expire, tokens that are replaced.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Origin;
use super::tls::{Identity, serve_tls};

const TARGET: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";

pub struct Kubernetes {
    origin: Origin,
    pub identity: Identity,
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    version: u64,
    slices: BTreeMap<String, Value>,
    /// What happened after which version.
    events: Vec<(u64, Value)>,
    /// Versions before are forgotten.
    oldest: u64,
    token: String,
    /// Watches end now: counts up.
    cut: u64,
    lists: usize,
    watches: usize,
    /// Targets that could not be understood.
    wrong: Vec<String>,
}

impl Kubernetes {
    pub fn start(token: &str) -> Self {
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        {
            let mut state = shared.0.lock().unwrap();
            state.version = 100;
            state.token = token.to_owned();
        }
        let identity = Identity::of(&["localhost"]);
        let (served, config) = (shared.clone(), identity.server(&[]));
        let origin = Origin::raw(move |stream, _| {
            stream.set_read_timeout(Some(super::PATIENCE))?;
            let mut tls = serve_tls(&config, stream)?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                tls.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            serve(&served, &String::from_utf8(head).unwrap(), &mut tls)
        });
        Self {
            origin,
            identity,
            shared,
        }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.origin.addr.port())
    }

    /// A slice of the service `web`, of pods at these addresses with these conditions.
    pub fn put(&self, name: &str, pods: &[(SocketAddr, Value)]) {
        self.change(|state| {
            let port = pods.first().map_or(1, |(addr, _)| addr.port());
            assert!(pods.iter().all(|(addr, _)| addr.port() == port), "a slice has one set of ports");
            state.version += 1;
            let endpoints: Vec<_> = pods
                .iter()
                .map(|(addr, conditions)| {
                    json!({"addresses": [addr.ip().to_string()], "conditions": conditions, "nodeName": "n", "zone": "a"})
                })
                .collect();
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": name, "namespace": "shop", "resourceVersion": state.version.to_string(),
                             "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4", "endpoints": endpoints,
                "ports": [{"name": "http", "port": port, "protocol": "TCP"},
                          {"name": "metrics", "port": 9999, "protocol": "TCP"}],
            });
            let kind = if state.slices.contains_key(name) { "MODIFIED" } else { "ADDED" };
            state.slices.insert(name.to_owned(), slice.clone());
            state.events.push((state.version, json!({"type": kind, "object": slice})));
        });
    }

    pub fn delete(&self, name: &str) {
        self.change(|state| {
            state.version += 1;
            let mut slice = state.slices.remove(name).unwrap();
            slice["metadata"]["resourceVersion"] = state.version.to_string().into();
            state
                .events
                .push((state.version, json!({"type": "DELETED", "object": slice})));
        });
    }

    /// Says that nothing of interest has happened up to a later version.
    pub fn bookmark(&self) {
        self.change(|state| {
            state.version += 10;
            let object = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
                                "metadata": {"resourceVersion": state.version.to_string(), "creationTimestamp": null}});
            state
                .events
                .push((state.version, json!({"type": "BOOKMARK", "object": object})));
        });
    }

    /// Ends all watches, in order.
    pub fn cut(&self) {
        self.change(|state| state.cut += 1);
    }

    /// Forgets what happened, as after a compaction; changes made by `then` are in no watch. Ends all watches.
    pub fn compact(&self) {
        self.change(|state| {
            state.version += 1;
            state.oldest = state.version;
            state.events.clear();
            state.cut += 1;
        });
    }

    /// Another one counts from now on. Ends all watches.
    pub fn set_token(&self, token: &str) {
        self.change(|state| {
            state.token = token.to_owned();
            state.cut += 1;
        });
    }

    /// Lists and watches begun so far.
    pub fn begun(&self) -> (usize, usize) {
        let state = self.shared.0.lock().unwrap();
        assert_eq!(state.wrong, [""; 0]);
        (state.lists, state.watches)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.0.lock().unwrap());
        self.shared.1.notify_all();
    }
}

fn serve(shared: &(Mutex<State>, Condvar), head: &str, out: &mut impl Write) -> io::Result<()> {
    let target = head.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let mut state = shared.0.lock().unwrap();
    let bearer = format!("authorization: bearer {}\r\n", state.token).to_ascii_lowercase();
    if !head.to_ascii_lowercase().contains(&bearer) {
        return status(out, 401, "Unauthorized");
    }
    if path != TARGET || query.get("labelSelector") != Some(&"kubernetes.io%2Fservice-name%3Dweb") {
        state.wrong.push(target.to_owned());
        return status(out, 404, "NotFound");
    }
    if !query.contains_key("watch") {
        state.lists += 1;
        return list(&state, &query, out);
    }
    state.watches += 1;
    let mut from: u64 = query["resourceVersion"].parse().unwrap();
    assert_eq!(query["allowWatchBookmarks"], "true");
    let until = Instant::now() + Duration::from_secs(query["timeoutSeconds"].parse().unwrap());
    let cut = state.cut;
    out.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")?;
    if from < state.oldest {
        let object = json!({"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410,
                            "message": format!("too old resource version: {from} ({})", state.oldest)});
        chunk(out, &json!({"type": "ERROR", "object": object}))?;
        return out.write_all(b"0\r\n\r\n");
    }
    while state.cut == cut && Instant::now() < until {
        for (version, event) in &state.events {
            if *version > from {
                from = *version;
                chunk(out, event)?;
            }
        }
        out.flush()?;
        state = shared.1.wait_timeout(state, Duration::from_millis(200)).unwrap().0;
    }
    out.write_all(b"0\r\n\r\n")
}

/// One slice a page.
fn list(state: &State, query: &BTreeMap<&str, &str>, out: &mut impl Write) -> io::Result<()> {
    let skip: usize = query.get("continue").map_or(0, |token| token.parse().unwrap());
    let items: Vec<_> = state.slices.values().skip(skip).take(1).collect();
    let more = skip + 1 < state.slices.len();
    let next = if more { (skip + 1).to_string() } else { String::new() };
    let body = json!({
        "kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"resourceVersion": state.version.to_string(), "continue": next}, "items": items,
    });
    let body = body.to_string();
    let length = body.len();
    write!(
        out,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    out.flush()
}

/// Torn in two, as networks do.
fn chunk(out: &mut impl Write, event: &Value) -> io::Result<()> {
    let line = format!("{event}\n");
    let (first, second) = line.split_at(line.len() / 2);
    for part in [first, second] {
        write!(out, "{:x}\r\n{part}\r\n", part.len())?;
        out.flush()?;
    }
    Ok(())
}

fn status(out: &mut impl Write, code: u16, reason: &str) -> io::Result<()> {
    let body = json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code}).to_string();
    write!(out, "HTTP/1.1 {code} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    out.flush()
}
