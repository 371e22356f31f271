//! Heads and chunks onto the wire. Framing and connection fields come from arguments alone: those among the
//! fields are skipped, so that a mistake above cannot make a message with two framings.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::fields::{Fields, Known, Set};

/// How the body that follows is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// No framing field: no body, or none is allowed.
    None,
    /// In bytes. Also to HEAD, where no body follows.
    Known(u64),
    Chunked,
    /// Until the connection closes.
    Close,
}

/// What is said about the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// Nothing: HTTP/1.1 keeps it.
    None,
    /// To an HTTP/1.0 client that asked for it.
    KeepAlive,
    Close,
    Upgrade(HeaderValue),
}

/// Writes a request head.
pub fn request(
    out: &mut BytesMut,
    method: &Method,
    target: &str,
    fields: &Fields,
    length: BodyLength,
    connection: Connection,
) {
    out.reserve(target.len() + fields.text_len() + 256);
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    rest(out, fields, length, connection);
}

/// Writes a response head.
pub fn response(out: &mut BytesMut, status: StatusCode, fields: &Fields, length: BodyLength, connection: Connection) {
    out.reserve(fields.text_len() + 256);
    status_line(out, status);
    rest(out, fields, length, connection);
}

/// Writes a 1xx head.
pub fn informational(out: &mut BytesMut, status: StatusCode, fields: &Fields) {
    response(out, status, fields, BodyLength::None, Connection::None);
}

/// The line before a chunk's bytes; not for 0, which would end the body.
pub fn chunk_start(out: &mut BytesMut, len: usize) {
    use std::fmt::Write;
    // Writing to a BytesMut grows it and cannot fail.
    let _ = write!(out, "{len:x}\r\n");
}

pub fn chunk_end(out: &mut BytesMut) {
    out.put_slice(b"\r\n");
}

/// Ends a chunked body.
pub fn last_chunk(out: &mut BytesMut, trailers: Option<&HeaderMap>) {
    out.put_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        field(out, name.as_str(), value.as_bytes());
    }
    out.put_slice(b"\r\n");
}

fn status_line(out: &mut BytesMut, status: StatusCode) {
    if status == StatusCode::OK {
        out.put_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
}

/// What frames the message and what the connection does: told by arguments alone.
pub const OURS: Set = Set::of(&[
    Known::ContentLength,
    Known::TransferEncoding,
    Known::Connection,
    Known::Upgrade,
]);

fn rest(out: &mut BytesMut, fields: &Fields, length: BodyLength, connection: Connection) {
    fields.write(out, OURS);
    match length {
        BodyLength::None | BodyLength::Close => {}
        BodyLength::Known(n) => field(out, "content-length", itoa::Buffer::new().format(n).as_bytes()),
        BodyLength::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
    }
    match connection {
        Connection::None => {}
        Connection::KeepAlive => out.put_slice(b"connection: keep-alive\r\n"),
        Connection::Close => out.put_slice(b"connection: close\r\n"),
        Connection::Upgrade(protocol) => {
            out.put_slice(b"connection: upgrade\r\n");
            field(out, "upgrade", protocol.as_bytes());
        }
    }
    out.put_slice(b"\r\n");
}

fn field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}
