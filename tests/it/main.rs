//! The real binary, driven over real sockets on ports the kernel chose. Nothing here sleeps for luck: what is waited
//! for is a log line, a byte, an end of file, each with a deadline.

mod harness;

mod algorithms;
mod balance;
mod bulk;
mod cache;
mod cache_ahead;
mod cache_content;
mod cache_crowd;
mod cache_disk;
mod cache_hostile;
mod cache_keys;
mod cache_ranges;
mod cache_reasons;
mod cache_trailers;
mod chaos;
mod connections;
mod desync;
mod drain;
mod discovery;
mod http1;
mod http2;
mod http2_endpoints;
mod lifecycle;
mod limits;
mod malformed;
mod monitoring;
mod pool;
mod outlier;
mod recipes;
mod probes;
mod reload;
mod resilience;
mod resilience_grpc;
mod shadow;
mod spread;
mod sticky;
mod tcp;
mod tls;
