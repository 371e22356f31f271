//! Which of a request's fields a stored response was chosen by (RFC 9111 section 4.1), and the key these make.

use http::HeaderName;

use super::reason::Reason;
use crate::fields::{Fields, Known};

/// Fields a response may vary by; with more it is not stored, for no two requests would agree.
pub const MAX_FIELDS: usize = 16;
/// Bytes of their values.
const MAX_VALUES: usize = 4096;
/// Members of a list whose order is made the same.
const MAX_MEMBERS: usize = 32;

/// The names of a Vary field, sorted. Empty: nothing but the key decides.
pub type Vary = Box<[HeaderName]>;

/// Reads Vary, to which the fields of `apart` are added.
pub fn of(fields: &Fields, apart: &[HeaderName]) -> Result<Vary, Reason> {
    let mut names = apart.to_vec();
    for line in fields.all(Known::Vary) {
        for member in line.split(|b| *b == b',') {
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            // `*`, and what is no name: nothing says when it would be the same.
            let name = HeaderName::from_bytes(member).ok().filter(|_| member != b"*");
            names.push(name.ok_or(Reason::VaryStar)?);
            if names.len() > 8 * MAX_FIELDS {
                return Err(Reason::VaryTooMany);
            }
        }
    }
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    match names.len() {
        0..=MAX_FIELDS => Ok(names.into()),
        _ => Err(Reason::VaryTooMany),
    }
}

/// One name more.
pub fn with(vary: &Vary, name: &HeaderName) -> Vary {
    let mut names = vary.to_vec();
    if let Err(at) = names.binary_search_by(|a| a.as_str().cmp(name.as_str())) {
        names.insert(at, name.clone());
    }
    names.into()
}

/// Adds what `request` has of the fields in `vary` to `key`. `None`: there is too much of it.
pub fn variant(vary: &Vary, request: &Fields, key: &mut Vec<u8>) -> Option<()> {
    let start = key.len();
    for name in vary {
        // Neither byte is part of a value.
        key.push(b'\n');
        let mut any = false;
        let from = key.len();
        for line in request.named(name) {
            if any {
                key.push(b',');
            }
            any = true;
            match name.as_str() {
                "accept-encoding" | "accept-language" => key.extend_from_slice(line),
                _ => push_trimmed(line, key),
            }
            if key.len() - start > MAX_VALUES {
                return None;
            }
        }
        match name.as_str() {
            "accept-encoding" => codings(key, from),
            "accept-language" => languages(key, from),
            _ => {}
        }
        // Absent is another thing than empty.
        key.push(if any { b'\r' } else { 0 });
    }
    Some(())
}

/// Without the white space around commas, outside of quotes.
fn push_trimmed(line: &[u8], key: &mut Vec<u8>) {
    let mut quoted = false;
    let mut start = 0;
    for (at, byte) in line.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                key.extend_from_slice(line.get(start..at).unwrap_or_default().trim_ascii());
                key.push(b',');
                start = at + 1;
            }
            _ => {}
        }
    }
    key.extend_from_slice(line.get(start..).unwrap_or_default().trim_ascii());
}

/// A member of a list with weights: its name, and its weight in thousandths.
fn members(list: &[u8]) -> impl Iterator<Item = (Vec<u8>, u16)> {
    list.split(|b| *b == b',').filter_map(|member| {
        let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
        let weight = parts.find_map(|p| p.strip_prefix(b"q=").or_else(|| p.strip_prefix(b"Q=")));
        Some((name, weight.map_or(1000, thousandths)))
    })
}

fn thousandths(text: &[u8]) -> u16 {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f32>().ok());
    number.map_or(0, |n| (n.clamp(0.0, 1.0) * 1000.0) as u16)
}

/// The codings a client takes, sorted: which it prefers is nothing to the origins there are.
fn codings(key: &mut Vec<u8>, from: usize) {
    let list = key.split_off(from);
    let mut all: Vec<Vec<u8>> = members(&list)
        .filter(|(name, weight)| *weight > 0 && name != b"identity")
        .map(|(name, _)| match name.as_slice() {
            b"x-gzip" => b"gzip".to_vec(),
            _ => name,
        })
        .take(MAX_MEMBERS)
        .collect();
    // That the plain form is refused decides too.
    if members(&list).any(|(name, weight)| weight == 0 && (name == b"identity" || name == b"*")) {
        all.push(b"!identity".to_vec());
    }
    all.sort_unstable();
    all.dedup();
    key.extend(all.join(&b","[..]));
}

