//! One reading of a path: what routes are matched against, and what is sent on.
//!
//! A proxy that reads a path otherwise than the endpoint behind it lets through what it was to keep
//! out. So paths are brought to one form before routing (RFC 3986 section 6.2.2), and those with
//! two likely readings are refused:
//! - encodings of unreserved characters are decoded, others kept with upper-case digits, and what may
//!   not stand bare in a path (`"<>^{|}` and whatever is not ASCII) is encoded;
//! - `//` is one slash; dot segments are resolved after that, also those written `%2e`;
//! - refused: a path that climbs above the root; a NUL; a broken encoding; a control character, space, `\`, `#` or
//!   `?` written bare; and dot segments that only some would see: `..;x` (Tomcat drops the parameter) and `..%2f`,
//!   `..%5c` (read as separators by endpoints that decode first).

use std::borrow::Cow;
use std::fmt;

use crate::base::pairs::hex_byte;

/// A path in both its forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalised<'a> {
    /// What predicates are matched against.
    pub route: Cow<'a, str>,
    /// What is sent to the endpoint: exactly as received, unless there were dot segments; then `route`.
    pub forward: Cow<'a, str>,
}

/// Why a path is refused; all of them are answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// It does not begin with a slash.
    NotAbsolute,
    /// A `%` without two hexadecimal digits after it.
    Encoding,
    /// `%00`.
    Nul,
    /// A character that may not stand bare in a path and is likely to be misread.
    Character,
    /// `..` above the root.
    AboveRoot,
    /// A dot segment that some endpoints would see and others not.
    HiddenDots,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "the path does not begin with a slash",
            Self::Encoding => "the path has a broken percent-encoding",
            Self::Nul => "the path has a NUL",
            Self::Character => "the path has a character that must be percent-encoded",
            Self::AboveRoot => "the path climbs above the root",
            Self::HiddenDots => "the path has a dot segment beside an encoded separator or a parameter",
        })
    }
}

impl std::error::Error for PathError {}

/// Brings `path` (without its query) into the forms for routing and for sending. Borrows where nothing changes, which
/// is found by one look at each byte.
pub fn normalise(path: &str) -> Result<Normalised<'_>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    let received = Cow::Borrowed(path);
    if is_plain(path.as_bytes()) {
        return Ok(Normalised {
            route: received.clone(),
            forward: received,
        });
    }
    let (route, had_dots) = rewrite(path)?;
    Ok(match (route == path, had_dots) {
        (true, _) => Normalised {
            route: received.clone(),
            forward: received,
        },
        (false, false) => Normalised {
            route: Cow::Owned(route),
            forward: received,
        },
        (false, true) => Normalised {
            route: Cow::Owned(route.clone()),
            forward: Cow::Owned(route),
        },
    })
}

/// How a byte may stand in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// RFC 3986 section 2.3: means the same encoded or not.
    Unreserved,
    /// The rest of section 3.3's `pchar`: may mean another thing when encoded.
    Reserved,
    Slash,
    Percent,
    /// Must be encoded by the RFC, but is sent bare by some and means no harm.
    Loose,
    Refused,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Loose; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Unreserved,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => {
                Class::Reserved
            }
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            0..=b' ' | 0x7F | b'\\' | b'#' | b'?' => Class::Refused,
            _ => Class::Loose,
        };
        byte += 1;
    }
    classes
};

fn class(byte: u8) -> Class {
    // A byte is always within a table of 256.
    CLASSES[usize::from(byte)]
}

/// Certainly in its final form: nothing to decode or encode, no empty segment, none that begins with a dot.
fn is_plain(path: &[u8]) -> bool {
    // Without a branch per byte: paths are short, and nearly all are plain.
    let (plain, _) = path.iter().fold((true, 0), |(plain, before), byte| {
        let bare = matches!(class(*byte), Class::Unreserved | Class::Reserved | Class::Slash);
        let starts = (before == b'/') & ((*byte == b'/') | (*byte == b'.'));
        (plain & bare & !starts, *byte)
    });
    plain
}

