//! A Consul agent's health API as its documentation describes it: blocking queries, filters, tokens.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Origin;
use super::origin::{Seen, reply};

pub struct Consul {
    origin: Origin,
    shared: Arc<(Mutex<State>, Condvar)>,
}

struct State {
    index: u64,
    instances: Vec<Instance>,
    token: String,
    /// Instead of every answer.
    broken: Option<(u16, String)>,
}

#[derive(Clone)]
pub struct Instance {
    pub addr: SocketAddr,
    /// `passing`, `warning` or `critical`.
    pub status: &'static str,
    pub tags: &'static [&'static str],
}

impl Consul {
    /// Asks for `token`.
    pub fn start(token: &str) -> Self {
        let shared = Arc::new((
            Mutex::new(State {
                index: 10,
                instances: Vec::new(),
                token: token.to_owned(),
                broken: None,
            }),
            Condvar::new(),
        ));
        let served = shared.clone();
        let origin = Origin::start(move |seen, stream| answer(&served, seen, stream));
        Self { origin, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.origin.addr)
    }

    /// Registers these instead of all others, and answers as it should; whoever waits is answered.
    pub fn register(&self, instances: &[Instance]) {
        self.change(|state| {
            state.instances = instances.to_vec();
            state.index += 1;
            state.broken = None;
        });
    }

    /// Begins anew: the index goes backwards.
    pub fn restart(&self, instances: &[Instance]) {
        self.change(|state| {
            state.instances = instances.to_vec();
            state.index = 1;
        });
    }

    /// Answers everything so, also those who wait.
    pub fn break_with(&self, status: u16, body: &str) {
        self.change(|state| state.broken = Some((status, body.to_owned())));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.0.lock().unwrap());
        self.shared.1.notify_all();
    }

    /// The targets asked for so far.
    pub fn asked(&self) -> Vec<String> {
        self.origin.seen().iter().map(|seen| seen.path().to_owned()).collect()
    }
}

fn answer(shared: &(Mutex<State>, Condvar), seen: &Seen, stream: &mut TcpStream) -> io::Result<bool> {
    let (path, query) = seen.path().split_once('?').unwrap_or((seen.path(), ""));
    let values = |key: &str| -> Vec<String> {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value.to_owned())
            .collect()
    };
    let mut state = shared.0.lock().unwrap();
    let index: u64 = values("index").first().map_or(0, |index| index.parse().unwrap());
    if index > 0 {
        let wait = values("wait")[0].trim_end_matches('s').parse().unwrap();
        let until = Instant::now() + Duration::from_secs(wait);
        // As Consul does: until the index is another one.
        while state.index == index && state.broken.is_none() && Instant::now() < until {
            state = shared.1.wait_timeout(state, Duration::from_millis(200)).unwrap().0;
            // The proxy may have gone: then the thread should end too.
            stream.set_nonblocking(true)?;
            let gone = matches!(stream.peek(&mut [0]), Ok(0));
            stream.set_nonblocking(false)?;
            if gone {
                return Ok(false);
            }
        }
    }
    if let Some((status, body)) = state.broken.clone() {
        return reply(stream, status, &body);
    }
    if seen.header("x-consul-token") != state.token {
        return reply(
            stream,
            403,
            "Permission denied: token with AccessorID 'anonymous' lacks permission",
        );
    }
    if path != "/v1/health/service/web" {
        return json(stream, state.index, &json!([]));
    }
    let (passing, tags) = (!values("passing").is_empty(), values("tag"));
    let found = state.instances.iter().filter(|instance| {
        let has = |tag: &String| instance.tags.contains(&tag.as_str());
        (!passing || instance.status == "passing") && tags.iter().all(has)
    });
    let entries: Vec<Value> = found.map(entry).collect();
    json(stream, state.index, &Value::Array(entries))
}

fn entry(instance: &Instance) -> Value {
    let (ip, port) = (instance.addr.ip().to_string(), instance.addr.port());
    json!({
        "Node": {"ID": "40e4a748-2192-161a-0510-9bf59fe950b5", "Node": "n", "Address": ip, "Datacenter": "dc1",
                 "TaggedAddresses": {"lan": ip, "wan": ip}, "Meta": {"instance_type": "t2.medium"}},
        "Service": {"ID": format!("web-{port}"), "Service": "web", "Tags": instance.tags, "Address": "", "Meta": {},
                    "Port": port, "Weights": {"Passing": 1, "Warning": 1}, "Namespace": "default"},
        "Checks": [{"Node": "n", "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing"},
                   {"Node": "n", "CheckID": "service:web", "Name": "web", "Status": instance.status}],
    })
}

fn json(stream: &mut TcpStream, index: u64, body: &Value) -> io::Result<bool> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-consul-index: {index}\r\nx-consul-knownleader: true\r\n\
         x-consul-lastcontact: 0\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())?;
    Ok(true)
}