/// Languages by their weight, of the same weight by their name.
fn languages(key: &mut Vec<u8>, from: usize) {
    let list = key.split_off(from);
    let mut all: Vec<_> = members(&list).take(MAX_MEMBERS).collect();
    all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.dedup();
    for (name, weight) in all {
        key.extend_from_slice(&name);
        key.push(b';');
        key.extend_from_slice(itoa::Buffer::new().format(weight).as_bytes());
        key.push(b',');
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn fields(lines: &[(&'static str, &str)]) -> Fields {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Fields::from(&map)
    }

    fn vary(text: &str) -> Result<Vary, Reason> {
        of(&fields(&[("vary", text)]), &[])
    }

    fn key(vary_by: &str, request: &[(&'static str, &str)]) -> Vec<u8> {
        let mut key = Vec::new();
        variant(&vary(vary_by).unwrap(), &fields(request), &mut key).unwrap();
        key
    }

    #[test]
    fn names_are_sorted_and_stars_forbid() {
        assert_eq!(vary("Foo, ,bar,foo").unwrap(), vary("bar,foo").unwrap());
        assert!(of(&fields(&[]), &[]).unwrap().is_empty());
        for star in ["*", "*, *", ", *", "foo, *", "*, foo", "a b"] {
            assert_eq!(vary(star), Err(Reason::VaryStar), "{star}");
        }
        let lines = fields(&[("vary", ""), ("vary", "*")]);
        assert_eq!(of(&lines, &[]), Err(Reason::VaryStar));
        let many: Vec<String> = (0..5000).map(|n| format!("a{n}")).collect();
        assert_eq!(vary(&many.join(",")), Err(Reason::VaryTooMany));
        assert_eq!(vary(&many[..17].join(",")), Err(Reason::VaryTooMany));
        assert!(vary(&many[..16].join(",")).is_ok());
    }

    #[test]
    fn settings_tell_apart_what_no_vary_does() {
        let tenant = [HeaderName::from_static("x-tenant")];
        assert_eq!(*of(&fields(&[]), &tenant).unwrap(), tenant);
        assert_eq!(
            of(&fields(&[("vary", "a, x-tenant")]), &tenant).unwrap(),
            vary("x-tenant, a").unwrap()
        );
    }

    #[test]
    fn requests_that_differ_in_what_counts_differ() {
        let one = |value| key("foo", &[("foo", value)]);
        assert_eq!(one("1, 2"), key("foo", &[("foo", "1"), ("foo", "2")]));
        assert_eq!(one("1 ,  2"), one("1,2"));
        assert_eq!(one("1"), key("foo", &[("foo", "1"), ("other", "2")]));
        assert_ne!(one("1"), one("2"));
        assert_ne!(one("a b"), one("ab"));
        assert_ne!(one("\"a, b\""), one("\"a,b\""));
        assert_ne!(one(""), key("foo", &[]));
        assert_ne!(key("bar, foo", &[("foo", "1")]), key("bar, foo", &[("bar", "1")]));
    }

    #[test]
    fn negotiation_is_brought_into_one_form() {
        let ae = |value| key("accept-encoding", &[("accept-encoding", value)]);
        assert_eq!(ae("gzip, deflate, br"), ae("br;q=0.5,GZIP ,x-gzip, deflate, identity"));
        assert_eq!(ae("gzip;q=0, br"), ae("br"));
        assert_ne!(ae("gzip"), ae("br"));
        assert_ne!(ae("br, identity;q=0"), ae("br"));
        assert_ne!(ae("*"), ae(""));
        let al = |value| key("accept-language", &[("accept-language", value)]);
        assert_eq!(al("en, de"), al(" De ,  eN"));
        assert_eq!(al("de;q=0.8, en"), al("en,de;q=0.80"));
        assert_ne!(al("de;q=0.8, en"), al("en;q=0.8, de"));
    }

    #[test]
    fn there_is_an_end_to_it() {
        let long = "x".repeat(MAX_VALUES + 1);
        let request = fields(&[("foo", &long)]);
        assert_eq!(variant(&vary("foo").unwrap(), &request, &mut Vec::new()), None);
    }

    proptest! {
        /// Two requests have the same key only where every field has the same value but for its white space.
        #[test]
        fn different_values_never_meet(a in "[ab,\" ]{0,6}", b in "[ab,\" ]{0,6}", c in "[ab, ]{0,4}", d in "[ab, ]{0,4}") {
            let one = key("x, y", &[("x", &a), ("y", &c)]);
            let other = key("x, y", &[("x", &b), ("y", &d)]);
            if one == other {
                let bare = |s: &str| s.replace(' ', "");
                prop_assert_eq!((bare(&a), bare(&c)), (bare(&b), bare(&d)));
            }
        }
    }
}
