//! The send/expect probe: a text sent, a text waited for; and how other probes read their answers.

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Failed;
use super::tcp::reason;
use crate::tls::io::Io;

/// How much is read and searched.
const MAX_ANSWER: usize = 64 * 1024;

/// A text sent and a text that must come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    pub send: Option<String>,
    /// Stands anywhere in the first 64 KiB of what comes.
    pub expect: Option<String>,
}

/// Sends, then reads until the expected text is there.
pub async fn exchange(io: &mut Io, probe: &Expect) -> Result<(), Failed> {
    if let Some(text) = &probe.send {
        send(io, text.as_bytes()).await?;
    }
    let Some(text) = &probe.expect else {
        return Ok(());
    };
    let mut seen = Vec::new();
    let found = |seen: &[u8]| memmem::find(seen, text.as_bytes()).is_some();
    match read_until(io, &mut seen, MAX_ANSWER, found).await? {
        true => Ok(()),
        false => Err(Failed::Answer(format!("`{}` lacks `{text}`", excerpt(&seen)))),
    }
}

/// Writes all of `bytes` and flushes.
pub async fn send(io: &mut Io, bytes: &[u8]) -> Result<(), Failed> {
    let sent = async {
        io.write_all(bytes).await?;
        io.flush().await
    };
    sent.await.map_err(|e| Failed::Answer(reason(&e)))
}

/// Reads until `done` says so of all that was read; `false`: the connection ended, or `max` bytes came, before.
pub async fn read_until(
    io: &mut Io,
    seen: &mut Vec<u8>,
    max: usize,
    done: impl Fn(&[u8]) -> bool,
) -> Result<bool, Failed> {
    while !done(seen) {
        if seen.len() >= max {
            return Ok(false);
        }
        let read = io.read_buf(seen).await.map_err(|e| Failed::Answer(reason(&e)))?;
        if read == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The first line of an answer, shortened and made printable: for reasons.
pub fn excerpt(bytes: &[u8]) -> String {
    const MAX: usize = 120;
    let line = bytes.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    let text: String = String::from_utf8_lossy(&line[..line.len().min(MAX)])
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    match line.len() > MAX {
        true => format!("{text}…"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_short_and_printable() {
        assert_eq!(excerpt(b"+OK ready\r\nmore"), "+OK ready");
        assert_eq!(excerpt(b"\x1b[31mred\xff"), "[31mred\u{fffd}");
        assert_eq!(excerpt(&[b'a'; 500]).chars().count(), 121);
    }
}
