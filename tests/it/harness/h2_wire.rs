//! HTTP/2 by hand, frame by frame (RFC 9113): for what no library would say.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u32;
    let mut out = vec![(len >> 16) as u8, (len >> 8) as u8, len as u8, kind, flags];
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A frame that came.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// An endpoint's side of a connection.
pub struct Wire<'a>(&'a mut TcpStream);

impl<'a> Wire<'a> {
    /// Past the preface, with settings sent.
    pub fn begin(stream: &'a mut TcpStream) -> io::Result<Self> {
        stream.read_exact(&mut [0; PREFACE.len()])?;
        let mut wire = Self(stream);
        wire.send(SETTINGS, 0, 0, &[])?;
        Ok(wire)
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.0.write_all(&frame(kind, flags, stream, payload))
    }

    /// The next frame; `None` at the end. Settings and pings are acknowledged here.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let mut head = [0; 9];
            match self.0.read_exact(&mut head) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                read => read?,
            }
            let [a, b, c, kind, flags, rest @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.0.read_exact(&mut payload)?;
            let is_ack = flags & ACK == ACK;
            match kind {
                SETTINGS if !is_ack => self.send(SETTINGS, ACK, 0, &[])?,
                PING if !is_ack => self.send(PING, ACK, 0, &payload)?,
                _ => {
                    let stream = u32::from_be_bytes(rest);
                    return Ok(Some(Frame {
                        kind,
                        flags,
                        stream,
                        payload,
                    }));
                }
            }
        }
    }

    /// Reads up to the end of a request; its stream. `None` at the end of the connection.
    pub fn request(&mut self) -> io::Result<Option<u32>> {
        while let Some(frame) = self.next()? {
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM == END_STREAM {
                return Ok(Some(frame.stream));
            }
        }
        Ok(None)
    }

    /// 200 without a body.
    pub fn answer(&mut self, stream: u32) -> io::Result<()> {
        // Static table entry for `:status: 200` (RFC 7541 appendix A).
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88])
    }

    pub fn reset(&mut self, stream: u32, code: u32) -> io::Result<()> {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    /// Streams above `last` were not and will not be looked at.
    pub fn go_away(&mut self, last: u32, code: u32) -> io::Result<()> {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
    }

    /// Ends the connection in order, and reads the rest: closed with something unread, it would be reset, and what was
    /// said last be lost with it.
    pub fn close(&mut self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)?;
        while self.next()?.is_some() {}
        Ok(())
    }
}
