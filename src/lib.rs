//! evenkeel: a Layer-4/Layer-7 load balancer. The modules in the order a request meets them.

pub mod balance;
pub mod base;
pub mod config;
pub mod control;
pub mod discovery;
pub mod endpoint;
pub mod h1;
pub mod health;
pub mod listener;
pub mod net;
pub mod pool;
pub mod proxy;
pub mod route;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
pub mod upstream;
