//! What stands in the cookie: a number for an endpoint, when it was written, and a tag that only holders of the secret
//! can make.
//!
//! The number is a keyed hash as well: nobody can find the endpoint's address behind it by trying all addresses.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key as Hmac, Tag};

use crate::base::pairs::hex_byte;

/// Bytes of the number, of the time, of the tag: half of HMAC-SHA-256 (RFC 2104 section 5).
const ID: usize = 8;
const TIME: usize = 4;
const TAG: usize = 16;
const BYTES: usize = ID + TIME + TAG;
/// Written in hexadecimal digits.
pub const LEN: usize = 2 * BYTES;

/// A secret, ready to sign. Its text for debugging does not show it.
#[derive(Debug, Clone)]
pub struct Key(Hmac);

/// What a cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Stands for an endpoint of an upstream.
    pub id: u64,
    /// When it was written, in seconds since 1970.
    pub at: u32,
}

impl Key {
    pub fn new(secret: &str) -> Self {
        Self(Hmac::new(HMAC_SHA256, secret.as_bytes()))
    }

    /// The number of `endpoint` in `upstream`: the same for everybody with this secret.
    pub fn id(&self, upstream: &str, endpoint: &str) -> u64 {
        // Neither text has a NUL in it.
        let tag = self.sign(&[
            b"evenkeel sticky endpoint\0",
            upstream.as_bytes(),
            b"\0",
            endpoint.as_bytes(),
        ]);
        let first = tag.as_ref().first_chunk();
        first.map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// The text of `token`.
    pub fn write(&self, token: Token) -> String {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(&token.id.to_be_bytes());
        bytes.extend_from_slice(&token.at.to_be_bytes());
        let tag = self.tag(&bytes);
        bytes.extend(tag.as_ref().iter().take(TAG));
        let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n & 15)]);
        bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
    }

    /// The token in `text`, if this key has signed it.
    pub fn read(&self, text: &[u8]) -> Option<Token> {
        let text: &[u8; LEN] = text.try_into().ok()?;
        let mut bytes = [0; BYTES];
        for (byte, pair) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
            // As it is written and in no other way.
            if pair.iter().any(u8::is_ascii_uppercase) {
                return None;
            }
            *byte = hex_byte(pair[0], pair[1])?;
        }
        let (signed, tag) = bytes.split_at(ID + TIME);
        verify_slices_are_equal(self.tag(signed).as_ref().get(..TAG)?, tag).ok()?;
        let (id, at) = signed.split_at(ID);
        Some(Token {
            id: u64::from_be_bytes(id.try_into().ok()?),
            at: u32::from_be_bytes(at.try_into().ok()?),
        })
    }

    fn tag(&self, signed: &[u8]) -> Tag {
        self.sign(&[b"evenkeel sticky cookie\0", signed])
    }

    fn sign(&self, parts: &[&[u8]]) -> Tag {
        let mut context = Context::with_key(&self.0);
        parts.iter().for_each(|part| context.update(part));
        context.sign()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    /// Cookies of this version are read by later ones, and by other instances.
    #[test]
    fn the_text_stays_the_same() {
        let key = Key::new(SECRET);
        let id = key.id("shop", "10.0.0.1:8080");
        let text = key.write(Token { id, at: 1_700_000_000 });
        assert_eq!(text, "2e3550acf5d3cbd76553f100faa05fad178f30a28619ecc57bd4421c");
    }

    #[test]
    fn endpoints_upstreams_and_secrets_are_told_apart() {
        let key = Key::new(SECRET);
        let id = key.id("a", "10.0.0.1:80");
        assert_eq!(Key::new(SECRET).id("a", "10.0.0.1:80"), id);
        assert_ne!(key.id("a", "10.0.0.1:81"), id);
        assert_ne!(key.id("b", "10.0.0.1:80"), id);
        assert_ne!(Key::new("another").id("a", "10.0.0.1:80"), id);
    }

    #[test]
    fn a_changed_bit_anywhere_is_seen() {
        let key = Key::new(SECRET);
        let token = Token {
            id: 7,
            at: 1_700_000_000,
        };
        let text = key.write(token);
        assert_eq!((text.len(), key.read(text.as_bytes())), (LEN, Some(token)));
        assert_eq!(Key::new("another").read(text.as_bytes()), None);
        for at in 0..LEN {
            for bit in 0..8 {
                let mut changed = text.clone().into_bytes();
                changed[at] ^= 1 << bit;
                assert_eq!(key.read(&changed), None, "byte {at} bit {bit}");
            }
        }
        for text in ["", &text[1..], &format!("{text}0"), &text.to_uppercase()] {
            assert_eq!(key.read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        assert!(!format!("{:?}", Key::new(SECRET)).contains("0123"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(id: u64, at: u32, secret in "\\PC{0,80}") {
            let key = Key::new(&secret);
            let text = key.write(Token { id, at });
            prop_assert_eq!(key.read(text.as_bytes()), Some(Token { id, at }));
        }

        #[test]
        fn nothing_else_is_read_and_nothing_panics(
            text in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..80),
                "[0-9a-f]{56}".prop_map(String::into_bytes),
            ]
        ) {
            prop_assert_eq!(Key::new(SECRET).read(&text), None);
        }
    }
}
