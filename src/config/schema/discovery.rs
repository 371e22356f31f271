//! `discovery` of `[upstreams.NAME]`: where its endpoints come from, where they are not listed.

use std::net::SocketAddr;

use super::name::endpoint;
use crate::config::defaults;
use crate::config::diagnostic::{At, Context, Diagnostic};
use crate::config::plan::Endpoint;
use crate::config::reader::{Fields, Shape, parsed};
use crate::config::value::Node;
use crate::discovery::name::Families;
use crate::net::addr::EndpointAddr;

pub const DISCOVERY: Shape = Shape {
    what: "`discovery`",
    keys: &["dns"],
    later: &["srv", "file", "consul", "kubernetes"],
};

/// The endpoints that `discovery` names.
pub fn read(cx: &Context<'_>, node: &Node) -> Option<Vec<At<Endpoint>>> {
    let fields = Fields::of(cx, node, &DISCOVERY)?;
    fields.require("dns")?;
    let names = fields.one_or_many("dns", |node| dns(cx, node))?;
    Some(names.value)
}

/// A host name with a port.
fn dns(cx: &Context<'_>, node: &Node) -> Option<At<Endpoint>> {
    let addr = endpoint(cx, node)?;
    if !matches!(addr.value, EndpointAddr::Name { .. }) {
        let message = format!("`{}` is no name that DNS could be asked for", addr.value);
        let error = Diagnostic::error(addr.span, message).label("expected a host name and a port");
        cx.push(error.help("addresses stand in `endpoints`"));
        return None;
    }
    Some(At {
        span: addr.span,
        value: Endpoint {
            addr: addr.value,
            weight: defaults::WEIGHT,
            backup: false,
        },
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
