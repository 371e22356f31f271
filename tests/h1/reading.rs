//! A stream of bytes as the codec reads it: messages, why they end, what is left.

use bytes::BytesMut;
use evenkeel::h1::decode::{Decoder, Step};
use evenkeel::h1::desync::{Mode, Reason};
use evenkeel::h1::framing::Framing;
use evenkeel::h1::head::{HeadSearch, Limits};
use evenkeel::h1::request::{RequestHead, parse};
use evenkeel::h1::response;
use http::Method;

/// Those of a listener by default.
pub const LIMITS: Limits = Limits {
    max_head: 32 * 1024,
    max_target: 8 * 1024,
    max_headers: 100,
};
/// So small that the corpus reaches them.
pub const SMALL: Limits = Limits {
    max_head: 150,
    max_target: 20,
    max_headers: 4,
};

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// Method and target, or the status.
    pub first: (String, String),
    pub minor: u8,
    /// Names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    pub framing: String,
    pub keep_alive: bool,
    pub expect_continue: bool,
    pub upgrade: bool,
    pub deviation: Option<Reason>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
    /// Where in the stream its head ends.
    pub at: usize,
}

/// Why no more messages were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The stream ended within a message, or where one could begin.
    More,
    /// The last message was the last of its connection.
    Closed,
    /// With the words of the error, and what it counts as.
    Refused(String, Option<Reason>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub messages: Vec<Message>,
    /// A message whose body did not end.
    pub cut: Option<Message>,
    pub end: End,
    /// Where what comes after the last whole message begins.
    pub at: usize,
}

/// The words of an error, and what it counts as.
type Refusal = (String, Option<Reason>);

/// What is being read.
pub enum Kind {
    Requests(Mode),
    Responses,
}

/// Reads as bytes come.
pub struct Reader {
    kind: Kind,
    limits: Limits,
    buf: BytesMut,
    fed: usize,
    search: HeadSearch,
    body: Option<(Message, Decoder)>,
    read: Read,
}

impl Reader {
    pub fn new(kind: Kind, limits: Limits) -> Self {
        Self {
            kind,
            limits,
            buf: BytesMut::new(),
            fed: 0,
            search: HeadSearch::default(),
            body: None,
            read: Read {
                messages: Vec::new(),
                cut: None,
                end: End::More,
                at: 0,
            },
        }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.fed += bytes.len();
        self.buf.extend_from_slice(bytes);
        while self.read.end == End::More && self.step() {}
    }

    /// The connection has ended.
    pub fn finish(mut self) -> Read {
        if let Some((message, mut decoder)) = self.body.take() {
            match decoder.eof() {
                Ok(()) => self.whole(message),
                Err(_) => self.read.cut = Some(message),
            }
        }
        self.read
    }

    fn whole(&mut self, message: Message) {
        if !message.keep_alive {
            self.read.end = End::Closed;
        }
        self.read.at = self.fed - self.buf.len();
        self.read.messages.push(message);
    }

    /// `false`: more bytes are needed.
    fn step(&mut self) -> bool {
        let held = self.buf.len();
        let tail = self.buf.to_vec();
        let Some((message, decoder)) = &mut self.body else {
            let parsed = self.head();
            let at = self.fed - self.buf.len();
            assert!(self.buf.len() <= held, "bytes were made");
            assert_eq!(self.buf, tail[held - self.buf.len()..], "what is left was touched");
            return match parsed {
                Ok(None) => {
                    assert!(self.buf.len() >= held.saturating_sub(2), "only an empty line may go");
                    held != self.buf.len() && !self.buf.is_empty()
                }
                Ok(Some((message, framing))) => {
                    self.search = HeadSearch::default();
                    self.body = Some((Message { at, ..message }, Decoder::new(framing)));
                    true
                }
                Err((words, reason)) => {
                    self.read.end = End::Refused(words, reason);
                    false
                }
            };
        };
        let step = decoder.decode(&mut self.buf);
        assert!(self.buf.len() <= held, "bytes were made");
        assert_eq!(self.buf, tail[held - self.buf.len()..], "what is left was touched");
        match step {
            Ok(Step::Data(data)) => {
                assert!(!data.is_empty());
                assert_eq!(data, tail[held - self.buf.len() - data.len()..held - self.buf.len()]);
                message.body.extend_from_slice(&data);
                true
            }
            Ok(Step::More) => false,
            Ok(Step::End(trailers)) => {
                for (name, value) in trailers.iter().flatten() {
                    let value = value.as_bytes().to_vec();
                    message.trailers.push((name.as_str().to_owned(), value));
                }
                assert!(decoder.is_end());
                if let Some((message, _)) = self.body.take() {
                    self.whole(message);
                }
                true
            }
            Err(e) => {
                self.read.end = End::Refused(format!("{e:?}"), Reason::of_body(e));
                self.read.cut = self.body.take().map(|(message, _)| message);
                false
            }
        }
    }

    fn head(&mut self) -> Result<Option<(Message, Framing)>, Refusal> {
        match self.kind {
            Kind::Requests(mode) => match parse(&mut self.buf, &mut self.search, &self.limits, mode) {
                Ok(head) => Ok(head.map(|head| (request(&head), head.framing))),
                Err(e) => Err((format!("{:?}", e.error), e.reason)),
            },
            Kind::Responses => match response::parse(&mut self.buf, &mut self.search, &self.limits, &Method::GET) {
                Ok(head) => Ok(head.map(|head| {
                    let message = Message {
                        first: (head.status.to_string(), String::new()),
                        minor: u8::from(head.version == http::Version::HTTP_11),
                        fields: fields(&head.fields),
                        framing: format!("{:?}", head.framing),
                        keep_alive: head.keep_alive || head.status.is_informational(),
                        ..Message::default()
                    };
                    (message, head.framing)
                })),
                Err(e) => Err((format!("{e:?}"), None)),
            },
        }
    }
}

pub fn request(head: &RequestHead) -> Message {
    Message {
        first: (head.method.to_string(), head.target.text(&head.fields).to_owned()),
        minor: u8::from(head.version == http::Version::HTTP_11),
        fields: fields(&head.fields),
        framing: format!("{:?}", head.framing),
        keep_alive: head.keep_alive,
        expect_continue: head.expect_continue,
        upgrade: head.upgrade.is_some(),
        deviation: head.deviation,
        ..Message::default()
    }
}

/// Names in lower case; none of them, and no value, holds what could end a line.
pub fn fields(fields: &evenkeel::fields::Fields) -> Vec<(String, Vec<u8>)> {
    let clean = |text: &[u8]| !text.iter().any(|b| matches!(b, b'\r' | b'\n' | 0));
    fields
        .iter()
        .map(|(name, value)| {
            assert!(clean(name) && clean(value), "{name:?}: {value:?}");
            assert!(!name.is_empty() && value.trim_ascii() == value, "{name:?}: {value:?}");
            (String::from_utf8(name.to_ascii_lowercase()).unwrap(), value.to_vec())
        })
        .collect()
}

/// All of it at once.
pub fn read(kind: Kind, limits: Limits, bytes: &[u8]) -> Read {
    in_parts(kind, limits, [bytes])
}

pub fn in_parts<'a>(kind: Kind, limits: Limits, parts: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut reader = Reader::new(kind, limits);
    parts.into_iter().for_each(|part| reader.feed(part));
    reader.finish()
}
