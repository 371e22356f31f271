//! `discovery` of `[upstreams.NAME]`: where its endpoints come from, where they are not listed.

use std::net::SocketAddr;

use super::name::endpoint;
use super::tls::{self, ClientTls};
use crate::base::secret::Secret;
use crate::config::defaults;
use crate::config::diagnostic::{At, Context, Diagnostic};
use crate::config::reader::{Fields, Shape, listed, parsed, text};
use crate::config::value::{Node, Value};
use crate::discovery::api::Url;
use crate::discovery::kubernetes::PortName;
use crate::discovery::name::Families;
use crate::discovery::{self, Listed, Spec, consul, kubernetes};
use crate::net::addr::EndpointAddr;

pub const DISCOVERY: Shape = Shape {
    what: "`discovery`",
    keys: &[
        "dns",
        "srv",
        "file",
        "consul",
        "kubernetes",
        "service",
        "tag",
        "datacenter",
        "token",
        "only_passing",
        "tls",
    ],
    later: &[],
};
pub const KUBERNETES: Shape = Shape {
    what: "`kubernetes`",
    keys: &["service", "namespace", "port", "api", "token_file", "ca_file"],
    later: &[],
};
const KINDS: [&str; 5] = ["dns", "srv", "file", "consul", "kubernetes"];
const ONLY_CONSUL: [&str; 6] = ["service", "tag", "datacenter", "token", "only_passing", "tls"];

/// What `discovery` says.
#[derive(Debug)]
pub enum Discovery {
    /// Endpoints, as if they stood in `endpoints`.
    Names(Vec<At<Listed>>),
    /// Where to find a list of them.
    List(Box<Spec>),
    /// The same, with files that are read when the plan is compiled.
    Consul(Box<(consul::Spec, Option<ClientTls>)>),
}

pub fn read(cx: &Context<'_>, node: &Node) -> Option<Discovery> {
    let fields = Fields::of(cx, node, &DISCOVERY)?;
    let before = cx.errors();
    let kinds = fields.present(&KINDS);
    if let [kind] = kinds.as_slice()
        && kind.value != "consul"
    {
        fields.refuse(&ONLY_CONSUL, "is for `consul`");
    }
    match kinds.as_slice() {
        // What stands there instead was said to be unknown.
        [] if cx.errors() > before => None,
        [] => {
            let error = Diagnostic::error(fields.span, "this discovery asks nobody");
            cx.push(error.label(format!("expected {}", listed(KINDS, "or"))));
            None
        }
        [kind] if kind.value == "consul" => consul(&fields),
        [kind] => match kind.value.as_str() {
            "dns" => {
                let names = fields.one_or_many("dns", |node| dns(cx, node))?;
                Some(Discovery::Names(names.value))
            }
            "srv" => {
                let expected = "expected the name of a service such as \"_http._tcp.app.internal\"";
                let name = fields.parsed("srv", expected, service)?;
                Some(list(Spec::Srv(name.value)))
            }
            "file" => file(&fields).map(list),
            _ => kubernetes(cx, fields.get("kubernetes")?).map(list),
        },
        [first, second, ..] => {
            let message = format!("{} exclude each other", listed([&first.value, &second.value], "and"));
            let error = Diagnostic::error(second.span, message).related(first.span, "already said here");
            cx.push(error.help("an upstream has one source; two upstreams can share a route by `split`"));
            None
        }
    }
}

fn list(spec: Spec) -> Discovery {
    Discovery::List(Box::new(spec))
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

fn consul(fields: &Fields<'_>) -> Option<Discovery> {
    let cx = fields.cx;
    let url = fields.parsed("consul", "expected a URL such as \"http://127.0.0.1:8500\"", Url::parse);
    let tls = fields.get("tls").and_then(|node| tls::client(cx, node));
    if let Some(timeout) = tls.as_ref().and_then(|tls| tls.handshake_timeout.as_ref()) {
        cx.push(Diagnostic::error(
            timeout.span,
            "`handshake_timeout` is for the `tls` of endpoints",
        ));
    }
    if let (Some(url), Some(tls)) = (&url, fields.present(&["tls"]).first())
        && !url.value.tls
    {
        let error = Diagnostic::error(tls.span, "`tls` is for a URL with `https`");
        cx.push(error.related(url.span, "this one is spoken to in the clear"));
    }
    let tags = fields.one_or_many("tag", |node| filled(cx, node));
    let service = filled(cx, fields.require("service")?);
    let (url, service) = (url?.value, service?);
    let tls = tls.or_else(|| url.tls.then(|| tls::defaults(fields.span)));
    let spec = consul::Spec {
        url,
        tls: None,
        service,
        tags: tags.map_or_else(Vec::new, |tags| tags.value),
        datacenter: fields.get("datacenter").and_then(|node| filled(cx, node)),
        // An empty variable stands for none.
        token: fields
            .text("token")
            .filter(|found| !found.value.is_empty())
            .map(|found| Secret::new(found.value)),
        only_passing: fields.flag("only_passing").unwrap_or(true),
    };
    Some(Discovery::Consul(Box::new((spec, tls))))
}

fn kubernetes(cx: &Context<'_>, node: &Node) -> Option<Spec> {
    let fields = Fields::of(cx, node, &KUBERNETES)?;
    let api = fields.parsed("api", "expected a URL such as \"https://10.96.0.1\"", Url::parse);
    let path = |key: &str, default: &str| match fields.text(key) {
        Some(found) => cx.resolve(found.value, found.span),
        None => default.into(),
    };
    let (token_file, ca_file) = (
        path("token_file", kubernetes::TOKEN_FILE),
        path("ca_file", kubernetes::CA_FILE),
    );
    if let Some(api) = api.as_ref().filter(|api| !api.value.tls) {
        let reason = "has no use: `api` is spoken to in the clear, where no token is sent";
        fields.refuse(&["token_file", "ca_file"], reason);
        if !api.value.is_loopback() {
            let warning = Diagnostic::warning(
                api.span,
                "the Kubernetes API is asked in the clear, and without a token",
            );
            cx.push(warning.help("`http` is for `kubectl proxy` on this machine"));
        }
    }
    let port = match fields.get("port") {
        None => Some(PortName::Only),
        Some(Node {
            value: Value::Integer(_),
            ..
        }) => fields.number("port", 1..=u16::MAX).map(PortName::Number),
        Some(node) => filled(cx, node).map(PortName::Name),
    };
    let namespace = fields.get("namespace").and_then(|node| filled(cx, node));
    let service = filled(cx, fields.require("service")?);
    Some(Spec::Kubernetes(kubernetes::Spec {
        api: api.map(|found| found.value),
        namespace,
        service: service?,
        port: port?,
        token_file,
        ca_file,
    }))
}

/// A string that is not empty.
fn filled(cx: &Context<'_>, node: &Node) -> Option<String> {
    let found = text(cx, node)?;
    if found.value.is_empty() {
        cx.push(Diagnostic::error(node.span, "this cannot be empty"));
        return None;
    }
    Some(found.value.to_owned())
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
