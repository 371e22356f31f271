//! How the endpoints of an upstream are connected to, as its plan says.

use std::path::Path;

use crate::base::hash;
use crate::config::plan;
use crate::pool::dial::Tls;
use crate::pool::{Dialer, Protocol};
use crate::tls::{ClientSpec, client};

const ALPN_BOTH: [&[u8]; 2] = [b"h2", b"http/1.1"];
const ALPN_H1: [&[u8]; 1] = [b"http/1.1"];
const ALPN_H2: [&[u8]; 1] = [b"h2"];

/// The connections of an upstream whose fingerprint stays may be used on.
pub fn fingerprint(plan: &plan::Upstream) -> u64 {
    let tls = plan.tls.as_ref().map(|tls| {
        (
            &tls.ca_path,
            &tls.server_name,
            tls.verify,
            tls.handshake_timeout,
            files(tls),
        )
    });
    let what = (
        plan.protocol,
        plan.connect_timeout,
        plan.pool_idle_timeout,
        plan.pool_max_idle,
        tls,
    );
    hash::stable(format!("{what:?}").as_bytes())
}

/// The contents of the files TLS is made of: they may change under the same names.
pub fn files(tls: &ClientSpec) -> Vec<u64> {
    let certificate = tls.client_certificate.iter().flat_map(|c| [&c.cert_path, &c.key_path]);
    let content = |path: &Path| std::fs::read(path).map_or(0, |bytes| hash::stable(&bytes));
    tls.ca_path
        .iter()
        .chain(certificate)
        .map(|path| content(path))
        .collect()
}

/// How the upstream's endpoints are connected to.
pub fn new(plan: &plan::Upstream) -> Result<Dialer, String> {
    let tls = match &plan.tls {
        None => None,
        Some(spec) => {
            let alpn = match plan.protocol {
                Protocol::Http1 => &ALPN_H1[..],
                Protocol::H2 => &ALPN_H2[..],
                Protocol::Auto => &ALPN_BOTH[..],
            };
            let wrong = |e: String| format!("upstream `{}`: TLS: {e}", plan.name);
            Some(Tls {
                handshake_timeout: spec.handshake_timeout,
                http: client::config(spec, alpn).map_err(wrong)?,
                raw: client::config(spec, &[]).map_err(wrong)?,
                server_name: spec
                    .server_name
                    .as_deref()
                    .map(client::name)
                    .transpose()
                    .map_err(wrong)?,
            })
        }
    };
    let (connect, idle) = (plan.connect_timeout, plan.pool_idle_timeout);
    Ok(Dialer::new(plan.protocol, tls, connect, idle, plan.pool_max_idle))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(extra: &str) -> plan::Plan {
        let text = format!(
            "[listeners.web]\nbind = \":0\"\n[[routes]]\nupstream = \"site\"\n[upstreams.site]\nendpoints = \
             [\"127.0.0.1:1\"]\n{extra}"
        );
        let loaded = crate::config::load_text("test", &text);
        loaded.unwrap_or_else(|e| panic!("{}", e.render(false))).plan
    }

    #[test]
    fn other_ways_to_connect_do_not_share_connections() {
        let text = |extra: &str| plan(extra);
        let same = fingerprint(&text("").upstreams[0]);
        assert_eq!(same, fingerprint(&text("retries = 2").upstreams[0]));
        assert_ne!(same, fingerprint(&text("connect_timeout = \"9s\"").upstreams[0]));
        assert_ne!(same, fingerprint(&text("protocol = \"h2\"").upstreams[0]));
    }
}
