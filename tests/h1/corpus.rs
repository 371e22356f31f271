//! The messages of `tests/data/http1`, and mutations of them that are the same for the same seed.

use std::path::Path;

/// A message, and what is behind it on the same connection.
#[derive(Debug, Clone)]
pub struct Sample {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// `== name` and the bytes on the lines that follow, of which `\r \n \t \0 \\ \xHH` are escapes; the line ends of the
/// file are none of the message's. `#` begins a comment before the first name.
pub fn load(file: &str) -> Vec<Sample> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/http1")
        .join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut samples: Vec<Sample> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            let name = name.to_owned();
            samples.push(Sample {
                name,
                bytes: Vec::new(),
            });
        } else if let Some(sample) = samples.last_mut() {
            sample.bytes.extend(unescaped(line));
        }
    }
    assert!(samples.iter().all(|s| !s.bytes.is_empty()), "{file}: an empty message");
    samples
}

fn unescaped(line: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chars = line.bytes();
    while let Some(b) = chars.next() {
        out.push(match b {
            b'\\' => match chars.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(b'\\') => b'\\',
                Some(b'x') => {
                    let digits = [chars.next().unwrap(), chars.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => panic!("escape {other:?} in {line}"),
            },
            _ => b,
        });
    }
    out
}

/// Every request there is.
pub fn requests() -> Vec<Sample> {
    let all: Vec<_> = ["accepted.txt", "refused.txt", "routed.txt"]
        .into_iter()
        .flat_map(load)
        .collect();
    assert!(all.len() >= 180, "only {} requests", all.len());
    all
}

/// Every response there is.
pub fn responses() -> Vec<Sample> {
    let all: Vec<_> = ["responses-accepted.txt", "responses-refused.txt"]
        .into_iter()
        .flat_map(load)
        .collect();
    assert!(all.len() >= 50, "only {} responses", all.len());
    all
}

/// How many mutations the tests look at; more by `H1_MUTATIONS`.
pub fn mutations() -> u64 {
    std::env::var("H1_MUTATIONS").map_or(4000, |n| n.parse().unwrap())
}

/// What attacks are made of.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b"_",
    b":",
    b",",
    b";",
    b"+",
    b"0x",
    b"0",
    b"#",
    b"?",
    b"<",
    b"chunked",
    b" chunked",
    b"identity",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n",
    b"Host: a\r\n",
    b"Host: b\r\n",
    b"X_Y: z\r\n",
    b"X: a\r\n b\r\n",
    b"0\r\n\r\n",
    b"3\r\nabc\r\n",
    b"\r\n\r\n",
    b"http://",
    b"http://b",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"GET /s HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// splitmix64: the same numbers everywhere.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// One of `samples` with a few changes.
pub fn mutated(samples: &[Sample], seed: u64) -> Vec<u8> {
    let rng = &mut Rng(seed);
    // The accepted ones come first in the list: more of them, so that both sides are looked at.
    let among = [samples.len() / 3, samples.len() / 3, samples.len()][rng.below(3)];
    let mut bytes = samples[rng.below(among)].bytes.clone();
    for _ in 0..=rng.below(2) {
        let at = rng.below(bytes.len() + 1);
        let until = (at + rng.below(8)).min(bytes.len());
        match rng.below(6) {
            0 => drop(bytes.splice(at..at, PIECES[rng.below(PIECES.len())].iter().copied())),
            1 => drop(bytes.splice(at..until, PIECES[rng.below(PIECES.len())].iter().copied())),
            2 => drop(bytes.drain(at..until)),
            3 if at < bytes.len() => bytes[at] = rng.next() as u8,
            4 => {
                // A whole line where another begins.
                let starts: Vec<_> = (0..bytes.len()).filter(|i| bytes[..*i].ends_with(b"\r\n")).collect();
                if !starts.is_empty() {
                    let at = starts[rng.below(starts.len())];
                    let lines: Vec<_> = PIECES.iter().filter(|p| p.len() > 4 && p.ends_with(b"\r\n")).collect();
                    let line = lines[rng.below(lines.len())];
                    bytes.splice(at..at, line.iter().copied());
                }
            }
            _ => {
                let other = &samples[rng.below(samples.len())].bytes;
                let from = rng.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
        if bytes.is_empty() {
            bytes.push(b'G');
        }
    }
    bytes
}

#[test]
fn the_folder_holds_what_the_tests_think_it_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/http1");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let read = [
        "accepted.txt",
        "refused.txt",
        "responses-accepted.txt",
        "responses-refused.txt",
        "routed.txt",
    ];
    assert_eq!(files, read);
    assert!(requests().len() + responses().len() >= 230);
    let changed = (0..100).filter(|seed| {
        let bytes = mutated(&requests(), *seed);
        requests().iter().all(|sample| sample.bytes != bytes)
    });
    assert!(changed.count() > 90);
}
