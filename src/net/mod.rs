//! Addresses and sockets: parse, bind, dial, peek, relay. No HTTP, no configuration.

pub mod addr;
