//! What reading a body off the wire and framing one costs: `cargo bench --bench body`.

use bytes::BytesMut;
use divan::Bencher;
use divan::counter::BytesCount;
use evenkeel::h1::decode::{Decoder, Step};
use evenkeel::h1::encode::{chunk_end, chunk_start, last_chunk};
use evenkeel::h1::framing::Framing;

const SIZES: [usize; 3] = [1 << 10, 64 << 10, 1 << 20];
/// As much as one read gives.
const READ: usize = 16 << 10;

fn main() {
    divan::main();
}

/// A body of `size` bytes in chunks of `chunk`.
fn in_chunks(size: usize, chunk: usize, extension: &str, trailers: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for part in vec![b'x'; size].chunks(chunk) {
        out.extend_from_slice(format!("{:x}{extension}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    out
}

/// Decodes `wire` as it comes, `read` bytes at a time; how many bytes of the body there were.
fn decode(framing: Framing, wire: &[u8], read: usize) -> usize {
    let mut decoder = Decoder::new(framing);
    let mut buf = BytesMut::with_capacity(read.min(wire.len()));
    let mut size = 0;
    for part in wire.chunks(read) {
        buf.extend_from_slice(part);
        loop {
            match decoder.decode(&mut buf).expect("a valid body") {
                Step::Data(data) => size += data.len(),
                Step::More => break,
                Step::End(_) => return size,
            }
        }
    }
    size
}

fn bench(bencher: Bencher<'_, '_>, framing: Framing, wire: &[u8], read: usize, size: usize) {
    assert_eq!(decode(framing, wire, read), size);
    bencher
        .counter(BytesCount::new(size))
        .bench(|| decode(framing, wire, read));
}

#[divan::bench(args = SIZES)]
fn decode_by_length(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, Framing::Length(size as u64), &vec![b'x'; size], READ, size);
}

#[divan::bench(args = SIZES)]
fn decode_chunks_of_16_kib(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, Framing::Chunked, &in_chunks(size, READ, "", ""), READ, size);
}

#[divan::bench(args = SIZES)]
fn decode_chunks_of_32_bytes(bencher: Bencher<'_, '_>, size: usize) {
    bench(bencher, Framing::Chunked, &in_chunks(size, 32, "", ""), READ, size);
}

/// The shortest there are, with an extension each, a byte at a time: the worst a stranger can send.
#[divan::bench]
fn decode_chunks_of_one_byte(bencher: Bencher<'_, '_>) {
    bench(
        bencher,
        Framing::Chunked,
        &in_chunks(1 << 10, 1, ";a=b", ""),
        1,
        1 << 10,
    );
}

#[divan::bench]
fn decode_trailers(bencher: Bencher<'_, '_>) {
    let trailers = "grpc-status: 0\r\ngrpc-message: fine\r\nx-checksum: 0123456789abcdef\r\n";
    bench(
        bencher,
        Framing::Chunked,
        &in_chunks(1 << 10, READ, "", trailers),
        READ,
        1 << 10,
    );
}

#[divan::bench(args = SIZES)]
fn encode_chunk_lines(bencher: Bencher<'_, '_>, size: usize) {
    let mut out = BytesMut::with_capacity(64 << 10);
    bencher.bench_local(|| {
        out.clear();
        for _ in 0..size.div_ceil(READ) {
            chunk_start(&mut out, size.min(READ));
            chunk_end(&mut out);
        }
        last_chunk(&mut out, None);
        out.len()
    });
}
