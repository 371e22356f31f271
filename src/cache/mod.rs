//! The response cache (RFC 9111): what may be stored and served is pure code here, the store and the fetches that many
//! wait for are shared by all workers. How a request uses it stands in `proxy/http/cache.rs`.

pub mod conditional;
pub mod date;
pub mod directives;
pub mod entry;
pub mod fill;
pub mod freshness;
pub mod head;
pub mod key;
pub mod range;
pub mod reason;
pub mod storable;
pub mod store;
pub mod structured;
pub mod tags;
pub mod vary;
