//! Which listener a request comes in by, with which certificate, and where Layer 4 takes it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answer::{self, Action, Certificate, Ends, Explanation};
use super::question::{Asked, Question, Wrong};
use super::{Place, upstream};
use crate::balance::KeyParts;
use crate::proxy::tcp;
use crate::snapshot::{Listener, Serve, Snapshot, Tcp};

pub struct Chosen {
    pub listener: Arc<Listener>,
    pub told: answer::Listener,
}

/// The listener a request comes in by.
pub fn choose(snapshot: &Snapshot, places: &[Place], question: &Question, asked: &Asked) -> Result<Chosen, Wrong> {
    let all: Vec<&Arc<Listener>> = snapshot.listeners.iter().flatten().collect();
    let known = || {
        let list: Vec<String> = all
            .iter()
            .map(|listener| format!("`{}` ({})", listener.name, addresses(places, listener).join(", ")))
            .collect();
        list.join(", ")
    };
    if let Some(name) = &question.listener {
        let found = all.iter().find(|listener| *listener.name == **name);
        let found = found.ok_or_else(|| {
            Wrong::new(
                format!("there is no listener `{name}`"),
                format!("the listeners are {}", known()),
            )
        })?;
        return Ok(told(places, found, "asked for by its name".to_owned()));
    }
    let mut at_port: Vec<(u8, &Arc<Listener>)> = Vec::new();
    for listener in &all {
        let bound = addresses(places, listener);
        let closest = bound.iter().filter_map(|address| closeness(address, asked)).max();
        at_port.extend(closest.map(|closeness| (closeness, *listener)));
    }
    let closest = at_port.iter().map(|(closeness, _)| *closeness).max();
    at_port.retain(|(closeness, _)| Some(*closeness) == closest);
    let port = asked.port;
    match at_port.as_slice() {
        [(_, only)] => return Ok(told(places, only, format!("it listens on port {port}"))),
        [] => {}
        several => {
            let names: Vec<String> = several
                .iter()
                .map(|(_, listener)| format!("`{}`", listener.name))
                .collect();
            return Err(Wrong::new(
                format!("{} listen on port {port}, on different addresses", names.join(" and ")),
                "name one with --listener",
            ));
        }
    }
    // In front of it something may map ports: what speaks the same protocol may be meant.
    let fitting: Vec<_> = all
        .iter()
        .filter(|listener| matches!(listener.serve, Serve::Http(_)) && listener.tls.is_some() == asked.https)
        .collect();
    let with = if asked.https { "with" } else { "without" };
    match fitting.as_slice() {
        [only] => {
            let why = format!("nothing listens on port {port}; it is the only one for HTTP {with} TLS");
            Ok(told(places, only, why))
        }
        _ => Err(Wrong::new(
            format!("nothing listens on port {port}"),
            format!("name the port in the URL, or a listener with --listener: {}", known()),
        )),
    }
}

fn told(places: &[Place], listener: &Arc<Listener>, why: String) -> Chosen {
    Chosen {
        told: answer::Listener {
            name: listener.name.to_string(),
            protocol: match listener.serve {
                Serve::Http(_) => "http",
                Serve::Tcp(_) => "tcp",
            }
            .to_owned(),
            tls: listener.tls.is_some(),
            addresses: addresses(places, listener),
            why,
        },
        listener: listener.clone(),
    }
}

fn addresses(places: &[Place], listener: &Listener) -> Vec<String> {
    let mine = places.iter().filter(|(name, _)| *name == listener.name);
    mine.map(|(_, address)| address.clone()).collect()
}

/// How well a bound address fits what is asked for; `None`: it has another port, or the URL names another address.
fn closeness(bound: &str, asked: &Asked) -> Option<u8> {
    let bound: SocketAddr = bound.parse().ok()?;
    if bound.port() != asked.port {
        return None;
    }
    match asked.address() {
        Some(address) if address == bound.ip() => Some(2),
        _ if bound.ip().is_unspecified() => Some(1),
        Some(_) => None,
        None => Some(1),
    }
}

/// A client and a listener that do not speak the same.
pub fn mismatch(listener: &Listener, asked: &Asked) -> Option<Ends> {
    match (&listener.serve, listener.tls.is_some(), asked.https) {
        (_, true, false) => Some(Ends::closed("the listener speaks TLS: ask for https://…")),
        (Serve::Http(_), false, true) => Some(Ends::closed(
            "the listener speaks plain HTTP: the handshake fails; ask for http://…, or give the listener `tls`",
        )),
        _ => None,
    }
}

/// What a client is shown, where the listener ends TLS.
pub fn certificate(listener: &Listener, asked: &Asked) -> Option<Certificate> {
    let name = asked.server_name();
    let (found, is_for) = listener.certificates.as_ref()?.find(name)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let lasts = found.not_after > now.as_secs() as i64;
    let until = OffsetDateTime::from_unix_timestamp(found.not_after).ok();
    let first = match name {
        Some(name) => format!("no certificate is for {name}: the first one is shown"),
        None => "clients name no address: the first one is shown".to_owned(),
    };
    Some(Certificate {
        file: found.cert_path.display().to_string(),
        names: found.names.clone(),
        not_after: until.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default(),
        why: match (is_for, lasts) {
            (true, true) => "it is for the server name".to_owned(),
            (true, false) => "it is for the server name, and has expired".to_owned(),
            (false, _) => first,
        },
        fits: is_for && lasts,
    })
}

/// A connection at Layer 4, by its server name where that is looked at.
pub fn layer4(told: &mut Explanation, tcp: &Tcp, asked: &Asked, source: IpAddr) {
    let found = tcp::by_name(tcp, asked.server_name());
    let Some(found) = found else {
        told.ends = Some(Ends::closed(
            "no upstream is for this server name, and there is no default",
        ));
        return;
    };
    let mut details = Vec::new();
    if !tcp.sni.is_empty() {
        details.push("by the server name of the ClientHello".to_owned());
    }
    told.action = Some(Action::of("relay", details));
    told.upstreams
        .push(upstream::of_connection(found, &KeyParts::of_connection(source)));
}
