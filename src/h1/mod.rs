//! HTTP/1: strict parsing, framing and writing over byte slices; no sockets.
