//! What we accept, httparse and hyper accept too, and read alike. What we alone refuse, we refuse by a rule that is
//! written down here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::rc::Rc;

use evenkeel::h1::desync::Mode;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::corpus::{Sample, load, mutated, mutations, requests};
use crate::reading::{End, Kind, LIMITS, Message, Read, read};

/// A request as hyper's server gives it to its service.
#[derive(Debug, Clone)]
struct Seen {
    method: String,
    target: String,
    absolute: bool,
    minor: u8,
    /// By name, then in their order.
    fields: Vec<(String, Vec<u8>)>,
    /// `None`: it broke.
    body: Option<Vec<u8>>,
    trailers: Vec<(String, Vec<u8>)>,
    chunked: bool,
}

/// All requests hyper finds in `bytes` on one connection.
async fn hyper_reads(bytes: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let list = seen.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let list = list.clone();
        async move {
            let (parts, body) = request.into_parts();
            let absolute = parts.uri.authority().is_some();
            let mut target = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
            if target.starts_with('?') {
                target.insert(0, '/');
            }
            let mut fields: Vec<_> = parts
                .headers
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                .collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            let chunked = parts.headers.contains_key("transfer-encoding");
            let body = body.collect().await.ok();
            let trailers = body.as_ref().and_then(|b| b.trailers()).into_iter().flatten();
            let trailers = trailers
                .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                .collect();
            let broken = body.is_none();
            list.borrow_mut().push(Seen {
                method: parts.method.to_string(),
                target,
                absolute,
                minor: u8::from(parts.version == http::Version::HTTP_11),
                fields,
                body: body.map(|b| b.to_bytes().to_vec()),
                trailers,
                chunked,
            });
            let mut response = Response::new(Empty::<Bytes>::new());
            if broken {
                *response.status_mut() = StatusCode::BAD_REQUEST;
            }
            Ok::<_, Infallible>(response)
        }
    });
    let serve = hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .half_close(true)
        .serve_connection(TokioIo::new(near), service);
    let client = async {
        let _ = far.write_all(bytes).await;
        let _ = far.shutdown().await;
        let mut answers = Vec::new();
        let _ = far.read_to_end(&mut answers).await;
    };
    let _ = tokio::join!(serve, client);
    Rc::try_unwrap(seen).map(RefCell::into_inner).unwrap_or_default()
}

fn by_name(fields: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let mut sorted = fields.to_vec();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    sorted
}

/// Why hyper's reading is not ours.
fn difference(ours: &Message, seen: &Seen) -> Option<String> {
    let (method, target) = &ours.first;
    if (method, target, ours.minor) != (&seen.method, &seen.target, seen.minor) {
        return Some("the first line".into());
    }
    let mut fields = by_name(&ours.fields);
    // hyper has made one of equal lengths, we do so when the request is sent on.
    fields.dedup_by(|b, a| a.0 == "content-length" && b.0 == a.0);
    let mut theirs = seen.fields.clone();
    // A target in absolute form replaces Host with what it says; hyper leaves both.
    if seen.absolute {
        fields.retain(|(name, _)| name != "host");
        theirs.retain(|(name, _)| name != "host");
    }
    if fields != theirs {
        return Some("fields".into());
    }
    if seen.body.as_ref() != Some(&ours.body) {
        return Some("the body".into());
    }
    if (ours.framing == "Chunked") != seen.chunked {
        return Some("framing".into());
    }
    // Ours are those that may be passed on.
    let theirs = &seen.trailers;
    if !ours.trailers.iter().all(|t| theirs.contains(t)) {
        return Some("trailers".into());
    }
    None
}

/// Requests that hyper takes and we refuse: the error's words, and what must then be true of the bytes.
struct Stricter {
    error: &'static str,
    why: &'static str,
    holds: fn(&Text<'_>) -> bool,
}

/// The bytes from where the refused request begins.
struct Text<'a> {
    bytes: &'a [u8],
    /// As far as hyper may have read it: lines end in LF.
    lines: Vec<&'a [u8]>,
}

