//! HTTP requests: from either version of the protocol to an endpoint and back.

pub mod admit;
pub mod attempt;
pub mod body;
pub mod cache;
pub mod deadline;
pub mod forward;
mod hold;
pub mod h1;
pub mod h2;
pub mod hedge;
pub mod request;
pub mod respond;
pub mod retry;
pub mod sticky;
pub mod stored;
pub mod upload;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, Version};

use super::worker::{Peer, Worker};
use crate::fields::{Fields, Known};
use crate::h1::target::Target;
use crate::snapshot::{Http, Listener};
use body::{RequestBody, ResponseBody};

/// A connection as its requests see it.
#[derive(Clone)]
pub struct Downstream {
    pub worker: Rc<Worker>,
    pub peer: Peer,
    /// The forwarding fields of its last request.
    pub forwarding: RefCell<Option<Box<forward::Prepared>>>,
    pub tls: bool,
    /// Slot of the listener it came in by.
    pub slot: usize,
}

/// What a request is handled with.
pub struct Scope<'a> {
    pub down: &'a Downstream,
    pub listener: &'a Arc<Listener>,
    pub http: &'a Http,
    /// Takes 1xx responses; HTTP/1.1 alone.
    pub informational: Option<&'a Inform<'a>>,
}

/// Passes a 1xx response on.
pub type Inform<'a> = dyn Fn(StatusCode, &Fields) + 'a;

/// A request, of whatever version it was.
pub struct Request {
    pub method: Method,
    pub target: Target,
    pub version: Version,
    pub fields: Fields,
    pub body: RequestBody,
    /// In bytes; `None`: not known before its end.
    pub length: Option<u64>,
    pub expect_continue: bool,
    pub upgrade: Option<HeaderValue>,
    /// No other request may follow it on an HTTP/1 connection to an endpoint.
    pub alone: bool,
}

/// A response on its way to the client.
pub struct Response {
    pub status: StatusCode,
    pub fields: Fields,
    pub body: ResponseBody,
    /// In bytes; also said to HEAD.
    pub length: Option<u64>,
}

/// The protocol in logs.
pub fn version_label(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        _ => "HTTP/2",
    }
}

/// Host and target of a request as they stand, for logs.
pub fn subject(target: &Target, fields: &Fields) -> (String, String) {
    let host = String::from_utf8_lossy(fields.get(Known::Host).unwrap_or_default());
    (host.into_owned(), target.text(fields).to_owned())
}
