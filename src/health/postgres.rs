//! The PostgreSQL probe: a start-up packet, and what the server says to it.
//!
//! A request for a password or a refusal of this user comes from a server that works. A server that starts,
//! stops or recovers (SQLSTATE class 57) or has no connection left (class 53) says so, and is down.

use super::Failed;
use super::expect::{read_until, send};
use crate::tls::io::Io;

/// Longer than any message a server answers a start-up packet with.
const MAX_ANSWER: usize = 16 * 1024;
/// Protocol 3.0, spoken since PostgreSQL 7.4.
const PROTOCOL: u32 = 196_608;
/// The user where none is configured; it need not exist.
pub const USER: &str = "evenkeel";
/// Exists in every installation.
const DATABASE: &str = "postgres";
/// Terminate, where a session has begun. A server that waits for a password logs nothing when it goes without one.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// Says hello as `user`.
pub async fn start_up(io: &mut Io, user: &str) -> Result<(), Failed> {
    send(io, &packet(user)).await?;
    let mut seen = Vec::new();
    if !read_until(io, &mut seen, MAX_ANSWER, |seen| message(seen).is_some()).await? {
        return Err(Failed::Answer(match seen.is_empty() {
            true => "the connection ended before the answer did".into(),
            false => "the answer is not PostgreSQL".into(),
        }));
    }
    judge(&seen)?;
    if let Some((b'R', [0, 0, 0, 0])) = message(&seen) {
        // It may have closed already.
        let _ = send(io, TERMINATE).await;
    }
    Ok(())
}

fn packet(user: &str) -> Vec<u8> {
    let mut body = PROTOCOL.to_be_bytes().to_vec();
    for text in [
        "user",
        user,
        "database",
        DATABASE,
        "application_name",
        "evenkeel health",
        "",
    ] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
    packet.append(&mut body);
    packet
}

/// Type and content of the first message, once it is whole; what cannot become one is so at once.
fn message(seen: &[u8]) -> Option<(u8, &[u8])> {
    let (kind, rest) = seen.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    match u32::from_be_bytes(*length) as usize {
        length @ 4..=MAX_ANSWER => rest.get(..length - 4).map(|content| (*kind, content)),
        _ => Some((0, &[])),
    }
}

fn judge(seen: &[u8]) -> Result<(), Failed> {
    match message(seen) {
        // Authentication: granted or asked for.
        Some((b'R', content)) if content.len() >= 4 => Ok(()),
        // NegotiateProtocolVersion.
        Some((b'v', _)) => Ok(()),
        Some((b'E', content)) => {
            let field = |name: u8| {
                let fields = content.split(|b| *b == 0);
                fields
                    .filter_map(|field| field.split_first())
                    .find_map(|(n, text)| (*n == name).then_some(text))
            };
            let code = field(b'C').unwrap_or_default();
            match code.starts_with(b"57") || code.starts_with(b"53") || code.len() != 5 {
                false => Ok(()),
                true => Err(Failed::Answer(super::expect::excerpt(
                    field(b'M').unwrap_or(b"an error without a message"),
                ))),
            }
        }
        _ => Err(Failed::Answer("the answer is not PostgreSQL".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str, text: &str) -> Vec<u8> {
        let content = format!("SFATAL\0VFATAL\0C{code}\0M{text}\0Fpostmaster.c\0L2373\0RProcessStartupPacket\0\0");
        let mut message = vec![b'E'];
        message.extend_from_slice(&(content.len() as u32 + 4).to_be_bytes());
        message.extend_from_slice(content.as_bytes());
        message
    }

    #[test]
    fn a_server_that_answers_works_unless_it_says_that_it_does_not() {
        assert!(judge(b"R\0\0\0\x0c\0\0\0\x05salt").is_ok());
        assert!(judge(&error("28000", "role \"evenkeel\" does not exist")).is_ok());
        assert!(judge(&error("28P01", "password authentication failed")).is_ok());
        for (answer, expected) in [
            (error("57P03", "the database system is starting up"), "is starting up"),
            (error("53300", "sorry, too many clients already"), "too many clients"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "not PostgreSQL"),
        ] {
            assert!(message(&answer).is_some());
            let failed = judge(&answer).unwrap_err();
            assert!(failed.to_string().contains(expected), "{failed}");
        }
    }

    #[test]
    fn messages_are_waited_for() {
        let whole = error("57P03", "the database system is starting up");
        assert!((0..whole.len()).all(|n| message(&whole[..n]).is_none()));
        let hello = packet("me");
        assert_eq!(hello[..8], [0, 0, 0, hello.len() as u8, 0, 3, 0, 0]);
        assert!(hello.ends_with(b"evenkeel health\0\0"));
    }
}
