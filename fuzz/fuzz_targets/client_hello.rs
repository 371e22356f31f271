//! Names in ClientHellos: what is known of a prefix stays true, and a name is one that certificates may have.
#![no_main]

use std::time::Duration;

use evenkeel::net::peek::{Hello, client_hello, server_name};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let whole = client_hello(data);
    if let Hello::Name(Some(name)) = &whole {
        assert!(!name.is_empty() && name.len() <= 253 && !name.ends_with('.'), "{name}");
        assert!(
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b)),
            "{name}"
        );
    }
    // All prefixes of short inputs, some of long ones.
    for end in (0..data.len()).step_by(data.len() / 64 + 1) {
        match client_hello(&data[..end]) {
            Hello::More => {}
            known => assert_eq!(known, whole, "after {end} bytes"),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let peeked = runtime
        .block_on(server_name(&mut &data[..], Duration::from_secs(5)))
        .unwrap();
    assert!(data.starts_with(&peeked.bytes));
    match (whole, data.len() < 16 * 1024) {
        // What ends before it is whole is none.
        (Hello::More, _) => assert_eq!(peeked.hello, Hello::NotTls),
        (known, true) => assert_eq!(peeked.hello, known),
        (_, false) => assert_ne!(peeked.hello, Hello::More),
    }
});
