//! What finding the server name in a ClientHello costs: `cargo bench --bench hello`.

use std::hint::black_box;
use std::sync::Arc;

use divan::Bencher;
use evenkeel::net::peek::{Hello, client_hello};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

fn main() {
    divan::main();
}

/// The first flight of a client, with a post-quantum key share.
fn hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("shop.example").expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut out = Vec::new();
    client.write_tls(&mut out).expect("memory takes every write");
    out
}

/// The same in records of `fragment` bytes.
fn in_records(hello: &[u8], fragment: usize) -> Vec<u8> {
    let (header, message) = hello.split_at(5);
    message
        .chunks(fragment)
        .flat_map(|part| [&header[..3], &(part.len() as u16).to_be_bytes(), part].concat())
        .collect()
}

fn bench(bencher: Bencher<'_, '_>, bytes: &[u8], expected: Hello) {
    assert_eq!(client_hello(bytes), expected);
    bencher.bench(|| client_hello(black_box(bytes)));
}

#[divan::bench(args = [16_384, 100, 1])]
fn name_in_records_of(bencher: Bencher<'_, '_>, fragment: usize) {
    let expected = Hello::Name(Some("shop.example".into()));
    bench(bencher, &in_records(&hello(), fragment), expected);
}

#[divan::bench]
fn not_tls(bencher: Bencher<'_, '_>) {
    bench(bencher, b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n", Hello::NotTls);
}
