//! The store: bounded, resistant to scans, and the same as a naive model.

use std::collections::HashMap;

use bytes::Bytes;
use http::HeaderName;
use proptest::prelude::*;

use super::*;
use crate::cache::directives::ForResponse;
use crate::cache::entry::{Body, Meta};
use crate::cache::freshness::{Defaults, Moment};
use crate::cache::head::Head;

fn fields(lines: &[(&'static str, &str)]) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in lines {
        fields.append_text(name, value.as_bytes());
    }
    fields
}

fn entry(store: &Store, tag: &str, body: &[u8]) -> Arc<Entry> {
    let fields = fields(&[("cache-control", "max-age=1000"), ("cache-tag", tag)]);
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
        stamp: store.stamp(),
        tags: store.tags.of(&fields, 0).unwrap(),
        head: Head::store(&fields, &[], false, "", 1000).unwrap(),
    };
    Arc::new(Entry::of(meta, Body::of(vec![Bytes::copy_from_slice(body)])))
}

fn key(path: &str) -> Key {
    Key::of(false, "a", b"a", path, None).unwrap()
}

#[test]
fn a_megabyte_is_a_megabyte_however_small_the_entries() {
    let store = Store::new(1 << 20);
    for n in 0..20_000 {
        store.insert(&key(&format!("/{n}")), entry(&store, "", b"x"));
    }
    assert!(
        store.bytes() <= 1 << 20 && store.len() > 1000,
        "{} in {}",
        store.bytes(),
        store.len()
    );
    assert!(store.evictions() > 10_000);
    store.resize(1 << 18);
    assert!(store.bytes() <= 1 << 18);
    assert!(!store.insert_and_find(&key("/large"), &vec![0; 1 << 20]));
}

impl Store {
    fn insert_and_find(&self, key: &Key, body: &[u8]) -> bool {
        self.insert(key, entry(self, "", body));
        matches!(self.find(&mut key.clone(), &Fields::default(), 0), Found::Entry(..))
    }
}

#[test]
fn a_hot_set_survives_a_scan() {
    let store = Store::new(1 << 20);
    let body = vec![0; 1000];
    for round in 0..20 {
        for n in 0..100 {
            let mut hot = key(&format!("/hot/{n}"));
            if !matches!(store.find(&mut hot, &Fields::default(), 0), Found::Entry(..)) {
                store.insert(&hot, entry(&store, "", &body));
            }
        }
        for n in 0..1000 {
            store.insert(&key(&format!("/scan/{round}/{n}")), entry(&store, "", &body));
        }
    }
    let there = (0..100).filter(|n| store.contains(&key(&format!("/hot/{n}")))).count();
    assert!(there > 90, "{there} of 100");
}

/// What may be done to a store.
#[derive(Debug, Clone)]
enum Step {
    Put { path: u8, vary: u8, lang: u8, tag: u8 },
    Get { path: u8, lang: u8 },
    Purge { path: u8, soft: bool },
    PurgeTag { tag: u8, soft: bool },
    PurgePrefix { path: u8 },
    PurgeAll { soft: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..3, 0u8..3, 0u8..3, 0u8..3).prop_map(|(path, vary, lang, tag)| Step::Put { path, vary, lang, tag }),
        6 => (0u8..3, 0u8..3).prop_map(|(path, lang)| Step::Get { path, lang }),
        1 => (0u8..3, any::<bool>()).prop_map(|(path, soft)| Step::Purge { path, soft }),
        1 => (0u8..3, any::<bool>()).prop_map(|(tag, soft)| Step::PurgeTag { tag, soft }),
        1 => (0u8..3).prop_map(|path| Step::PurgePrefix { path }),
        1 => any::<bool>().prop_map(|soft| Step::PurgeAll { soft }),
    ];
    prop::collection::vec(step, 1..60)
}

/// A response of the naive model: its number, language, tag, and whether it is fresh.
#[derive(Debug, Clone)]
struct Kept {
    number: u32,
    lang: u8,
    tag: u8,
    fresh: bool,
}

proptest! {
    /// The store against a list of everything that was ever stored for a path: what is found is the newest for its
    /// variant, never another's, never what was purged, and stale after a soft purge.
    #[test]
    fn agrees_with_a_naive_model(steps in steps()) {
        let store = Store::new(64 << 20);
        let mut model: HashMap<u8, (u8, Vec<Kept>)> = HashMap::new();
        let langs = ["en", "de", "fr"];
        let vary_of = |n: u8| -> Vary {
            match n {
                0 => [].into(),
                1 => [HeaderName::from_static("x-lang")].into(),
                _ => [HeaderName::from_static("x-lang"), HeaderName::from_static("x-other")].into(),
            }
        };
        let request = |lang: u8| fields(&[("x-lang", langs[usize::from(lang)])]);
        let path_of = |path: u8| format!("/{path}/x");
        let tag_of = |tag: u8| format!("t{tag}");
        for (number, step) in steps.into_iter().enumerate() {
            let (number, now) = (number as u32, number as i64 + 1);
            match step {
                Step::Put { path, vary, lang, tag } => {
                    let mut at = key(&path_of(path));
                    store.place(&mut at, &vary_of(vary), &request(lang)).unwrap();
                    prop_assert!(store.insert(&at, entry(&store, &tag_of(tag), &number.to_be_bytes())));
                    let (by, kept) = model.entry(path).or_default();
                    // Another Vary: what was stored by the old one is out of reach.
                    if *by != vary || vary == 0 {
                        kept.clear();
                    }
                    *by = vary;
                    kept.retain(|k| k.lang != lang);
                    kept.push(Kept { number, lang, tag, fresh: true });
                }
                Step::Get { path, lang } => {
                    let found = match store.find(&mut key(&path_of(path)), &request(lang), now) {
                        Found::Entry(entry, freshness) => {
                            let text = entry.body.chunks().concat();
                            Some((u32::from_be_bytes(text.try_into().unwrap()), freshness.is_fresh(now)))
                        }
                        _ => None,
                    };
                    let expected = model.get(&path).and_then(|(vary, kept)| {
                        kept.iter().find(|k| *vary == 0 || k.lang == lang).map(|k| (k.number, k.fresh))
                    });
                    prop_assert_eq!(found, expected);
                }
                Step::Purge { path, soft } => {
                    store.purge(&key(&path_of(path)), soft, now);
                    if soft {
                        model.entry(path).or_default().1.iter_mut().for_each(|k| k.fresh = false);
                    } else {
                        model.remove(&path);
                    }
                }
                Step::PurgeTag { tag, soft } => {
                    let expected: usize = model.values().flat_map(|(_, kept)| kept).filter(|k| k.tag == tag).count();
                    let found = store.purge_tag(tag_of(tag).as_bytes(), soft, now);
                    // Those out of reach are counted until they are evicted.
                    prop_assert!(found >= expected, "{} of {}", found, expected);
                    for (_, kept) in model.values_mut() {
                        if soft {
                            kept.iter_mut().filter(|k| k.tag == tag).for_each(|k| k.fresh = false);
                        } else {
                            kept.retain(|k| k.tag != tag);
                        }
                    }
                }
                Step::PurgePrefix { path } => {
                    store.purge_prefix(format!("http://a/{path}/").as_bytes(), false, now, false);
                    model.remove(&path);
                }
                Step::PurgeAll { soft } => {
                    store.purge_all(soft, now);
                    if soft {
                        model.values_mut().flat_map(|(_, kept)| kept).for_each(|k| k.fresh = false);
                    } else {
                        model.values_mut().for_each(|(_, kept)| kept.clear());
                    }
                }
            }
        }
    }
}
