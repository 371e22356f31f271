//! Addresses to bind: no two that exclude each other, none that this process may not bind.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::config::diagnostic::{At, Context, Diagnostic, Span};
use crate::config::environment::Privilege;
use crate::config::schema::Schema;
use crate::net::addr::BindAddr;

pub fn check(cx: &Context<'_>, schema: &Schema) {
    let listeners = schema.listeners.iter().flat_map(|listener| {
        let owner = format!("the listener `{}`", listener.name.value);
        listener
            .bind
            .iter()
            .map(move |address| (owner.clone(), address.clone()))
    });
    let admin = schema
        .admin
        .iter()
        .map(|admin| ("`[admin]`".to_owned(), admin.with(admin.value.bind.clone())));
    let all: Vec<_> = listeners.chain(admin).collect();
    check_overlaps(cx, &all);
    for (_, address) in &all {
        if let Some(port) = forbidden_port(&address.value, cx.env.privilege) {
            cx.push(forbidden(address.span, port, cx.env.privilege));
        }
    }
}

/// The port of `address`, when a process with `privilege` may not bind it.
pub fn forbidden_port(address: &BindAddr, privilege: Privilege) -> Option<u16> {
    address.port().filter(|port| !privilege.may_bind(*port))
}

fn forbidden(span: Span, port: u16, privilege: Privilege) -> Diagnostic {
    let first = privilege.first_free_port;
    Diagnostic::error(span, format!("this process may not bind port {port}"))
        .label(format!("ports below {first} need CAP_NET_BIND_SERVICE"))
        .help(
            "start it by systemd with AmbientCapabilities=CAP_NET_BIND_SERVICE, or run \
             `setcap cap_net_bind_service=+ep` on the program, or choose a higher port",
        )
}

fn check_overlaps(cx: &Context<'_>, all: &[(String, At<BindAddr>)]) {
    // Only addresses with the same port can overlap.
    let mut by_port: BTreeMap<Option<u16>, Vec<&(String, At<BindAddr>)>> = BTreeMap::new();
    for entry in all {
        let (owner, address) = entry;
        let earlier = by_port.entry(address.value.port()).or_default();
        if let Some((first_owner, first)) = earlier.iter().find(|(_, other)| overlap(&other.value, &address.value)) {
            let message = match first.value == address.value {
                true => format!("`{}` is bound twice", address.value),
                false => format!("`{}` and `{}` overlap", first.value, address.value),
            };
            cx.push(
                Diagnostic::error(address.span, message)
                    .label(format!("by {owner}"))
                    .related(first.span, format!("by {first_owner}")),
            );
        }
        earlier.push(entry);
    }
}

/// Whether both cannot be bound at once. Sockets of the two families are apart: IPv6 sockets take IPv6 alone.
fn overlap(a: &BindAddr, b: &BindAddr) -> bool {
    match (a, b) {
        (BindAddr::Unix(a), BindAddr::Unix(b)) => a == b,
        (BindAddr::Unix(_), _) | (_, BindAddr::Unix(_)) => false,
        _ if a.port() != b.port() || a.port() == Some(0) => false,
        (BindAddr::Any(_), _) | (_, BindAddr::Any(_)) => true,
        (BindAddr::Ip(a), BindAddr::Ip(b)) => {
            let canonical = |addr: &SocketAddr| addr.ip().to_canonical();
            let (a, b) = (canonical(a), canonical(b));
            a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> BindAddr {
        BindAddr::parse(text).unwrap()
    }

    #[test]
    fn sees_overlaps() {
        for (a, b, expected) in [
            (":80", ":80", true),
            (":80", "0.0.0.0:80", true),
            (":80", "[::1]:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80", true),
            ("unix:/a", "unix:/a", true),
            ("0.0.0.0:80", "[::]:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            (":80", ":81", false),
            (":0", ":0", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", ":80", false),
        ] {
            assert_eq!(overlap(&address(a), &address(b)), expected, "{a} {b}");
            assert_eq!(overlap(&address(b), &address(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn low_ports_need_a_right() {
        let user = Privilege { first_free_port: 1024 };
        assert_eq!(forbidden_port(&address(":80"), user), Some(80));
        assert_eq!(forbidden_port(&address("10.0.0.1:1023"), user), Some(1023));
        assert_eq!(forbidden_port(&address(":1024"), user), None);
        assert_eq!(forbidden_port(&address(":0"), user), None);
        assert_eq!(forbidden_port(&address("unix:/a"), user), None);
        assert_eq!(forbidden_port(&address(":80"), Privilege::ALL), None);
    }
}
