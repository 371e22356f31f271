//! A raw HTTP/1 client: sends exactly the bytes it is given, reads one reply at a time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// One connection.
pub struct Client<S: Read + Write = TcpStream> {
    reader: BufReader<S>,
}

/// One response.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Reply {
    /// The only value of a field; empty when there is none.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let values: Vec<_> = self.headers.iter().filter(|(n, _)| n == name).collect();
        assert!(values.len() <= 1, "{name} stands {} times", values.len());
        values.first().map_or("", |(_, v)| v)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }
}

impl<S: Read + Write> Client<S> {
    pub fn over(stream: S) -> Self {
        Self {
            reader: BufReader::new(stream),
        }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())?;
        self.reader.get_mut().flush()
    }

    /// GET on this connection.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.reply()
    }

    /// The next response to a method other than HEAD.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply(false).unwrap_or_else(|e| panic!("no reply: {e}"))
    }

    /// The next response to HEAD.
    #[track_caller]
    pub fn reply_to_head(&mut self) -> Reply {
        self.try_reply(true).unwrap_or_else(|e| panic!("no reply: {e}"))
    }

    pub fn try_reply(&mut self, head: bool) -> io::Result<Reply> {
        let mut reply = self.try_head()?;
        if head || reply.status < 200 || reply.status == 204 || reply.status == 304 {
            return Ok(reply);
        }
        let length = reply.header("content-length").to_owned();
        if reply.header("transfer-encoding") == "chunked" {
            assert_eq!(length, "", "both framings");
            loop {
                let size = self.line()?;
                let size =
                    usize::from_str_radix(&size, 16).map_err(|_| io::Error::other(format!("chunk size {size:?}")))?;
                if size == 0 {
                    break;
                }
                reply.body.extend(self.take(size)?);
                assert_eq!(self.line()?, "");
            }
            reply.trailers = self.fields()?;
        } else if !length.is_empty() {
            reply.body = self.take(length.parse().unwrap())?;
        } else {
            self.reader.read_to_end(&mut reply.body)?;
        }
        Ok(reply)
    }

    /// A response's head alone.
    #[track_caller]
    pub fn head(&mut self) -> Reply {
        self.try_head().unwrap_or_else(|e| panic!("no head: {e}"))
    }

    fn try_head(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {line:?}")))?;
        let headers = self.fields()?;
        Ok(Reply {
            status,
            headers,
            body: Vec::new(),
            trailers: Vec::new(),
        })
    }

    /// Exactly `n` bytes.
    pub fn take(&mut self, n: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; n];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Everything until the connection ends in order.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Asserts that the connection ends now, in order, without another byte.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.rest().expect("an orderly end")), "");
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::Error::other(format!("line without CRLF: {line:?}"))),
        }
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line
                .split_once(": ")
                .ok_or_else(|| io::Error::other(format!("field {line:?}")))?;
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
}

/// GET on a connection of its own.
#[track_caller]
pub fn get(addr: SocketAddr, path: &str) -> Reply {
    Client::connect(addr).get(path)
}
