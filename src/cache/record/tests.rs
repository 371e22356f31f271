//! What was written is read again, and nothing else is.

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::fields::Fields;

fn head(lines: &[(String, String)]) -> Head {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(
            HeaderName::try_from(name).unwrap(),
            HeaderValue::try_from(value).unwrap(),
        );
    }
    Head::store(&Fields::from(&map), &[], true, "DATE", 1 << 14).unwrap()
}

prop_compose! {
    fn kept()(
        status in 200u16..600,
        lines in prop::collection::vec(("x-[a-z]{1,8}", "[ -~]{0,20}"), 0..4),
        times in any::<[i64; 2]>(),
        seconds in any::<[u32; 3]>(),
        flags in 0..=FLAGS,
        stamp in any::<u64>(),
        tags in prop::collection::vec("[a-z]{1,9}", 0..4),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4),
        large in prop::option::weighted(0.2, BLOCK - 2..2 * BLOCK + 2),
        part in any::<bool>(),
    ) -> Kept {
        let mut pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
        pieces.extend(large.map(|n| Bytes::from(vec![7; n])));
        let length = pieces.iter().map(|p| p.len() as u64).sum::<u64>();
        let lines: Vec<_> = lines.into_iter().map(|(n, v)| (n, v.trim().to_owned())).collect();
        Kept {
            status,
            head: head(&lines),
            freshness: Freshness {
                born: times[0],
                lifetime: seconds[0],
                stale_while_revalidate: seconds[1],
                stale_if_error: seconds[2],
                flags,
            },
            asked: times[1],
            stamp,
            tags: tags.iter().map(|tag| tag.as_bytes().into()).collect(),
            body: match part && length > 0 {
                true => Body::part((10, 9 + length), length + 20, pieces),
                false => Body::of(pieces),
            },
        }
    }
}

fn record() -> impl Strategy<Value = Record> {
    let names = prop::collection::btree_set("x-[a-z]{1,9}", 1..5);
    let varies = (names, any::<u64>()).prop_map(|(names, id)| Record::Varies {
        vary: names.iter().map(|name| name.parse().unwrap()).collect(),
        id,
    });
    prop_oneof![1 => varies, 3 => kept().prop_map(Record::Response)]
}

fn bytes(key: &[u8], record: &Record) -> Vec<u8> {
    let encoded = encode(key, record);
    [encoded.head, encoded.body.chunks().concat()].concat()
}

