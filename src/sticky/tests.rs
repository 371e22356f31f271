//! Tests of cookies: who is known by them, for how long, and who is let in.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::pairs::cookies;
use crate::endpoint::duty::By;
use crate::net::addr::{DialAddr, EndpointAddr};
use crate::telemetry::series::EjectReason;

const NOW: u32 = 1_700_000_000;
const OLD: &str = "an old secret of more than 32 bytes.";
const NEW: &str = "a new secret of more than 32 bytes..";

fn spec(secrets: &[&str]) -> Spec {
    Spec {
        cookie: "at".into(),
        keys: secrets.iter().map(|secret| Key::new(secret)).collect(),
        path: "/".into(),
        domain: None,
        max_age: None,
        same_site: SameSite::Lax,
        secure: None,
        http_only: true,
    }
}

fn endpoint(id: u32) -> Arc<State> {
    let addr = std::net::SocketAddr::from(([10, 0, 0, id as u8], 80));
    Arc::new(State::new(
        id,
        DialAddr::Ip(addr),
        EndpointAddr::Ip(addr),
        Health::Up,
        1,
    ))
}

fn sticky(spec: &Spec, endpoints: &[Arc<State>]) -> Sticky {
    let sticky = Sticky::new(spec, &"u".into());
    sticky.set_members(endpoints.iter());
    sticky
}

/// The cookie as the client sends it back.
fn pair(sticky: &Sticky, endpoint: u32, at: u32) -> String {
    let field = sticky.set_cookie(endpoint, at, false).unwrap();
    field.split_once(';').unwrap().0.to_owned()
}

fn look(sticky: &Sticky, field: &str, now: u32) -> Shown {
    sticky.look(cookies([field.as_bytes()].into_iter()), now)
}

