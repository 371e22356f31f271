//! Paths: one form, the same when it is brought there again, and no way out of it for whoever decodes once more.
#![no_main]

use evenkeel::route::normalise;

libfuzzer_sys::fuzz_target!(|path: &str| {
    let Ok(found) = normalise(path) else { return };
    let (route, forward) = (&*found.route, &*found.forward);
    assert!(route.starts_with('/') && forward.starts_with('/'));
    assert!(forward == path || forward == route, "{forward}");
    assert!(!route.contains("//"), "{route}");
    assert!(
        route
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"\\#?\"<>^`{|}".contains(&b)),
        "{route}"
    );
    for segment in route.split('/') {
        assert!(segment != "." && segment != "..", "{route}");
        let bare = segment.split([';']).next().unwrap_or_default();
        assert!(bare != "..", "{route}");
    }
    assert!(!route.contains("%00"));
    let bytes = route.as_bytes();
    for at in (0..bytes.len()).filter(|at| bytes[*at] == b'%') {
        let digits = &bytes[at + 1..at + 3];
        assert!(
            digits.iter().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b)),
            "{route}"
        );
        let byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        assert!(
            !(byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)),
            "unreserved: {route}"
        );
    }
    // Whoever reads either form anew reads the same.
    for again in [route, forward] {
        assert_eq!(normalise(again).map(|n| n.route.into_owned()).as_deref(), Ok(route));
    }
});
