//! The configuration as written: every key with its type and default, names not yet resolved, files not yet read.

pub mod action;
pub mod balance;
pub mod cache;
pub mod discovery;
pub mod health;
pub mod limits;
pub mod listener;
mod name;
pub mod outlier;
pub mod retries;
pub mod route;
pub mod server;
pub mod sticky;
pub mod tls;
pub mod upstream;

use super::diagnostic::{At, Context, Span};
use super::plan;
use super::reader::Shape;
use super::source::{self, Document};

/// Everything that was written.
#[derive(Debug)]
pub struct Schema {
    pub server: plan::Server,
    pub admin: Option<At<plan::Admin>>,
    pub log: plan::Log,
    pub access_log: plan::AccessLog,
    pub listeners: Vec<listener::Listener>,
    pub routes: Vec<route::Route>,
    pub upstreams: Vec<upstream::Upstream>,
    pub caches: Vec<cache::Cache>,
    /// Where the first file begins, for what is missing in all of them. `None`: there is no text at all.
    pub start: Option<Span>,
    /// Something could not be read: what seems to be absent may stand there.
    pub is_partial: bool,
}

/// Every kind of table.
const SHAPES: [&Shape; 14] = [
    &source::ROOT,
    &server::SERVER,
    &server::ADMIN,
    &server::LOG,
    &server::ACCESS_LOG,
    &listener::LISTENER,
    &tls::LISTENER_TLS,
    &tls::CERTIFICATE,
    &route::ROUTE,
    &action::SPLIT,
    &action::REDIRECT,
    &action::RESPOND,
    &upstream::UPSTREAM,
    &upstream::ENDPOINT,
];
const MORE_SHAPES: &[&Shape] = &[
    &balance::BALANCE,
    &discovery::DISCOVERY,
    &discovery::KUBERNETES,
    &health::HEALTH,
    &outlier::OUTLIER,
    &tls::UPSTREAM_TLS,
    &retries::RETRIES,
    &retries::BACKOFF,
    &limits::ADAPTIVE_LIMIT,
    &limits::QUEUE,
    &sticky::STICKY,
    &cache::CACHE,
    &cache::DISK,
    &cache::KEY,
    &cache::AHEAD,
    &cache::USE,
];

/// Each kind of table with its keys, for completeness checks of documentation.
pub fn keys() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    SHAPES
        .into_iter()
        .chain(MORE_SHAPES.iter().copied())
        .map(|shape| (shape.what, shape.keys))
}

/// Gives every value of `document` its type. What is wrong is reported and replaced by its default.
pub fn read(cx: &Context<'_>, document: &Document) -> Schema {
    Schema {
        server: server::server(cx, document.server.as_ref()),
        admin: document.admin.as_ref().and_then(|node| server::admin(cx, node)),
        log: server::log(cx, document.log.as_ref()),
        access_log: server::access_log(cx, document.access_log.as_ref()),
        listeners: document
            .listeners
            .iter()
            .filter_map(|(name, node)| listener::read(cx, name, node))
            .collect(),
        routes: document
            .routes
            .iter()
            .filter_map(|node| route::read(cx, node))
            .collect(),
        upstreams: document
            .upstreams
            .iter()
            .filter_map(|(name, node)| upstream::read(cx, name, node))
            .collect(),
        caches: document
            .caches
            .iter()
            .filter_map(|(name, node)| cache::read(cx, name, node))
            .collect(),
        start: cx.sources.first().map(|_| Span {
            source: 0,
            start: 0,
            end: 0,
        }),
        is_partial: document.is_partial,
    }
}