/// The normal form, and whether dot segments were resolved.
fn rewrite(path: &str) -> Result<(String, bool), PathError> {
    let mut out = String::with_capacity(path.len());
    out.push('/');
    let mut had_dots = false;
    let mut rest = path.strip_prefix('/');
    while let Some(here) = rest {
        // Here `out` ends with a slash.
        let (segment, after) = match here.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (here, None),
        };
        rest = after;
        let start = out.len();
        rewrite_segment(segment.as_bytes(), &mut out)?;
        match out.get(start..).unwrap_or_default() {
            "" => {}
            "." => {
                had_dots = true;
                out.truncate(start);
            }
            ".." => {
                had_dots = true;
                let parent = out.get(..start - 1).and_then(|above| above.rfind('/'));
                out.truncate(parent.ok_or(PathError::AboveRoot)? + 1);
            }
            segment if hides_dots(segment) => return Err(PathError::HiddenDots),
            _ if after.is_some() => out.push('/'),
            _ => {}
        }
    }
    Ok((out, had_dots))
}

fn rewrite_segment(segment: &[u8], out: &mut String) -> Result<(), PathError> {
    let mut rest = segment;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match class(*byte) {
            Class::Unreserved | Class::Reserved => out.push(char::from(*byte)),
            Class::Percent => {
                let [high, low, tail @ ..] = tail else {
                    return Err(PathError::Encoding);
                };
                rest = tail;
                match hex_byte(*high, *low).ok_or(PathError::Encoding)? {
                    0 => return Err(PathError::Nul),
                    byte if class(byte) == Class::Unreserved => out.push(char::from(byte)),
                    byte => push_encoded(byte, out),
                }
            }
            Class::Loose => push_encoded(*byte, out),
            // Segments have none; the NUL among these has its own name.
            Class::Slash | Class::Refused if *byte == 0 => return Err(PathError::Nul),
            Class::Slash | Class::Refused => return Err(PathError::Character),
        }
    }
    Ok(())
}