#[track_caller]
fn bound(shown: Shown) -> Bound {
    match shown {
        Shown::Bound(bound) => bound,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_comes_back_to_its_endpoint_at_every_instance() {
    let endpoints: Vec<_> = (1..4).map(endpoint).collect();
    let first = sticky(&spec(&[NEW]), &endpoints);
    let cookie = pair(&first, 2, NOW);
    // Another process, with its own ids, in another order.
    let others = [2, 9, 1].map(|n| {
        let addr = std::net::SocketAddr::from(([10, 0, 0, n], 80));
        let id = u32::from(n) + 40;
        Arc::new(State::new(
            id,
            DialAddr::Ip(addr),
            EndpointAddr::Ip(addr),
            Health::Up,
            1,
        ))
    });
    let second = sticky(&spec(&[NEW]), &others);
    let bound = bound(look(&second, &format!("a=b; {cookie}; c"), NOW + 1));
    assert!(!bound.renew);
    assert_eq!(second.endpoint(bound, &[]).unwrap().id, 42);
    assert!(second.is_at(bound, 42) && !second.is_at(bound, 41));
    assert!(second.endpoint(bound, &[42]).is_none(), "it was tried");
    assert!(second.set_cookie(2, NOW, false).is_none(), "nobody here has this id");
    // Another upstream's endpoint is not this one's, even if the address is the same.
    let other = Sticky::new(&spec(&[NEW]), &"v".into());
    other.set_members(others.iter());
    assert_eq!(other.place(bound), Place::Gone);
}

#[test]
fn whoever_takes_its_clients_requests_keeps_them() {
    let endpoints: Vec<_> = (1..4).map(endpoint).collect();
    let sticky = sticky(&spec(&[NEW]), &endpoints);
    let bound = bound(look(&sticky, &pair(&sticky, 1, NOW), NOW));
    let state = &endpoints[0];
    state.orders.set_duty(By::Operator, Duty::Draining);
    assert_eq!(sticky.place(bound), Place::Open);
    state.orders.set_duty(By::Operator, Duty::Disabled);
    assert_eq!(sticky.place(bound), Place::Closed);
    state.orders.set_duty(By::Operator, Duty::Active);
    state.set_health(Health::Down);
    assert!(sticky.endpoint(bound, &[]).is_none());
    state.set_health(Health::Checking);
    assert!(sticky.endpoint(bound, &[]).is_some());
    state
        .streak
        .eject(EjectReason::Consecutive5xx, Duration::from_secs(9), 1);
    assert_eq!(sticky.place(bound), Place::Closed);
    sticky.set_members(endpoints[1..].iter());
    assert_eq!(sticky.place(bound), Place::Gone);
    assert!(sticky.endpoint(bound, &[]).is_none() && !sticky.is_at(bound, 1));
}

#[test]
fn secrets_are_replaced_without_losing_anybody() {
    let endpoints = [endpoint(1), endpoint(2)];
    let before = sticky(&spec(&[OLD]), &endpoints);
    let cookie = pair(&before, 2, NOW);
    let both = sticky(&spec(&[NEW, OLD]), &endpoints);
    let kept = bound(look(&both, &cookie, NOW));
    assert!(kept.renew && both.is_at(kept, 2));
    let renewed = pair(&both, 2, NOW);
    assert_ne!(renewed, cookie);
    let after = sticky(&spec(&[NEW]), &endpoints);
    assert_eq!(look(&after, &cookie, NOW), Shown::Invalid);
    let kept = bound(look(&after, &renewed, NOW));
    assert!(!kept.renew && after.is_at(kept, 2));
    // Instances that still have the old one first take what the others have written.
    let behind = sticky(&spec(&[OLD, NEW]), &endpoints);
    assert!(behind.is_at(bound(look(&behind, &renewed, NOW)), 2));
}

#[test]
fn lifetimes_end_here_too_and_are_renewed_at_half() {
    let mut spec = spec(&[NEW]);
    let forever = sticky(&spec, &[endpoint(1)]);
    let cookie = pair(&forever, 1, NOW);
    assert!(!bound(look(&forever, &cookie, u32::MAX)).renew);
    spec.max_age = Some(Duration::from_secs(100));
    let sticky = sticky(&spec, &[endpoint(1)]);
    let renews = |after: i64| bound(look(&sticky, &cookie, (i64::from(NOW) + after) as u32)).renew;
    assert!(!renews(0) && !renews(50) && renews(51) && renews(99));
    assert!(!renews(-1000), "another instance's clock is ahead");
    assert_eq!(look(&sticky, &cookie, NOW + 100), Shown::Expired);
}

#[test]
fn of_several_cookies_the_first_good_one_counts() {
    let sticky = sticky(&spec(&[NEW]), &[endpoint(1)]);
    let good = pair(&sticky, 1, NOW);
    assert_eq!(look(&sticky, "", NOW), Shown::Nothing);
    assert_eq!(look(&sticky, &good.replace("at=", "AT="), NOW), Shown::Nothing);
    assert_eq!(look(&sticky, "at=", NOW), Shown::Invalid);
    bound(look(&sticky, &format!("at=x; at=; {good}"), NOW));
    // What costs time is bounded.
    assert_eq!(
        look(&sticky, &format!("{}{good}", "at=x; ".repeat(MOST_COOKIES)), NOW),
        Shown::Invalid
    );
}

/// As a request to a split asks them one after the other.
#[test]
fn a_cookie_is_read_once_for_all_who_read_it_alike() {
    let of = |spec: &Spec, upstream: &str| {
        let sticky = Sticky::new(spec, &upstream.into());
        sticky.set_members([endpoint(1)].iter());
        sticky
    };
    let (one, two) = (of(&spec(&[NEW]), "one"), of(&spec(&[NEW]), "two"));
    let field = pair(&two, 1, NOW);
    let seen = one.see(cookies([field.as_bytes()].into_iter()), NOW, None);
    assert_eq!(one.place(bound(seen.shown)), Place::Gone);
    let looked = std::cell::Cell::new(false);
    let again = || {
        looked.set(false);
        cookies([field.as_bytes()].into_iter()).inspect(|_| looked.set(true))
    };
    let same = two.see(again(), NOW, Some(seen));
    assert_eq!((two.place(bound(same.shown)), looked.get()), (Place::Open, false));
    // Another name, other secrets, another lifetime: it may say something else there.
    for other in [
        Spec {
            cookie: "other".into(),
            ..spec(&[NEW])
        },
        spec(&[OLD]),
        spec(&[OLD, NEW]),
        Spec {
            max_age: Some(Duration::from_secs(60)),
            ..spec(&[NEW])
        },
    ] {
        let other = of(&other, "two");
        assert_ne!(other.see(again(), NOW + 45, Some(seen)), seen);
        assert!(looked.get());
    }
}

#[test]
fn attributes_are_those_that_were_asked_for() {
    let plain = sticky(&spec(&[NEW]), &[endpoint(1)]);
    let behind = |sticky: &Sticky, https| {
        let field = sticky.set_cookie(1, NOW, https).unwrap();
        let (pair, attributes) = field.split_once("; ").unwrap();
        assert!(pair.starts_with("at=") && pair.len() == 3 + token::LEN);
        attributes.to_owned()
    };
    assert_eq!(behind(&plain, false), "Path=/; SameSite=Lax; HttpOnly");
    assert_eq!(behind(&plain, true), "Path=/; SameSite=Lax; HttpOnly; Secure");
    let spec = Spec {
        path: "/shop".into(),
        domain: Some("shop.example".into()),
        max_age: Some(Duration::from_secs(3600)),
        same_site: SameSite::None,
        secure: Some(true),
        http_only: false,
        ..spec(&[NEW])
    };
    assert_eq!(
        behind(&sticky(&spec, &[endpoint(1)]), false),
        "Path=/shop; Domain=shop.example; Max-Age=3600; SameSite=None; Secure"
    );
}

proptest! {
    /// Whatever a client sends, it is its own cookie or none.
    #[test]
    fn no_text_binds_that_was_not_written_here(field in proptest::collection::vec(any::<u8>(), 0..200)) {
        let sticky = sticky(&spec(&[NEW, OLD]), &[endpoint(1)]);
        let with_name = [b"at=", field.as_slice()].concat();
        for field in [&field, &with_name] {
            let shown = sticky.look(cookies([field.as_slice()].into_iter()), NOW);
            prop_assert!(!matches!(shown, Shown::Bound(_)));
        }
    }
}