impl<'a> Text<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut lines = Vec::new();
        for line in bytes.split(|b| *b == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() && lines.iter().any(|l: &&[u8]| !l.is_empty()) {
                break;
            }
            if !line.is_empty() {
                lines.push(line);
            }
        }
        Self { bytes, lines }
    }

    fn values(&self, name: &str) -> Vec<&'a [u8]> {
        let values = self.lines.iter().skip(1).filter_map(|line| {
            let colon = line.iter().position(|b| *b == b':')?;
            let found = line[..colon].eq_ignore_ascii_case(name.as_bytes());
            found.then(|| line[colon + 1..].trim_ascii())
        });
        values.collect()
    }

    fn target(&self) -> &'a [u8] {
        let first = self.lines.first().copied().unwrap_or_default();
        first.split(|b| *b == b' ').nth(1).unwrap_or_default()
    }

    fn has_bare_break(&self) -> bool {
        let bytes = self.bytes;
        (0..bytes.len()).any(|i| {
            (bytes[i] == b'\n' && (i == 0 || bytes[i - 1] != b'\r'))
                || (bytes[i] == b'\r' && bytes.get(i + 1) != Some(&b'\n'))
        })
    }
}

const STRICTER: &[Stricter] = &[
    Stricter {
        error: "Head(BareLineBreak)",
        why: "RFC 9112 2.2 allows a bare LF as a line's end: others take it for a part of the line",
        holds: |text| text.has_bare_break(),
    },
    Stricter {
        error: "Head(FieldName)",
        why: "an underscore: one variable with the dash in CGI and its heirs",
        holds: |text| {
            text.lines.iter().skip(1).any(|line| {
                let name = line.split(|b| *b == b':').next().unwrap_or_default();
                name.contains(&b'_')
            })
        },
    },
    Stricter {
        error: "Head(StartLine)",
        why: "RFC 9112 2.2: one empty line before a request is enough",
        holds: |text| text.bytes.starts_with(b"\r\n\r\n"),
    },
    Stricter {
        error: "Target",
        why: "RFC 9112 3.2: no fragment, no other form, nothing beyond ASCII",
        holds: |text| {
            let target = text.target();
            let absolute = |scheme: &[u8]| {
                let front = target.get(..scheme.len());
                front.is_some_and(|front| front.eq_ignore_ascii_case(scheme))
            };
            target.contains(&b'#')
                || !target.iter().all(u8::is_ascii_graphic)
                || !target.starts_with(b"/")
                    && (!(absolute(b"http://") || absolute(b"https://"))
                        // Its authority is held to what Host is.
                        || !is_plain_host(authority(target)))
        },
    },
    Stricter {
        error: "Host",
        why: "RFC 9112 3.2: exactly one, and an authority of letters, digits, dots and dashes",
        holds: |text| {
            let hosts = text.values("host");
            hosts.len() != 1 || !is_plain_host(hosts[0])
        },
    },
    Stricter {
        error: "HostMismatch",
        why: "Host and the target name two hosts",
        holds: |text| {
            let hosts = text.values("host");
            hosts.len() == 1 && !hosts[0].eq_ignore_ascii_case(authority(text.target()))
        },
    },
    Stricter {
        error: "Method",
        why: "CONNECT and TRACE are off",
        holds: |text| text.lines[0].starts_with(b"CONNECT ") || text.lines[0].starts_with(b"TRACE "),
    },
    Stricter {
        error: "Framing(Both)",
        why: "RFC 9112 6.1 lets a server refuse both framings; hyper drops Content-Length",
        holds: |text| !text.values("content-length").is_empty() && !text.values("transfer-encoding").is_empty(),
    },
    Stricter {
        error: "Framing(ContentLength)",
        why: "an invalid length beside Transfer-Encoding, which hyper drops; or more than 18 digits",
        holds: |text| {
            let lengths = text.values("content-length");
            !lengths.is_empty() && !text.values("transfer-encoding").is_empty() || lengths.iter().any(|v| v.len() > 18)
        },
    },
    Stricter {
        error: "Framing(TransferEncoding)",
        why: "a coding besides chunked would have to be undone, or passed on without being named",
        holds: |text| {
            let codings = text.values("transfer-encoding");
            codings.len() != 1 || !codings[0].eq_ignore_ascii_case(b"chunked")
        },
    },
    Stricter {
        error: "Expectation",
        why: "RFC 9110 10.1.1: 417 for what is not 100-continue",
        holds: |text| {
            text.values("expect")
                .first()
                .is_some_and(|v| !v.eq_ignore_ascii_case(b"100-continue"))
        },
    },
    Stricter {
        error: "ChunkSize",
        why: "blanks or control characters after a chunk's size; sizes beyond 63 bits",
        holds: |text| text.values("transfer-encoding").len() == 1,
    },
    Stricter {
        error: "ChunkEnd",
        why: "a bare LF ends a line of the trailers",
        holds: |text| text.values("transfer-encoding").len() == 1 && text.has_bare_break(),
    },
];

