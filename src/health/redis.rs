//! The Redis probe: PING, after AUTH where a password is set. An error, such as LOADING, is a failure.

use super::Failed;
use super::expect::{excerpt, read_until, send};
use crate::base::secret::Secret;
use crate::tls::io::Io;

/// Longer than any error Redis writes.
const MAX_ANSWER: usize = 4096;

/// Who asks; nobody in particular by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    pub user: Option<String>,
    pub password: Option<Secret>,
}

/// Asks, and reads one line for each command.
pub async fn ping(io: &mut Io, login: &Login) -> Result<(), Failed> {
    let mut request = Vec::new();
    if let Some(password) = &login.password {
        let words = ["AUTH"].into_iter().chain(login.user.as_deref());
        command(&mut request, &words.chain([password.expose()]).collect::<Vec<_>>());
    }
    let lines = 1 + usize::from(login.password.is_some());
    command(&mut request, &["PING"]);
    send(io, &request).await?;
    let mut seen = Vec::new();
    // An error of AUTH is told at once: the second answer only repeats it.
    let done = |seen: &[u8]| {
        let ends = seen.iter().filter(|b| **b == b'\n').count();
        ends >= lines || (ends > 0 && seen.starts_with(b"-"))
    };
    if !read_until(io, &mut seen, MAX_ANSWER, done).await? {
        return Err(Failed::Answer(match seen.is_empty() {
            true => "the connection ended before the answer did".into(),
            false => format!("the answer is not Redis: {}", excerpt(&seen)),
        }));
    }
    judge(&seen)
}

/// One command as an array of bulk strings.
fn command(into: &mut Vec<u8>, words: &[&str]) {
    into.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        into.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

fn judge(answer: &[u8]) -> Result<(), Failed> {
    for line in answer.split_inclusive(|b| *b == b'\n') {
        match line.split_first() {
            Some((b'-', error)) => return Err(Failed::Answer(excerpt(error))),
            Some((b'+', b"PONG\r\n")) => return Ok(()),
            Some((b'+', _)) => {}
            _ => break,
        }
    }
    Err(Failed::Answer(format!("the answer is not Redis: {}", excerpt(answer))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_every_line() {
        assert!(judge(b"+PONG\r\n").is_ok() && judge(b"+OK\r\n+PONG\r\n").is_ok());
        for (answer, expected) in [
            (
                &b"-LOADING Redis is loading the dataset in memory\r\n"[..],
                "LOADING Redis",
            ),
            (b"-NOAUTH Authentication required.\r\n", "NOAUTH"),
            (b"-WRONGPASS invalid\r\n-NOAUTH\r\n", "WRONGPASS"),
            (b"HTTP/1.1 400 Bad Request\r\n", "not Redis: HTTP/1.1 400"),
        ] {
            let failed = judge(answer).unwrap_err();
            assert!(failed.to_string().contains(expected), "{failed}");
        }
    }
}