fn text(record: &Record) -> String {
    match record {
        Record::Varies { .. } => format!("{record:?}"),
        Record::Response(kept) => {
            let body = &kept.body;
            let rest = Record::Response(Kept {
                body: Body::of(Vec::new()),
                ..kept.clone()
            });
            format!(
                "{:?} {:?} {} {rest:?}",
                body.chunks().concat(),
                body.span(),
                body.length()
            )
        }
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(record in record(), key in prop::collection::vec(any::<u8>(), 1..40)) {
        let written = Bytes::from(bytes(&key, &record));
        prop_assert_eq!(text(&decode(&key, &written).unwrap()), text(&record));
        prop_assert_eq!(decode(b"another key that is longer than all of the others", &written).unwrap_err(), Refused("of another key"));
    }

    #[test]
    fn a_byte_that_is_another_is_refused(record in record(), at in any::<prop::sample::Index>(), by in 1..=255u8) {
        let mut written = bytes(b"key", &record);
        let at = at.index(written.len());
        written[at] ^= by;
        prop_assert!(decode(b"key", &written.into()).is_err());
    }

    #[test]
    fn what_is_cut_or_longer_is_refused(record in record(), at in any::<prop::sample::Index>(), more in 1..100usize) {
        let mut written = bytes(b"key", &record);
        let cut = written[..at.index(written.len())].to_vec();
        prop_assert!(decode(b"key", &cut.into()).is_err());
        written.resize(written.len() + more, 0);
        prop_assert!(decode(b"key", &written.into()).is_err());
    }

    #[test]
    fn anything_at_all_is_refused_and_takes_no_room(mut junk in prop::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
        if magic && junk.len() >= 8 {
            junk[..8].copy_from_slice(&MAGIC);
        }
        prop_assert!(decode(b"key", &junk.into()).is_err());
    }

    /// Even where whoever wrote it made the checksum fit.
    #[test]
    fn a_head_that_lies_does_no_harm(record in record(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let encoded = encode(b"key", &record);
        let mut head = encoded.head;
        let at = PRELUDE + at.index(head.len() - PRELUDE);
        head[at] = to;
        seal(&mut head, encoded.body.chunks().iter().map(|c| c.len() as u64).sum());
        let written = [head, encoded.body.chunks().concat()].concat();
        if let Ok(Record::Response(kept)) = decode(b"key", &written.into()) {
            let (first, last) = kept.body.span();
            prop_assert!(kept.body.is_whole() || (first <= last && last < kept.body.length()));
            let fields = kept.head.fields();
            for (name, value) in fields.iter() {
                prop_assert!(!name.is_empty() && !value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
            }
        }
    }
}

#[test]
fn blocks_of_a_body_are_checked_each_for_itself() {
    let body = Bytes::from(
        (0..3 * BLOCK as u32 / 4 + 5)
            .flat_map(u32::to_le_bytes)
            .collect::<Vec<u8>>(),
    );
    let mut kept = Kept {
        status: 200,
        head: head(&[]),
        freshness: Freshness {
            born: 0,
            lifetime: 0,
            stale_while_revalidate: 0,
            stale_if_error: 0,
            flags: 0,
        },
        asked: 0,
        stamp: 0,
        tags: Box::default(),
        body: Body::of(vec![body.clone()]),
    };
    let opened = open(b"key", &encode(b"key", &Record::Response(kept.clone())).head).unwrap();
    let sums = opened.body;
    assert_eq!(sums.length, body.len() as u64);
    for first in 0..4 {
        let rest = &body[first * BLOCK..];
        assert!(sums.fits(first, rest) && sums.fits(first, &rest[..rest.len().min(BLOCK)]));
        assert!(!sums.fits(first, &rest[..rest.len() - 1]) && !sums.fits(first + 1, rest));
    }
    // A part that claims to be the last one of the whole.
    kept.body = Body::part((5, 9), 10, vec![Bytes::from_static(b"56789")]);
    let written = bytes(b"key", &Record::Response(kept));
    assert!(matches!(decode(b"key", &written.into()), Ok(Record::Response(kept)) if kept.body.span() == (5, 9)));
}

#[test]
fn ages_hold_across_clocks_and_a_clock_set_back_makes_stale() {
    let before = Clocks {
        cache: 5_000,
        wall: 1_000_000,
    };
    let entry = Entry::of(
        Meta {
            status: 200,
            head: head(&[]),
            freshness: Freshness {
                born: 4_000,
                lifetime: 60,
                stale_while_revalidate: 0,
                stale_if_error: 9,
                flags: 0,
            },
            stamp: 3,
            tags: None,
        },
        Body::of(Vec::new()),
    );
    let kept = Kept::of(&entry, 4_500, before);
    assert_eq!((kept.freshness.born, kept.asked, kept.stamp), (999_000, 999_500, 3));
    let tags = Tags::new(1 << 20);
    let later = Clocks {
        cache: 10,
        wall: 1_010_000,
    };
    let again = kept.clone().entry(7, &tags, later).unwrap();
    assert_eq!((again.meta.freshness.age(10), again.meta.stamp), (11, 7));
    assert!(again.meta.freshness.is_fresh(10));
    let earlier = Clocks {
        cache: 10,
        wall: 900_000,
    };
    assert!(!kept.entry(7, &tags, earlier).unwrap().meta.freshness.is_fresh(10));
}
