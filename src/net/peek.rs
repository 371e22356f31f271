//! The server name of a TLS ClientHello, read before anything else is decided and without ending TLS.
//!
//! Written by hand because `rustls::server::Acceptor` refuses hellos that rustls could not answer (those of TLS 1.0
//! and 1.1 without signature algorithms), and bytes that are passed on are for the endpoint to judge.

use std::io;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use rustls::pki_types::DnsName;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A hello that does not fit, with its record headers, is no hello. The largest in use (post-quantum key shares, an
/// encrypted inner hello) are a quarter of it.
const MAX_HELLO: usize = 16 * 1024;
const FIRST_READ: usize = 1024;

/// What the first bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// More bytes are needed.
    More,
    /// No ClientHello, whatever follows.
    NotTls,
    /// A whole ClientHello and the DNS name in it, in lower case; `None`: without one that is valid.
    Name(Option<String>),
}

/// The bytes read and what they are.
#[derive(Debug)]
pub struct Peeked {
    /// All that was read, from the first byte: to be sent on, or given to TLS.
    pub bytes: BytesMut,
    /// Never `More`: what ends or outgrows 16 KiB before it is a whole hello is `NotTls`.
    pub hello: Hello,
}

/// Reads until the name is known or the bytes are no ClientHello: at most 16 KiB, within `deadline` altogether
/// (`TimedOut`; what was read is lost, as it is when the future is dropped).
pub async fn server_name<R: AsyncRead + Unpin>(io: &mut R, deadline: Duration) -> io::Result<Peeked> {
    let read = async {
        let mut bytes = BytesMut::with_capacity(FIRST_READ);
        let mut search = Search::default();
        loop {
            if bytes.len() == bytes.capacity() {
                bytes.reserve(bytes.len().min(MAX_HELLO - bytes.len()));
            }
            let room = MAX_HELLO - bytes.len();
            let n = io.read_buf(&mut (&mut bytes).limit(room)).await?;
            let hello = match search.look(&bytes) {
                Hello::More if n > 0 && bytes.len() < MAX_HELLO => continue,
                Hello::More => Hello::NotTls,
                known => known,
            };
            return Ok(Peeked { bytes, hello });
        }
    };
    tokio::time::timeout(deadline, read)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// What `bytes` begin with.
pub fn client_hello(bytes: &[u8]) -> Hello {
    Search::default().look(bytes)
}

const RECORD_HEADER: usize = 5;
/// Content type and major version of the records (RFC 8446 section 5.1); the minor version says nothing.
const HANDSHAKE_RECORD: u8 = 22;
const MAJOR_VERSION: u8 = 3;
const MAX_FRAGMENT: usize = 1 << 14;
/// Message type (RFC 8446 section 4).
const CLIENT_HELLO: u8 = 1;
const MESSAGE_HEADER: usize = 4;
/// Extension and name type (RFC 6066 section 3).
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// Gathers the hello from its records, each looked at once however slowly the bytes come.
#[derive(Debug, Default)]
struct Search {
    /// Where the next record begins.
    record: usize,
    /// What the records before it held.
    message: Vec<u8>,
}

impl Search {
    /// `bytes` are those of the last call and what has come since.
    fn look(&mut self, bytes: &[u8]) -> Hello {
        loop {
            let rest = bytes.get(self.record..).unwrap_or_default();
            if !could_be_record(rest) {
                return Hello::NotTls;
            }
            let Some((header, rest)) = rest.split_first_chunk::<RECORD_HEADER>() else {
                return Hello::More;
            };
            let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
            if self.message.is_empty() && rest.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
                return Hello::NotTls;
            }
            let Some(fragment) = rest.get(..len) else {
                return Hello::More;
            };
            self.record += RECORD_HEADER + len;
            self.message.extend_from_slice(fragment);
            let Some((header, body)) = self.message.split_first_chunk::<MESSAGE_HEADER>() else {
                continue;
            };
            let len = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
            if len > MAX_HELLO {
                return Hello::NotTls;
            }
            if let Some(body) = body.get(..len) {
                return name_in(body).map_or(Hello::NotTls, Hello::Name);
            }
        }
    }
}

/// Whether `bytes`, as many as there are, may begin a record of the handshake. Empty fragments are not allowed there.
fn could_be_record(bytes: &[u8]) -> bool {
    let len = match bytes {
        [_, _, _, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 1,
    };
    bytes.first().is_none_or(|kind| *kind == HANDSHAKE_RECORD)
        && bytes.get(1).is_none_or(|major| *major == MAJOR_VERSION)
        && (1..=MAX_FRAGMENT).contains(&len)
}

/// The name in the body of a ClientHello (RFC 8446 section 4.1.2); `None`: it is not the body of one.
fn name_in(body: &[u8]) -> Option<Option<String>> {
    let mut body = Reader(body);
    body.take(2 + 32)?;
    let _session = body.vector8()?;
    let _ciphers = body.vector16()?;
    let _compressions = body.vector8()?;
    if body.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Reader(body.vector16()?);
    if !body.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vector16()?;
        // Two of them would let us and the endpoint each read another name.
        if kind == SERVER_NAME && found.replace(data).is_some() {
            return None;
        }
    }
    Some(found.and_then(dns_name))
}

