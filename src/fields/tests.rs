//! Fields found, changed and written.

use super::*;

/// As a head's parser would: `text` is lines, CRLF at their ends.
fn read(text: &'static str) -> Fields {
    let mut found = Found::with_capacity(4);
    let mut at = 0;
    for line in text.split_inclusive("\r\n") {
        let colon = line.find(':').unwrap();
        let value = line[colon + 1..].trim();
        let begin = at + colon + 1 + line[colon + 1..].find(value).unwrap();
        let (name, value) = (at..at + colon, begin..begin + value.len());
        found.add(text.as_bytes(), name, value).unwrap();
        at += line.len();
    }
    found.within(Bytes::from_static(text.as_bytes()))
}

fn written(fields: &Fields, except: &[Known]) -> String {
    let mut out = BytesMut::new();
    fields.write(&mut out, Set::of(except));
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn fields_are_found_changed_and_written_in_order() {
    let mut f = read("Host: a\r\nX-One:  1 \r\nConnection: close\r\nx-one: 2\r\nVia: 1.1 b\r\n");
    assert_eq!(f.len(), 5);
    assert_eq!(f.get(Known::Host), Some(&b"a"[..]));
    assert_eq!(f.get(Known::Te), None);
    let name = HeaderName::from_static("x-one");
    assert_eq!(f.named(&name).collect::<Vec<_>>(), [b"1", b"2"]);
    f.remove(Known::Connection);
    f.append(Known::XForwardedFor, b"192.0.2.1");
    f.set(Known::Via, b"1.1 c");
    assert_eq!(f.all(Known::Via).collect::<Vec<_>>(), [b"1.1 c"]);
    assert!(!f.has(Known::Connection) && f.has(Known::XForwardedFor));
    assert_eq!(
        written(&f, &[Known::Host]),
        "X-One: 1\r\nx-one: 2\r\nx-forwarded-for: 192.0.2.1\r\nvia: 1.1 c\r\n"
    );
    f.remove_named(b"X-ONE");
    f.remove_named(b"via");
    assert_eq!(written(&f, &[]), "Host: a\r\nx-forwarded-for: 192.0.2.1\r\n");
    assert_eq!(f.len(), 2);
}

#[test]
fn values_are_made_of_parts_wherever_these_stand() {
    let mut f = read("Host: a\r\n");
    f.append_parts(Known::Via, &[Part::Text(b"1 "), Part::Of(Known::Host)]);
    f.append_parts(
        Known::Te,
        &[Part::Of(Known::Via), Part::Text(b";"), Part::Of(Known::Cookie)],
    );
    assert_eq!(written(&f, &[]), "Host: a\r\nvia: 1 a\r\nte: 1 a;\r\n");
    assert_eq!(f.get(Known::Te), Some(&b"1 a;"[..]));
}

#[test]
fn what_was_added_once_is_added_to_others() {
    let mut first = read("Host: a\r\n");
    first.append(Known::Te, b"trailers");
    let lines = first.recorded(|fields| {
        fields.append(Known::Via, b"1.1 b");
        fields.append_parts(Known::Age, &[Part::Of(Known::Host)]);
    });
    let mut second = read("Host: c\r\n");
    second.append(Known::XRealIp, b"192.0.2.1");
    second.append_lines(&lines);
    assert_eq!(
        written(&second, &[]),
        "Host: c\r\nx-real-ip: 192.0.2.1\r\nvia: 1.1 b\r\nage: a\r\n"
    );
    assert_eq!(second.get(Known::Age), Some(&b"a"[..]));
}

#[test]
fn there_and_back_as_a_map() {
    let mut map = HeaderMap::new();
    map.append("host", "a".parse().unwrap());
    map.append("x-a", "1".parse().unwrap());
    map.append("x-a", "2".parse().unwrap());
    let fields = Fields::from(&map);
    assert_eq!(fields.to_map(Set::of(&[])), map);
    assert_eq!(written(&fields, &[]), "host: a\r\nx-a: 1\r\nx-a: 2\r\n");
    map.remove("host");
    assert_eq!(fields.to_map(Set::of(&[Known::Host])), map);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let mut found = Found::with_capacity(1);
    assert_eq!(found.add(b"a: b\r\n", 0..9, 3..4), Err(TooLarge));
    assert!(found.within(Bytes::new()).is_empty());
}
