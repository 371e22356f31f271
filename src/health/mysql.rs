//! The MySQL probe: the server's greeting, and a login where a user is configured.
//!
//! A server counts connections that leave without a login, and refuses a host after `max_connect_errors` of
//! them in a row; one that logs in (a user without a password and without rights is enough) is not counted.

use super::Failed;
use super::expect::{excerpt, read_until, send};
use crate::tls::io::Io;

const MAX_ANSWER: usize = 4096;
/// CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION | CLIENT_PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x0000_0200 | 0x0000_8000 | 0x0008_0000;
const MAX_PACKET: u32 = 1 << 24;
const UTF8: u8 = 33;
const PLUGIN: &[u8] = b"mysql_native_password\0";
/// COM_QUIT as the first packet of a new exchange.
const QUIT: &[u8] = &[1, 0, 0, 0, 1];

/// Waits for the greeting; then logs in as `user`, without a password.
pub async fn greeting(io: &mut Io, user: Option<&str>) -> Result<(), Failed> {
    let mut seen = Vec::new();
    let (sequence, content) = packet(io, &mut seen).await?;
    judge_greeting(content)?;
    let Some(user) = user else {
        return Ok(());
    };
    send(io, &login(user, sequence.wrapping_add(1))).await?;
    let mut seen = Vec::new();
    let (_, content) = packet(io, &mut seen).await?;
    match content.split_first() {
        Some((0xff, _)) => Err(Failed::Answer(error(content))),
        // In, or asked for more than was offered: it works either way.
        _ => {
            let _ = send(io, QUIT).await;
            Ok(())
        }
    }
}

/// Number and content of the first packet.
async fn packet<'a>(io: &mut Io, seen: &'a mut Vec<u8>) -> Result<(u8, &'a [u8]), Failed> {
    let whole = read_until(io, seen, MAX_ANSWER, |seen| whole(seen).is_some()).await?;
    match whole.then(|| self::whole(seen)).flatten() {
        Some(packet) => Ok(packet),
        None => Err(Failed::Answer(match seen.is_empty() {
            true => "the connection ended before the answer did".into(),
            false => "the answer is not MySQL".into(),
        })),
    }
}

fn whole(seen: &[u8]) -> Option<(u8, &[u8])> {
    let ([a, b, c, sequence], rest) = seen.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
    match length {
        1..=MAX_ANSWER => rest.get(..length).map(|content| (*sequence, content)),
        _ => Some((*sequence, &[])),
    }
}

fn judge_greeting(content: &[u8]) -> Result<(), Failed> {
    match content.split_first() {
        // Protocol 10, since MySQL 3.21; the server's version ends with a zero.
        Some((10, rest)) if rest.contains(&0) => Ok(()),
        Some((0xff, _)) => Err(Failed::Answer(error(content))),
        _ => Err(Failed::Answer("the answer is not MySQL".into())),
    }
}

/// An error packet in words: its number, perhaps `#` and a state, its text.
fn error(content: &[u8]) -> String {
    let Some(([_, low, high], rest)) = content.split_first_chunk::<3>() else {
        return "an error without a message".into();
    };
    let text = match rest.split_first() {
        Some((b'#', rest)) => rest.get(5..).unwrap_or_default(),
        _ => rest,
    };
    format!("error {}: {}", u16::from_le_bytes([*low, *high]), excerpt(text))
}

fn login(user: &str, sequence: u8) -> Vec<u8> {
    let mut content = CAPABILITIES.to_le_bytes().to_vec();
    content.extend_from_slice(&MAX_PACKET.to_le_bytes());
    content.push(UTF8);
    content.extend_from_slice(&[0; 23]);
    content.extend_from_slice(user.as_bytes());
    // The name ends; the password has no bytes.
    content.extend_from_slice(&[0, 0]);
    content.extend_from_slice(PLUGIN);
    let [a, b, c, _] = (content.len() as u32).to_le_bytes();
    let mut packet = vec![a, b, c, sequence];
    packet.append(&mut content);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As MariaDB 10.11 sends it, the random parts shortened.
    const GREETING: &[u8] = b"\x18\0\0\0\x0a5.5.5-10.11.19-MariaDB\0";

    #[test]
    fn greetings_pass_and_errors_do_not() {
        let (_, content) = whole(GREETING).unwrap();
        assert!(judge_greeting(content).is_ok());
        assert!((0..GREETING.len()).all(|n| whole(&GREETING[..n]).is_none()));
        let full = b"\x17\0\0\0\xff\x10\x04Too many connections";
        let (_, content) = whole(full).unwrap();
        let failed = judge_greeting(content).unwrap_err().to_string();
        assert_eq!(failed, "error 1040: Too many connections");
        assert_eq!(
            error(b"\xff\x69\x04#HY000Host 'x' is blocked"),
            "error 1129: Host 'x' is blocked"
        );
        assert!(judge_greeting(b"SSH-2.0").is_err());
    }

    #[test]
    fn the_login_has_its_length_and_number() {
        let login = login("check", 1);
        assert_eq!(login[0] as usize, login.len() - 4);
        assert_eq!(login[3], 1);
    }
}
