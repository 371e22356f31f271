//! What the tests are written with: a proxy under test, scripted origins, raw clients.

pub mod admin;
pub mod client;
pub mod config;
pub mod consul;
pub mod dns;
pub mod h2_origin;
pub mod h2_wire;
pub mod kubernetes;
pub mod origin;
pub mod proxy;
pub mod tls;

pub use client::{Client, get};
pub use config::one_upstream;
pub use origin::{Origin, reply};
pub use proxy::Proxy;

use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks until it is so. For states that no log line or byte announces.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
