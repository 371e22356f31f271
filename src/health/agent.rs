//! The agent of an endpoint: one line of words that says what it is to do, beside what its health check finds.
//!
//! As HAProxy's agent-check: `up`, `down`, `failed`, `stopped` (a reason may follow `#`), `ready`, `drain`, `maint`, and
//! a percentage of the weight, separated by blanks or commas. What is not said stays as it was; so it does when the
//! agent does not answer, for whether the endpoint can be reached is the health check's business.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::expect::{excerpt, read_until, send};
use super::{Failed, Target, tcp};
use crate::endpoint::duty::Duty;
use crate::net::addr::DialAddr;

/// Longer lines are none.
const MAX_ANSWER: usize = 1024;

/// `agent`, and what is sent to it first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    pub to: Place,
    /// `{endpoint}` is the endpoint as configured.
    pub send: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At the endpoint's address.
    Port(u16),
    /// One agent that speaks for all.
    Addr(SocketAddr),
}

/// What an agent has said so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Why it is down, while it is.
    pub down: Option<String>,
    pub duty: Duty,
    /// Of the weight, in percent.
    pub share: u8,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            down: None,
            duty: Duty::Active,
            share: 100,
        }
    }
}

impl Said {
    /// Takes in one line; words nobody knows change nothing.
    pub fn take(&mut self, line: &[u8]) {
        let text = excerpt(line);
        let (words, reason) = match text.split_once('#') {
            Some((words, reason)) => (words, reason.trim()),
            None => (text.as_str(), ""),
        };
        let separators = |c: char| c.is_ascii_whitespace() || c == ',';
        for word in words.split(separators).filter(|word| !word.is_empty()) {
            match word.to_ascii_lowercase().as_str() {
                "up" => self.down = None,
                "down" | "fail" | "failed" | "stopped" => {
                    self.down = Some(match reason {
                        "" => format!("its agent says {word}"),
                        reason => format!("its agent says {word}: {reason}"),
                    });
                }
                "ready" => self.duty = Duty::Active,
                "drain" => self.duty = Duty::Draining,
                "maint" => self.duty = Duty::Disabled,
                word => {
                    let percent = word.strip_suffix('%').and_then(|n| n.parse::<u32>().ok());
                    if let Some(percent) = percent {
                        // More than all of it is all of it.
                        self.share = percent.min(100) as u8;
                    }
                }
            }
        }
    }
}

/// Asks for one line. Dropping the future closes the connection.
pub async fn ask(target: &Target, spec: &Spec, within: Duration) -> Result<Vec<u8>, Failed> {
    let (addr, port) = match spec.to {
        Place::Port(port) => (target.addr.clone(), Some(port)),
        Place::Addr(addr) => (DialAddr::Ip(addr), None),
    };
    let agent = Target {
        addr,
        configured: target.configured.clone(),
    };
    let asked = async {
        let mut io = tcp::connect(&agent, port, None).await?;
        if let Some(text) = &spec.send {
            let text = text.replace("{endpoint}", &target.configured.to_string());
            send(&mut io, text.as_bytes()).await?;
        }
        let mut line = Vec::new();
        let ends = |seen: &[u8]| seen.iter().any(|b| matches!(b, b'\r' | b'\n'));
        // The end of the connection ends the line too.
        read_until(&mut io, &mut line, MAX_ANSWER, ends).await?;
        let _ = io.shutdown().await;
        match line.is_empty() {
            true => Err(Failed::Answer("the agent said nothing".into())),
            false => Ok(line),
        }
    };
    timeout(within, asked).await.unwrap_or(Err(Failed::Timeout(within)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[&str]) -> Said {
        let mut said = Said::default();
        lines.iter().for_each(|line| said.take(line.as_bytes()));
        said
    }

    #[test]
    fn words_add_up_and_what_is_not_said_stays() {
        assert_eq!(after(&["up\n"]), Said::default());
        let said = after(&["drain, 50%\r\n", "up"]);
        assert_eq!((said.duty, said.share, said.down), (Duty::Draining, 50, None));
        let said = after(&["maint", "READY 75%", "down#disk is full\nup"]);
        assert_eq!((said.duty, said.share), (Duty::Active, 75));
        assert_eq!(said.down.as_deref(), Some("its agent says down: disk is full"));
        assert_eq!(after(&["stopped", "up 250%"]).share, 100);
        assert_eq!(
            after(&["stopped", "ready"]).down.as_deref(),
            Some("its agent says stopped")
        );
        assert_eq!(after(&["hello world -5% 1.5% %", "maxconn:30"]), Said::default());
    }
}