/// The only name of the extension, if it is a DNS name without trailing dot (RFC 6066 section 3).
fn dns_name(extension: &[u8]) -> Option<String> {
    let mut extension = Reader(extension);
    let mut list = Reader(extension.vector16()?);
    let kind = list.u8()?;
    let name = std::str::from_utf8(list.vector16()?).ok()?;
    let only = extension.0.is_empty() && list.0.is_empty();
    let valid = kind == HOST_NAME && !name.ends_with('.') && DnsName::try_from(name).is_ok();
    (only && valid).then(|| name.to_ascii_lowercase())
}

/// Takes parts off the front of bytes; `None`: there are too few.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let n = self.u8()?;
        self.take(n.into())
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let n = self.u16()?;
        self.take(n.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::AsyncWriteExt;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    /// The first flight of a rustls client.
    fn rustls_hello(name: &str, sni: bool) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.enable_sni = sni;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut out = Vec::new();
        client.write_tls(&mut out).unwrap();
        out
    }

    fn vector16(bytes: &[u8]) -> Vec<u8> {
        let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
        out.extend_from_slice(bytes);
        out
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().to_vec(), vector16(data)].concat()
    }

    fn sni(name: &[u8]) -> Vec<u8> {
        extension(SERVER_NAME, &vector16(&[vec![HOST_NAME], vector16(name)].concat()))
    }

    /// A hello of another time: TLS 1.0, RC4 and 3DES, no signature algorithms.
    fn message(extensions: Option<&[u8]>) -> Vec<u8> {
        let mut body = vec![3, 1];
        body.extend_from_slice(&[7; 32]);
        body.push(0);
        body.extend_from_slice(&vector16(&[0, 5, 0, 10]));
        body.extend_from_slice(&[1, 0]);
        if let Some(extensions) = extensions {
            body.extend_from_slice(&vector16(extensions));
        }
        let mut out = (body.len() as u32).to_be_bytes().to_vec();
        out[0] = CLIENT_HELLO;
        out.extend_from_slice(&body);
        out
    }

    fn records(message: &[u8], fragment: usize) -> Vec<u8> {
        message
            .chunks(fragment)
            .flat_map(|f| [vec![HANDSHAKE_RECORD, 3, 1], vector16(f)].concat())
            .collect()
    }

    fn hello(extensions: &[&[u8]]) -> Vec<u8> {
        records(&message(Some(&extensions.concat())), MAX_FRAGMENT)
    }

    fn named(name: &str) -> Hello {
        Hello::Name(Some(name.into()))
    }

    #[test]
    fn names() {
        assert_eq!(client_hello(&rustls_hello("Shop.Example", true)), named("shop.example"));
        assert_eq!(client_hello(&rustls_hello("shop.example", false)), Hello::Name(None));
        assert_eq!(client_hello(&rustls_hello("127.0.0.1", true)), Hello::Name(None));
        assert_eq!(client_hello(&hello(&[&sni(b"A.Example")])), named("a.example"));
        assert_eq!(client_hello(&records(&message(None), 100)), Hello::Name(None));
        assert_eq!(client_hello(&hello(&[])), Hello::Name(None));
        let grease = extension(0x0a0a, &[]);
        let more = extension(0xfafa, &[0]);
        assert_eq!(client_hello(&hello(&[&grease, &sni(b"a.b"), &more])), named("a.b"));
    }

    #[test]
    fn invalid_names_are_none() {
        let long = "a.".repeat(127) + "example";
        let label = "a".repeat(64) + ".example";
        for bad in [
            &b""[..],
            b".",
            b"a.example.",
            b"a..example",
            b"10.0.0.1",
            b"[::1]",
            b"a b",
            b"a/b",
            b"*.example",
            b"a:80",
            b"a\0.example",
            b"\xc3\xa9.example",
            b"\xff",
            long.as_bytes(),
            label.as_bytes(),
        ] {
            assert_eq!(client_hello(&hello(&[&sni(bad)])), Hello::Name(None), "{bad:?}");
        }
        let one = [vec![HOST_NAME], vector16(b"a.b")].concat();
        let two = extension(SERVER_NAME, &vector16(&[one.clone(), one.clone()].concat()));
        assert_eq!(client_hello(&hello(&[&two])), Hello::Name(None));
        let after = extension(SERVER_NAME, &[vector16(&one), vec![0]].concat());
        assert_eq!(client_hello(&hello(&[&after])), Hello::Name(None));
        let other = extension(SERVER_NAME, &vector16(&[vec![1], vector16(b"a.b")].concat()));
        assert_eq!(client_hello(&hello(&[&other])), Hello::Name(None));
        assert_eq!(client_hello(&hello(&[&extension(SERVER_NAME, &[])])), Hello::Name(None));
    }

    #[test]
    fn what_is_no_hello_is_known_at_once() {
        for bytes in [
            &b"G"[..],
            b"SSH-2.0-x\r\n",
            b"\x16\x02",
            b"\x15\x03\x01",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x40\x01",
            b"\x16\x03\x01\x00\x05\x02",
            b"\x80\x2e\x01\x03\x01",
            // A message of 64 KiB.
            b"\x16\x03\x01\x00\x04\x01\x01\x00\x00",
        ] {
            assert_eq!(client_hello(bytes), Hello::NotTls, "{bytes:?}");
        }
        assert_eq!(client_hello(b""), Hello::More);
        assert_eq!(client_hello(b"\x16\x03\x01\x40\x00\x01"), Hello::More);
    }

    #[test]
    fn hellos_with_two_readings_are_none() {
        assert_eq!(client_hello(&hello(&[&sni(b"a.b"), &sni(b"c.d")])), Hello::NotTls);
        let mut trailing = message(Some(&sni(b"a.b")));
        trailing.push(0);
        trailing[3] += 1;
        assert_eq!(client_hello(&records(&trailing, 4000)), Hello::NotTls);
        let mut short = message(Some(&sni(b"a.b")));
        short[3] -= 1;
        assert_eq!(client_hello(&records(&short, 4000)), Hello::NotTls);
        let cut = extension(5, &[1, 2, 3]);
        assert_eq!(client_hello(&hello(&[&cut[..5]])), Hello::NotTls);
    }

    #[test]
    fn records_are_looked_at_once() {
        let bytes = records(&message(Some(&sni(b"a.b"))), 1);
        let mut search = Search::default();
        for n in 1..bytes.len() {
            assert_eq!(search.look(&bytes[..n]), Hello::More);
            assert_eq!((search.record, search.message.len()), (n / 6 * 6, n / 6));
        }
        assert_eq!(search.look(&bytes), named("a.b"));
    }

    #[tokio::test]
    async fn reads_no_more_than_needed() {
        let bytes = rustls_hello("a.example", true);
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(&bytes[..10]).await.unwrap();
        let rest = bytes[10..].to_vec();
        let sent = tokio::spawn(async move {
            far.write_all(&rest).await.unwrap();
            far
        });
        let peeked = server_name(&mut near, DEADLINE).await.unwrap();
        assert_eq!(peeked.bytes, bytes);
        assert_eq!(peeked.hello, named("a.example"));
        sent.await.unwrap();
    }

    #[tokio::test]
    async fn bounded_in_bytes() {
        // Records of one byte: a small hello that takes more than there is room for.
        let many = records(&message(Some(&extension(21, &[0; 4000]))), 1);
        let mut io = &many[..];
        let peeked = server_name(&mut io, DEADLINE).await.unwrap();
        assert_eq!(peeked.hello, Hello::NotTls);
        assert_eq!(peeked.bytes, many[..MAX_HELLO]);
        // One that fits exactly is read.
        let padding = MAX_HELLO - RECORD_HEADER - message(Some(&extension(21, &[]))).len();
        let full = hello(&[&extension(21, &vec![0; padding])]);
        assert_eq!(full.len(), MAX_HELLO);
        let peeked = server_name(&mut &full[..], DEADLINE).await.unwrap();
        assert_eq!(peeked.hello, Hello::Name(None));
    }

    #[tokio::test]
    async fn an_early_end_is_no_hello() {
        for n in [0, 1, 5, 60] {
            let bytes = &rustls_hello("a.example", true)[..n];
            let peeked = server_name(&mut &bytes[..], DEADLINE).await.unwrap();
            assert_eq!((&peeked.bytes[..], peeked.hello), (bytes, Hello::NotTls));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_clients_run_out_of_time() {
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(&rustls_hello("a.example", true)[..20]).await.unwrap();
        let error = server_name(&mut near, DEADLINE).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    proptest! {
        #[test]
        fn splits_change_nothing(fragment in 1usize..600, cut in 1usize..400) {
            let whole = rustls_hello("a.example", true);
            let bytes = records(&whole[RECORD_HEADER..], fragment);
            let mut search = Search::default();
            let mut n = 0;
            while n + cut < bytes.len() {
                n += cut;
                prop_assert_eq!(search.look(&bytes[..n]), Hello::More);
            }
            prop_assert_eq!(search.look(&bytes), named("a.example"));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = client_hello(&bytes);
            let mut framed = bytes;
            if let Some(first) = framed.first_mut() {
                *first = CLIENT_HELLO;
                let _ = client_hello(&records(&framed, 50));
            }
        }

        #[test]
        fn mutated_hellos_never_panic(at in 0usize..260, byte in any::<u8>(), keep in 0usize..260) {
            let mut bytes = hello(&[&extension(0x1a1a, &[]), &sni(b"a.example"), &extension(16, &[0; 150])]);
            if let Some(b) = bytes.get_mut(at) {
                *b = byte;
            }
            bytes.truncate(keep);
            let _ = client_hello(&bytes);
        }
    }
}
