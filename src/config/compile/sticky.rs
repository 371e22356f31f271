//! Sticky sessions: secrets read from their file, and what an upstream's use says against them.

use crate::config::diagnostic::{At, Context, Diagnostic, Span};
use crate::config::plan::{Action, Forward, Route};
use crate::config::schema::Schema;
use crate::config::schema::listener::Serve;
use crate::config::schema::sticky::{Sticky, secret};
use crate::config::schema::upstream::Upstream;
use crate::sticky::{Key, Spec};

/// With the secrets of the file, if that is where they stand.
pub fn spec(cx: &Context<'_>, written: &Sticky) -> Option<Spec> {
    let mut spec = written.spec.value.clone();
    if let Some(path) = &written.secret_file {
        spec.keys = from_file(path)
            .map_err(|message| cx.push(Diagnostic::error(path.span, message)))
            .ok()?;
    }
    Some(spec)
}

/// One secret a line, the one that signs first.
fn from_file(path: &At<std::path::PathBuf>) -> Result<Vec<Key>, String> {
    let name = path.value.display();
    let text = std::fs::read_to_string(&path.value).map_err(|e| format!("cannot read `{name}`: {e}"))?;
    let lines = text
        .lines()
        .map(str::trim)
        .enumerate()
        .filter(|(_, line)| !line.is_empty());
    let keys = lines
        .map(|(n, line)| secret(line).map_err(|message| format!("line {} of `{name}`: {message}", n + 1)))
        .collect::<Result<Vec<_>, _>>()?;
    match keys.is_empty() {
        true => Err(format!("`{name}` holds no secret")),
        false => Ok(keys),
    }
}

/// What is said of `sticky` by who uses the upstreams.
pub fn check(cx: &Context<'_>, schema: &Schema, routes: &[Route]) {
    let sticky: Vec<(usize, &Upstream, &Sticky)> = schema
        .upstreams
        .iter()
        .enumerate()
        .filter_map(|(n, upstream)| Some((n, upstream, upstream.sticky.as_ref()?)))
        .collect();
    let forwards: Vec<&Forward> = routes
        .iter()
        .filter_map(|route| match &route.action {
            Action::Forward(forward) => Some(forward),
            _ => None,
        })
        .collect();
    let uses = |forward: &Forward, n| forward.split.iter().any(|(upstream, _)| *upstream == n);
    for (n, upstream, written) in &sticky {
        let place = written.spec.span;
        let by_route = forwards.iter().any(|forward| uses(forward, *n));
        if let Some(listener) = by_tcp(schema, &upstream.name.value).filter(|_| !by_route) {
            let message = "connections of Layer 4 have no cookies, and no route leads to this upstream";
            cx.push(
                Diagnostic::error(place, message)
                    .related(listener, "used here alone")
                    .help("for tcp listeners take `balance = { algorithm = \"maglev\", hash = \"source_ip\" }`"),
            );
        }
        if let Some(hashing) = upstream.balance.value.as_ref().filter(|spec| spec.hashing().is_some()) {
            let message = format!(
                "the cookie comes before `{}`, which decides for new clients alone",
                hashing.label()
            );
            cx.push(
                Diagnostic::warning(place, message)
                    .related(upstream.balance.span, "what is hashed here binds clients as well")
                    .help("keep one of them: the cookie for browsers, the hash for clients without cookies"),
            );
        }
    }
    for (at, (n, first, one)) in sticky.iter().enumerate() {
        for (m, second, other) in sticky.iter().skip(at + 1) {
            let (a, b) = (&one.spec.value, &other.spec.value);
            let same = a.cookie == b.cookie && a.path == b.path && a.domain == b.domain;
            // Within a split it tells which of them a client is bound to.
            let alone = |n, m| forwards.iter().any(|forward| uses(forward, n) && !uses(forward, m));
            let is_used = |n| forwards.iter().any(|forward| uses(forward, n));
            let apart = is_used(*n) && is_used(*m) && (alone(*n, *m) || alone(*m, *n));
            if same && apart {
                let (first, second) = (&first.name.value, &second.name.value);
                let message = format!(
                    "`{first}` and `{second}` bind clients with the same cookie, `{}`",
                    a.cookie
                );
                cx.push(
                    Diagnostic::warning(other.spec.span, message)
                        .related(one.spec.span, "the other one")
                        .label("whoever goes from one to the other loses its place at both")
                        .help("give each a name or a `path` of its own"),
                );
            }
        }
    }
}

/// Where a tcp listener names the upstream.
pub fn by_tcp(schema: &Schema, upstream: &str) -> Option<Span> {
    let listeners = schema.listeners.iter().filter_map(|listener| match &listener.serve {
        Some(Serve::Tcp(tcp)) => Some(tcp),
        _ => None,
    });
    let mut names = listeners.flat_map(|tcp| tcp.upstream.iter().chain(tcp.sni.iter().map(|(_, name)| name)));
    names.find(|name| name.value == upstream).map(|name| name.span)
}
