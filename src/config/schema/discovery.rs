//! `discovery` of `[upstreams.NAME]`: where its endpoints come from, where they are not listed.

use std::net::SocketAddr;

use super::name::endpoint;
use crate::config::defaults;
use crate::config::diagnostic::{At, Context, Diagnostic};
use crate::config::reader::{Fields, Shape, listed, parsed};
use crate::config::value::Node;
use crate::discovery::name::Families;
use crate::discovery::{self, Listed, Spec};
use crate::net::addr::EndpointAddr;

pub const DISCOVERY: Shape = Shape {
    what: "`discovery`",
    keys: &["dns", "srv", "file"],
    later: &["consul", "kubernetes"],
};
const KINDS: [&str; 5] = ["dns", "srv", "file", "consul", "kubernetes"];

/// What `discovery` says.
pub enum Discovery {
    /// Endpoints, as if they stood in `endpoints`.
    Names(Vec<At<Listed>>),
    /// Where to find a list of them.
    List(Spec),
}

pub fn read(cx: &Context<'_>, node: &Node) -> Option<Discovery> {
    let fields = Fields::of(cx, node, &DISCOVERY)?;
    let before = cx.errors();
    match fields.present(&KINDS).as_slice() {
        // What stands there instead was said to be unknown.
        [] if cx.errors() > before => None,
        [] => {
            let error = Diagnostic::error(fields.span, "this discovery asks nobody");
            cx.push(error.label(format!("expected {}", listed(DISCOVERY.keys, "or"))));
            None
        }
        [kind] => match kind.value.as_str() {
            "dns" => {
                let names = fields.one_or_many("dns", |node| dns(cx, node))?;
                Some(Discovery::Names(names.value))
            }
            "srv" => {
                let expected = "expected the name of a service such as \"_http._tcp.app.internal\"";
                let name = fields.parsed("srv", expected, service)?;
                Some(Discovery::List(Spec::Srv(name.value)))
            }
            "file" => file(&fields).map(Discovery::List),
            // Reported as not in this version.
            _ => None,
        },
        [first, second, ..] => {
            let message = format!("{} exclude each other", listed([&first.value, &second.value], "and"));
            let error = Diagnostic::error(second.span, message).related(first.span, "already said here");
            cx.push(error.help("an upstream has one source; two upstreams can share a route by `split`"));
            None
        }
    }
}

fn service(text: &str) -> Result<String, String> {
    if text.contains(':') {
        return Err(format!("`{text}`: SRV records say the port themselves"));
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    match name.len() <= 253 && name.split('.').all(is_label) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(format!("`{text}` is not a name")),
    }
}

/// It may come later: only its name is looked at.
fn file(fields: &Fields<'_>) -> Option<Spec> {
    let cx = fields.cx;
    let found = fields.text("file")?;
    let path = cx.resolve(found.value, found.span);
    if !discovery::file::is_readable(&path) {
        let message = format!("`{}`: the name does not say what is in it", found.value);
        cx.push(Diagnostic::error(found.span, message).label("expected a name that ends with `.json` or `.toml`"));
        return None;
    }
    Some(Spec::File(path))
}

/// A host name with a port.
fn dns(cx: &Context<'_>, node: &Node) -> Option<At<Listed>> {
    let addr = endpoint(cx, node)?;
    if !matches!(addr.value, EndpointAddr::Name { .. }) {
        let message = format!("`{}` is no name that DNS could be asked for", addr.value);
        let error = Diagnostic::error(addr.span, message).label("expected a host name and a port");
        cx.push(error.help("addresses stand in `endpoints`"));
        return None;
    }
    Some(At {
        span: addr.span,
        value: Listed::at(addr.value),
    })
}

/// `name_servers`: addresses, port 53 where none is given.
pub fn name_servers(fields: &Fields<'_>) -> Vec<SocketAddr> {
    let expected = "expected the address of a name server such as \"10.0.0.2\" or \"10.0.0.2:5353\"";
    let servers = fields.one_or_many("name_servers", |node| {
        parsed(fields.cx, node, expected, |text| {
            let with_port = text.parse::<SocketAddr>();
            let alone = || text.parse().map(|ip| SocketAddr::new(ip, defaults::DNS_PORT));
            match with_port.or_else(|_| alone()) {
                Ok(addr) if addr.port() != 0 => Ok(addr),
                _ => Err(format!("`{text}` is not the address of a name server")),
            }
        })
    });
    let Some(servers) = servers else { return Vec::new() };
    if servers.value.len() > MAX_NAME_SERVERS {
        let message = format!("at most {MAX_NAME_SERVERS} name servers can be asked");
        fields.cx.push(Diagnostic::error(servers.span, message));
    }
    servers.value.into_iter().map(|server| server.value).collect()
}

/// More would not be reached within the time a look-up may take.
const MAX_NAME_SERVERS: usize = 8;

pub fn address_family(fields: &Fields<'_>) -> Families {
    let words = [("any", Families::Any), ("ipv4", Families::V4), ("ipv6", Families::V6)];
    fields
        .word("address_family", &words, &[])
        .map_or(Families::Any, |found| found.value)
}
