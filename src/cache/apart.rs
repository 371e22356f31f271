//! What requests are told apart by that is no field of theirs, as a field: so it stands in variants' keys as what `Vary`
//! names does. It is added while a request is looked up, and taken off before it is sent on.

use http::HeaderName;

use super::content::Told;
use crate::base::pairs::cookies;
use crate::fields::Fields;

/// The cookies in a cache's key.
pub static COOKIES: HeaderName = HeaderName::from_static("evenkeel-key-cookies");

/// The content of a request.
pub static CONTENT: HeaderName = HeaderName::from_static("evenkeel-key-content");

/// Adds what tells its content apart.
pub fn note_content(request: &mut Fields, content: &Told) {
    forget_content(request);
    let text = format!("{}:{}", content.operation, content.digest);
    request.append_text("evenkeel-key-content", text.as_bytes());
}

pub fn forget_content(request: &mut Fields) {
    request.remove_named(CONTENT.as_str().as_bytes());
}

/// Adds the cookies with these names; all of one name, since nobody knows which the endpoint takes.
pub fn note(request: &mut Fields, names: &[String]) {
    if names.is_empty() {
        return;
    }
    forget(request, names);
    let mut text = Vec::new();
    for name in names {
        for (found, value) in cookies(request.named(&http::header::COOKIE)) {
            if found.trim_ascii() == name.as_bytes() {
                text.extend_from_slice(name.as_bytes());
                text.push(b'=');
                escape(value.trim_ascii(), &mut text);
                text.push(b'&');
            }
        }
    }
    request.append_text("evenkeel-key-cookies", &text);
}

/// Takes it off, also where the client had sent it.
pub fn forget(request: &mut Fields, names: &[String]) {
    if !names.is_empty() {
        request.remove_named(COOKIES.as_str().as_bytes());
    }
}

/// Values stand as they are, but for what separates them here, or is taken for white space in a list.
pub fn escape(value: &[u8], text: &mut Vec<u8>) {
    for byte in value {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~' => text.push(*byte),
            other => {
                text.push(b'%');
                for digit in [other >> 4, other & 15] {
                    text.push(b"0123456789ABCDEF"[usize::from(digit)]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(lines: &[&str], names: &[&str]) -> String {
        let mut request = Fields::default();
        for line in lines {
            request.append_text("Cookie", line.as_bytes());
        }
        // From a client that knows how this is done.
        request.append_text("Evenkeel-Key-Cookies", b"lang=de&");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        note(&mut request, &names);
        let found: Vec<_> = request.named(&COOKIES).map(<[u8]>::to_vec).collect();
        assert_eq!(found.len(), 1);
        forget(&mut request, &names);
        assert_eq!(request.named(&COOKIES).count(), 0);
        String::from_utf8(found.concat()).unwrap()
    }

    #[test]
    fn cookies_that_differ_are_told_apart_and_others_are_not() {
        let lang = |line: &str| noted(&[line], &["lang"]);
        assert_eq!(lang("a=1; lang=de; b=2"), "lang=de&");
        assert_eq!(lang("lang=de"), lang("x=y; lang=de "));
        assert_ne!(lang("lang="), lang("x=y"), "empty is not absent");
        assert_eq!(lang("lang=de; lang=en"), "lang=de&lang=en&");
        assert_eq!(noted(&["lang=de", "lang=en"], &["lang"]), "lang=de&lang=en&");
        assert_ne!(lang("Lang=de"), lang("lang=de"));
        assert_eq!(lang("lang=a&x=b, \"c"), "lang=a%26x%3Db%2C%20%22c&");
        assert_eq!(noted(&["b=2; a=1"], &["a", "b"]), "a=1&b=2&");
    }
}
