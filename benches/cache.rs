//! The figures of docs/caching.md: hit ratios by policy on traces with scans, and what a small entry costs beside its
//! bytes. `cargo bench --bench cache`, with `ratio` or `memory` for one of them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use evenkeel::base::rng::Rng;
use evenkeel::cache::directives::ForResponse;
use evenkeel::cache::entry::{Body, Entry, Meta};
use evenkeel::cache::freshness::{Defaults, Freshness, Moment};
use evenkeel::cache::head::Head;
use evenkeel::cache::key::Key;
use evenkeel::cache::store::{Found, Store};
use evenkeel::fields::Fields;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Things there are to ask for.
const THINGS: usize = 1_000_000;
const REQUESTS: usize = 3_000_000;
/// So often somebody asks for this many things once, one after the other: a crawler, a backup.
const SCAN_EVERY: usize = 200_000;
const SCAN: usize = 40_000;

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wants = |name| wanted.as_deref().is_none_or(|wanted| wanted == name);
    if wants("ratio") {
        ratios();
    }
    if wants("memory") {
        memory();
    }
}

/// What is asked for; scans are things beyond those that are asked for again.
fn trace(exponent: f64, scans: bool) -> Vec<u32> {
    let mut rng = Rng::new(1);
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=THINGS)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut trace = Vec::new();
    let mut beyond = THINGS as u32;
    for n in 0..REQUESTS {
        let at = rng.unit() * sum;
        trace.push(sums.partition_point(|sum| *sum < at) as u32);
        if scans && n % SCAN_EVERY == SCAN_EVERY / 2 {
            trace.extend(beyond..beyond + SCAN as u32);
            beyond += SCAN as u32;
        }
    }
    trace
}

/// Hits of what is not a scan, in percent, after the first quarter.
fn ratio(trace: &[u32], mut is_hit: impl FnMut(u32) -> bool) -> f64 {
    let (mut hits, mut all) = (0, 0);
    for (n, thing) in trace.iter().enumerate() {
        let hit = is_hit(*thing);
        if n > trace.len() / 4 && (*thing as usize) < THINGS {
            all += 1;
            hits += usize::from(hit);
        }
    }
    100.0 * hits as f64 / all as f64
}

fn ratios() {
    println!("| trace | room for | LRU | TinyLFU (moka) | evenkeel |");
    println!("|---|---|---|---|---|");
    for (exponent, scans) in [(0.9, false), (0.9, true), (1.1, false), (1.1, true)] {
        let trace = trace(exponent, scans);
        for room in [1_000, 10_000, 100_000] {
            let lru = {
                let mut lru = Lru::new(room);
                ratio(&trace, |thing| lru.is_hit(thing))
            };
            let moka = {
                let moka = moka::sync::Cache::new(room as u64);
                ratio(&trace, |thing| {
                    let hit = moka.get(&thing).is_some();
                    if !hit {
                        moka.insert(thing, ());
                    }
                    // It does by and by what it puts off: here everything comes at once.
                    moka.run_pending_tasks();
                    hit
                })
            };
            let own = own(&trace, room);
            let with = if scans { ", scans" } else { "" };
            println!("| Zipf({exponent}){with} | {room} | {lru:.1} | {moka:.1} | {own:.1} |");
        }
    }
}

/// The store that requests are answered from.
fn own(trace: &[u32], room: usize) -> f64 {
    let key = |thing: u32| Key::of(false, "a", b"a", &format!("/{thing:08}"), None).unwrap_or_default();
    let body = Bytes::from(vec![0; 1000]);
    let weight = entry(&body).weight(key(0).text.len());
    // An eighth is for what is being fetched.
    let store = Store::new(weight * room as u64 * 8 / 7);
    let request = Fields::default();
    let meta = entry(&body);
    ratio(trace, |thing| {
        let mut key = key(thing);
        let hit = matches!(store.find(&mut key, &request, 0), Found::Entry(..));
        if !hit {
            store.insert(&key, Arc::new(meta.with(meta.meta.clone())));
        }
        hit
    })
}