fn push_encoded(byte: u8, out: &mut String) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    // Half a byte is always within a table of 16.
    out.extend(['%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Whether a (rewritten) segment has a dot segment within for who ends segments at `;`, `%2F` or `%5C` too.
fn hides_dots(segment: &str) -> bool {
    let is_dots = |piece: &str| matches!(piece.split(';').next(), Some("." | ".."));
    is_dots(segment)
        || (segment.contains('%') && segment.split("%2F").flat_map(|piece| piece.split("%5C")).any(is_dots))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn brings_paths_into_one_form() {
        for (path, route, forward) in [
            ("/", "/", "/"),
            ("/a/b-c_d~e.f", "/a/b-c_d~e.f", "/a/b-c_d~e.f"),
            ("/%61%2D%7e/%3a", "/a-~/%3A", "/%61%2D%7e/%3a"),
            ("//a///b//", "/a/b/", "//a///b//"),
            ("/a/./b", "/a/b", "/a/b"),
            ("/a/b/..", "/a/", "/a/"),
            ("/a/b/../", "/a/", "/a/"),
            ("/a/..", "/", "/"),
            ("/.", "/", "/"),
            ("/a/.", "/a/", "/a/"),
            ("/a/%2E%2e/b", "/b", "/b"),
            ("/a/.%2e/b", "/b", "/b"),
            ("/a//../b", "/b", "/b"),
            ("/a/b/../../c", "/c", "/c"),
            ("/..a/b../...", "/..a/b../...", "/..a/b../..."),
            ("/.well-known/x", "/.well-known/x", "/.well-known/x"),
            ("/a%2fb%5Cc", "/a%2Fb%5Cc", "/a%2fb%5Cc"),
            ("/a%2Fb/../c", "/c", "/c"),
            ("/a;v=1/b", "/a;v=1/b", "/a;v=1/b"),
            ("/{x}|\"", "/%7Bx%7D%7C%22", "/{x}|\""),
            ("/café", "/caf%C3%A9", "/café"),
            ("/caf%c3%a9", "/caf%C3%A9", "/caf%c3%a9"),
            ("/a%0Ab%20c", "/a%0Ab%20c", "/a%0Ab%20c"),
            ("/%252e%252e/", "/%252e%252e/", "/%252e%252e/"),
        ] {
            let expected = Normalised {
                route: route.into(),
                forward: forward.into(),
            };
            assert_eq!(normalise(path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn refuses_what_has_two_readings_or_none() {
        for (path, error) in [
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("a/b", PathError::NotAbsolute),
            ("/%", PathError::Encoding),
            ("/%4", PathError::Encoding),
            ("/%4/1", PathError::Encoding),
            ("/%zz", PathError::Encoding),
            ("/%+1", PathError::Encoding),
            ("/a%00", PathError::Nul),
            ("/a\0", PathError::Nul),
            ("/a b", PathError::Character),
            ("/a\tb", PathError::Character),
            ("/a\x7f", PathError::Character),
            ("/a\\..\\b", PathError::Character),
            ("/a#b", PathError::Character),
            ("/a?b", PathError::Character),
            ("/..", PathError::AboveRoot),
            ("/../a", PathError::AboveRoot),
            ("/a/../../b", PathError::AboveRoot),
            ("/a/%2e%2e/%2e%2e", PathError::AboveRoot),
            ("/a/..;/b", PathError::HiddenDots),
            ("/a/%2e%2e;x=1/b", PathError::HiddenDots),
            ("/a/..%2fb", PathError::HiddenDots),
            ("/a/x%5c..%5cb", PathError::HiddenDots),
            ("/a/x%2f.%2fb", PathError::HiddenDots),
            ("/a/b%2f..;", PathError::HiddenDots),
        ] {
            assert_eq!(normalise(path), Err(error), "{path:?}");
        }
    }

    #[test]
    fn what_does_not_change_is_borrowed() {
        for path in ["/", "/api/v1/users", "/.well-known/x", "/a%2Fb"] {
            let Normalised { route, forward } = normalise(path).unwrap();
            assert!(
                matches!((route, forward), (Cow::Borrowed(_), Cow::Borrowed(_))),
                "{path}"
            );
        }
    }

    /// Paths made of the pieces that matter.
    fn paths() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/", "/", "/", ".", "..", "%2e", "%2E", "%2f", "%5C", "%25", "%61", "%3b", ";", "a", "b.c", "é", "{",
            "%c3", "+",
        ]);
        prop::collection::vec(piece, 0..16).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn nothing_makes_it_panic(path in ".*") {
            let _ = normalise(&path);
            let _ = normalise(&format!("/{path}"));
        }

        #[test]
        fn the_result_has_one_reading(path in paths()) {
            if let Ok(Normalised { route, forward }) = normalise(&path) {
                prop_assert!(route.starts_with('/') && route.is_ascii() && !route.contains("//"), "{}", route);
                // However the endpoint decodes it, once.
                let decoded = percent_encoding::percent_decode_str(&forward).decode_utf8_lossy().into_owned();
                let mut segments = decoded.split(['/', '\\']);
                prop_assert!(segments.all(|segment| segment != "." && segment != ".."), "{} from {}", decoded, path);
            }
        }

        #[test]
        fn a_second_time_changes_nothing(path in paths()) {
            if let Ok(once) = normalise(&path) {
                let again = Normalised { route: once.route.clone(), forward: once.route.clone() };
                prop_assert_eq!(normalise(&once.route), Ok(again));
                // What is sent on is routed as this request was.
                prop_assert_eq!(normalise(&once.forward).map(|sent| sent.route), Ok(once.route));
            }
        }

        #[test]
        fn the_quick_look_agrees_with_the_long_way(path in "/[a-c./;+%2eE-]{0,12}") {
            if is_plain(path.as_bytes()) {
                prop_assert_eq!(rewrite(&path), Ok((path, false)));
            }
        }
    }
}
