//! evenkeel: a Layer-4/Layer-7 load balancer. The modules in the order a request meets them.

// What a request meets.
pub mod listener;
pub mod proxy;
pub mod h1;
pub mod fields;
pub mod route;
pub mod cache;
pub mod upstream;
pub mod balance;
pub mod sticky;
pub mod endpoint;
pub mod policy;
pub mod pool;
pub mod tls;
pub mod net;

// What makes and watches the world it meets.
pub mod snapshot;
pub mod config;
pub mod control;
pub mod health;
pub mod discovery;

// What people meet.
pub mod cli;
pub mod admin;
pub mod telemetry;

pub mod base;
