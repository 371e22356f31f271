//! The access log: one line per request or connection, written off the data path, bounded.
