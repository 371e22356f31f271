//! The body of a stored response that stands in a file, read as it is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use crate::cache::disk::{Large, Unreadable};
use crate::cache::record::BLOCK;
use crate::proxy::error::{Kind, ProxyError};

type Reading = Pin<Box<dyn Future<Output = Result<Bytes, Unreadable>> + Send>>;

/// What is left of it.
pub struct StoredBody {
    file: Arc<Large>,
    at: u64,
    /// Behind its last byte.
    end: u64,
    reading: Option<Reading>,
}

impl StoredBody {
    /// The bytes from the first to the last.
    pub fn new(file: Arc<Large>, (first, last): (u64, u64)) -> Self {
        Self {
            file,
            at: first,
            end: last + 1,
            reading: None,
        }
    }

    pub fn is_end(&self) -> bool {
        self.at >= self.end
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        if self.is_end() {
            return Poll::Ready(None);
        }
        let (file, at) = (&self.file, self.at);
        let reading = self.reading.get_or_insert_with(|| Box::pin(file.clone().read(at)));
        let read = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        let skip = (self.at % BLOCK as u64) as usize;
        let rest = match read {
            Ok(data) if data.len() > skip => data.slice(skip..),
            _ => {
                let broken = ProxyError::new(Kind::Reset, "response body: its file in the cache cannot be read");
                return Poll::Ready(Some(Err(broken)));
            }
        };
        let length = (rest.len() as u64).min(self.end - self.at);
        self.at += length;
        Poll::Ready(Some(Ok(Frame::data(rest.slice(..length as usize)))))
    }
}