/// Targets that hyper refuses and we take: with bytes that RFC 3986 wants encoded, that mean no harm, and that hyper's
/// type for URIs has on a list of its own. Nothing else may be refused there and taken here.
fn has_loose_target(ours: &Message) -> bool {
    ours.first.1.bytes().any(|b| matches!(b, b'<' | b'>' | b'`' | b'"'))
}

fn authority(target: &[u8]) -> &[u8] {
    let at = target.windows(3).position(|w| w == b"://").map_or(0, |at| at + 3);
    let rest = &target[at..];
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    &rest[..end]
}

/// A name with an optional port, or an address in brackets: not what `host::validate` says, but never narrower.
fn is_plain_host(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|b| *b == b':') {
        Some(colon) if !host.ends_with(b"]") => (&host[..colon], Some(&host[colon + 1..])),
        _ => (host, None),
    };
    let is_port = |port: &[u8]| {
        let text = std::str::from_utf8(port).unwrap_or_default();
        !text.starts_with('+') && text.len() <= 5 && text.parse::<u16>().is_ok()
    };
    let literal = name.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    let is_name = match literal {
        Some(v6) => std::str::from_utf8(v6).is_ok_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            let good = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
            !name.is_empty() && name.len() <= 255 && name.iter().all(good)
        }
    };
    is_name && port.is_none_or(is_port)
}