fn entry(body: &Bytes) -> Entry {
    let mut fields = Fields::default();
    for (name, value) in [
        ("cache-control", "max-age=1000"),
        ("content-type", "text/html; charset=utf-8"),
        ("etag", "\"5f3a9c0b-1d2e\""),
    ] {
        fields.append_text(name, value.as_bytes());
    }
    let defaults = Defaults {
        heuristic: None,
        stale_if_error: 0,
        stale_while_revalidate: 0,
    };
    let at = Moment {
        clock: 0,
        wall: 0,
        delay: 0,
    };
    let (cc, _) = ForResponse::read(&fields, &[]);
    let meta = Meta {
        status: 200,
        freshness: Freshness::of(200, &fields, &cc, false, at, &defaults),
        stamp: 0,
        tags: None,
        head: Head::store(&fields, &[], false, "Sun, 06 Nov 1994 08:49:37 GMT", 16 << 10).unwrap_or_default(),
    };
    Entry::of(meta, Body::of(vec![Bytes::copy_from_slice(body)]))
}

/// A million small entries, each read once: what they cost beside key, head and body.
fn memory() {
    const ENTRIES: u64 = 1_000_000;
    let store = Store::new(4 << 30);
    let body = Bytes::from_static(&[b'x'; 64]);
    let before = resident();
    let mut told = 0;
    for n in 0..ENTRIES {
        let mut key =
            Key::of(false, "shop.example", b"shop.example", &format!("/products/{n}"), None).unwrap_or_default();
        let entry = entry(&body);
        told += (key.text.len() + entry.meta.head.len()) as u64 + entry.body.length();
        store.insert(&key, Arc::new(entry));
        // As a client is answered: parts of it are handed out, and given back.
        if let Found::Entry(entry, _) = store.find(&mut key, &Fields::default(), 0) {
            drop((entry.meta.head.fields(), entry.body.clone()));
        }
    }
    let taken = resident() - before;
    println!(
        "{ENTRIES} entries: {} bytes each, of them {} key, head and body; {} beside these; the store counts {}",
        taken / ENTRIES,
        told / ENTRIES,
        (taken - told) / ENTRIES,
        store.bytes() / ENTRIES,
    );
    assert_eq!(store.len() as u64, ENTRIES);
}

/// Bytes of memory of this process.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// The oldest goes.
struct Lru {
    room: usize,
    /// Where each stands.
    places: HashMap<u32, usize>,
    /// What stands there, with the place before and the place behind.
    list: Vec<(u32, usize, usize)>,
}

/// Before the first and behind the last.
const END: usize = 0;

impl Lru {
    fn new(room: usize) -> Self {
        Self {
            room,
            places: HashMap::new(),
            list: vec![(0, END, END)],
        }
    }

    fn is_hit(&mut self, thing: u32) -> bool {
        if let Some(&place) = self.places.get(&thing) {
            self.take_out(place);
            self.put_first(place);
            return true;
        }
        let place = match self.places.len() < self.room {
            true => {
                self.list.push((thing, END, END));
                self.list.len() - 1
            }
            false => {
                let last = self.list[END].1;
                self.take_out(last);
                self.places.remove(&self.list[last].0);
                self.list[last].0 = thing;
                last
            }
        };
        self.put_first(place);
        self.places.insert(thing, place);
        false
    }

    fn take_out(&mut self, place: usize) {
        let (_, before, behind) = self.list[place];
        self.list[before].2 = behind;
        self.list[behind].1 = before;
    }

    fn put_first(&mut self, place: usize) {
        let first = self.list[END].2;
        (self.list[place].1, self.list[place].2) = (END, first);
        self.list[END].2 = place;
        self.list[first].1 = place;
    }
}
