//! Short responses are held until they are whole, where another endpoint could give them too: one that breaks off
//! halfway is then not the client's trouble.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::attempt::Exchange;
use crate::h1::framing::Framing;
use crate::policy::retry::{self, Failure};
use crate::pool::h1::H1;
use crate::proxy::error::{Kind, ProxyError};

/// Longer bodies flow at once.
const SHORT: u64 = 16 * 1024;
/// What takes longer than this to come flows too.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many bytes of the body must have come before it is passed on, when some are missing.
pub fn missing(repeatable: bool, retry: &retry::Spec, exchange: &Exchange) -> Option<usize> {
    let Framing::Length(bytes) = exchange.head.framing else {
        return None;
    };
    let bytes = usize::try_from(bytes).ok().filter(|_| bytes <= SHORT)?;
    let missing = exchange.conn.borrow().read.len() < bytes;
    (missing && repeatable && retry.max > 0 && retry.on.has(Failure::Reset)).then_some(bytes)
}

/// Waits until `bytes` of the body have come.
pub async fn whole(conn: &Rc<RefCell<H1>>, bytes: usize) -> Result<(), ProxyError> {
    conn.borrow_mut().deadline.set(PATIENCE);
    let gathered = std::future::poll_fn(|cx| {
        let conn = &mut *conn.borrow_mut();
        match conn.poll_gather(cx, bytes) {
            Poll::Pending => conn.deadline.poll(cx).map(Ok),
            ready => ready,
        }
    });
    gathered
        .await
        .map_err(|e| ProxyError::new(Kind::Reset, format!("within a short response: {e}")))
}