/// Compares one stream; the stricter rules used are added to `used`.
async fn compare(bytes: &[u8], used: &mut BTreeSet<&'static str>) -> Result<(), String> {
    let ours = read(Kind::Requests(Mode::Strict), LIMITS, bytes);
    let theirs = hyper_reads(bytes).await;
    for (at, message) in ours.messages.iter().enumerate() {
        let Some(seen) = theirs.get(at) else {
            return has_loose_target(message)
                .then_some(())
                .ok_or(format!("hyper refuses request {at}: {message:?}"));
        };
        if let Some(what) = difference(message, seen) {
            return Err(format!("request {at}: {what}\n ours {message:?}\nhyper {seen:?}"));
        }
    }
    let next = theirs.get(ours.messages.len()).filter(|seen| seen.body.is_some());
    let Some(seen) = next else { return Ok(()) };
    let End::Refused(error, _) = &ours.end else {
        return Err(format!(
            "hyper takes one more, ours ended with {:?}: {seen:?}",
            ours.end
        ));
    };
    let text = Text::new(&bytes[ours.at..]);
    match STRICTER.iter().find(|rule| rule.error == error && (rule.holds)(&text)) {
        Some(rule) => {
            used.insert(rule.error);
            Ok(())
        }
        None => Err(format!("no rule explains {error}; hyper has {seen:?}")),
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(work)
}

#[test]
fn the_corpus_is_read_as_hyper_reads_it() {
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    run(async {
        for Sample { name, bytes } in requests() {
            if let Err(e) = compare(&bytes, &mut used).await {
                wrong.push(format!("{name}: {e}"));
            }
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Not one rule is there that nothing needs.
    let unused: Vec<_> = STRICTER
        .iter()
        .filter(|r| !used.contains(r.error))
        .map(|r| (r.error, r.why))
        .collect();
    assert!(unused.is_empty(), "{unused:?}");
}

#[test]
fn mutations_are_read_as_hyper_reads_them() {
    let samples = requests();
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    let mut wrong = Vec::new();
    run(async {
        for seed in 0..mutations() {
            let bytes = mutated(&samples, seed);
            let ours = read(Kind::Requests(Mode::Strict), LIMITS, &bytes);
            let counter = if ours.messages.is_empty() { &refused } else { &accepted };
            counter.set(counter.get() + 1);
            if let Err(e) = compare(&bytes, &mut BTreeSet::new()).await {
                wrong.push(format!("{seed} {}: {e}", bytes.escape_ascii()));
            }
        }
    });
    assert!(
        wrong.is_empty(),
        "{} of them:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(10)].join("\n")
    );
    // Both sides are looked at.
    assert!(
        accepted.get().min(refused.get()) * 10 > mutations(),
        "{accepted:?} {refused:?}"
    );
}

/// The head alone, as httparse reads it.
fn as_httparse(bytes: &[u8], ours: &Read) -> Result<(), String> {
    let mut room = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut room);
    let Some(message) = ours.messages.first().or(ours.cut.as_ref()) else {
        return Ok(());
    };
    let len = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        other => return Err(format!("{other:?}")),
    };
    if len != message.at {
        return Err(format!("the head ends at {len}, for us at {}", message.at));
    }
    let target = parsed.path.unwrap_or_default();
    let absolute = !target.starts_with('/') && target != "*";
    let same_target = if absolute {
        target.ends_with(&message.first.1[1..])
    } else {
        target == message.first.1
    };
    let theirs: Vec<_> = parsed
        .headers
        .iter()
        .map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()))
        // A target in absolute form gives its authority to Host.
        .filter(|(name, _)| !(absolute && name == "host"))
        .collect();
    let mine: Vec<_> = message
        .fields
        .iter()
        .filter(|(name, _)| !(absolute && name == "host"))
        .cloned()
        .collect();
    if parsed.method != Some(&message.first.0) || !same_target || parsed.version != Some(message.minor) {
        return Err("another first line".into());
    }
    (theirs == mine).then_some(()).ok_or(format!("{theirs:?} for {mine:?}"))
}

#[test]
fn heads_are_read_as_httparse_reads_them() {
    let samples = requests();
    let corpus = samples.iter().map(|s| s.bytes.clone());
    let mut heads = 0;
    for bytes in corpus.chain((0..mutations() * 4).map(|seed| mutated(&samples, seed))) {
        let ours = read(Kind::Requests(Mode::Strict), LIMITS, &bytes);
        heads += usize::from(ours.messages.first().or(ours.cut.as_ref()).is_some());
        let same = as_httparse(&bytes, &ours);
        assert_eq!(same, Ok(()), "{}", bytes.escape_ascii());
    }
    assert!(heads as u64 > mutations() / 2, "only {heads} heads");
}

#[test]
fn accepted_and_refused_are_what_they_are_called() {
    for Sample { name, bytes } in load("accepted.txt").into_iter().chain(load("routed.txt")) {
        let read = read(Kind::Requests(Mode::Strict), LIMITS, &bytes);
        assert!(
            !matches!(read.end, End::Refused(..)) && read.cut.is_none(),
            "{name}: {read:?}"
        );
        assert_eq!(read.at, bytes.len(), "{name}: something is left");
    }
    for Sample { name, bytes } in load("refused.txt") {
        let read = read(Kind::Requests(Mode::Strict), LIMITS, &bytes);
        assert!(matches!(read.end, End::Refused(..)), "{name}: {read:?}");
    }
    for Sample { name, bytes } in load("responses-accepted.txt") {
        let read = read(Kind::Responses, LIMITS, &bytes);
        assert!(
            !matches!(read.end, End::Refused(..)) && read.cut.is_none(),
            "{name}: {read:?}"
        );
        assert_eq!(read.at, bytes.len(), "{name}: something is left");
    }
    for Sample { name, bytes } in load("responses-refused.txt") {
        let read = read(Kind::Responses, LIMITS, &bytes);
        assert!(matches!(read.end, End::Refused(..)), "{name}: {read:?}");
    }
}
