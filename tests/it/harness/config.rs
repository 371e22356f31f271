//! The configuration most tests need.

use std::net::SocketAddr;

/// One worker, admin, a listener `web`, and a route `all` to the upstream `u` with these endpoints and settings. More
/// tables may follow.
pub fn one_upstream(settings: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|addr| format!("\"{addr}\"")).collect();
    format!(
        r#"
        [server]
        workers = 1
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        [[routes]]
        name = "all"
        upstream = "u"
        [upstreams.u]
        endpoints = [{}]
        {settings}
        "#,
        endpoints.join(", ")
    )
}
