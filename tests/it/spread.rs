//! Priorities, zones, slow start, panic and subsets over real sockets: who gets requests before an algorithm picks.

use crate::harness::{Client, Origin, Proxy, eventually};

fn config(server: &str, upstream: &str) -> String {
    format!(
        r#"
        [server]
        {server}
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        [[routes]]
        upstream = "u"
        [upstreams.u]
        balance = "random"
        {upstream}
        "#
    )
}

const HEALTH: &str = "health = { tcp = true, interval = \"50ms\", fall = 1 }";

/// How many of `n` requests `origin` gets; all are answered.
fn share(proxy: &Proxy, origin: &Origin, n: usize) -> usize {
    let before = origin.seen().len();
    let mut client = Client::connect(proxy.addr("web"));
    (0..n).for_each(|_| assert_eq!(client.get("/").status, 200));
    origin.seen().len() - before
}

#[test]
fn the_next_priority_gets_what_the_first_cannot_take() {
    let (first, next, nobody) = (Origin::named("first"), Origin::named("next"), Origin::nobody());
    let endpoints = format!(
        "endpoints = [\"{}\", \"{nobody}\", {{ address = \"{}\", priority = 1 }}]",
        first.addr, next.addr
    );
    let proxy = Proxy::start(&config("workers = 1", &format!("{endpoints}\n{HEALTH}")));
    proxy.wait_for("endpoint down");
    // Half of the first is up: 1.4 * 50 % stay.
    let spilled = share(&proxy, &next, 300);
    assert!((50..=130).contains(&spilled), "{spilled} of 300, 90 were due");
    first.kill();
    eventually("the first is down", || proxy.count("endpoint down") == 2);
    assert_eq!(share(&proxy, &next, 10), 10);
}

#[test]
fn requests_stay_in_their_zone() {
    let (here, there) = (Origin::named("here"), Origin::named("there"));
    let endpoints = format!(
        "endpoints = [{{ address = \"{}\", zone = \"a\" }}, {{ address = \"{}\", zone = \"b\" }}]",
        here.addr, there.addr
    );
    let upstream = format!("{endpoints}\n{HEALTH}");
    let proxy = Proxy::start(&config("zone = \"a\"", &upstream));
    eventually("both up", || proxy.metric("evenkeel_endpoint_up{upstream=\"u\"") == 2.0);
    assert_eq!(share(&proxy, &here, 40), 40);
    assert_eq!(proxy.status()["upstreams"][0]["endpoints"][1]["zone"], "b");
    here.kill();
    proxy.wait_for("endpoint down");
    assert_eq!(share(&proxy, &there, 10), 10);
}

#[test]
fn endpoints_that_come_later_or_come_back_start_slowly() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let of = |endpoints: &[&Origin]| {
        let list: Vec<_> = endpoints.iter().map(|origin| format!("\"{}\"", origin.addr)).collect();
        config(
            "workers = 1",
            &format!("endpoints = [{}]\nslow_start = \"1h\"", list.join(", ")),
        )
    };
    let proxy = Proxy::start(&of(&[&old, &new]));
    let fair = share(&proxy, &new, 200);
    assert!(fair > 60, "{fair} of 200 at the start");
    proxy.reload(&of(&[&old]));
    proxy.reload(&of(&[&old, &new]));
    // A tenth of the weight: one in eleven.
    let slow = share(&proxy, &new, 400);
    assert!((8..=80).contains(&slow), "{slow} of 400, 36 were due");
    // And goes on where it was after another reload.
    proxy.reload(&of(&[&new, &old]));
    let slow = share(&proxy, &new, 400);
    assert!((8..=80).contains(&slow), "{slow} of 400 after a reload");
    proxy.reload(&of(&[&old, &new]).replace("1h", "100ms"));
    let whole = || share(&proxy, &new, 100) > 30;
    eventually("it has its whole weight", whole);
}

#[test]
fn panic_uses_those_that_are_down() {
    // Fails its checks and answers all else.
    let ill = Origin::start(|seen, stream| match seen.path() {
        "/health" => crate::harness::reply(stream, 500, "ill"),
        _ => crate::harness::reply(stream, 200, "ill"),
    });
    let well = Origin::named("well");
    let of = |threshold: &str| {
        let (ill, well) = (ill.addr, well.addr);
        let health = "health = { http = \"/health\", interval = \"50ms\", fall = 1 }";
        let upstream = format!("endpoints = [\"{ill}\", \"{well}\"]\npanic_threshold = {threshold}\n{health}");
        config("workers = 1", &upstream)
    };
    let proxy = Proxy::start(&of("0.6"));
    proxy.wait_for("too few endpoints are up: all are used");
    assert_eq!(proxy.metric("evenkeel_upstream_panic{upstream=\"u\"}"), 1.0);
    let requests = |origin: &Origin| origin.seen().iter().filter(|seen| seen.path() == "/").count();
    share(&proxy, &well, 100);
    assert!(requests(&ill) > 20);
    proxy.reload(&of("0.5"));
    let before = requests(&ill);
    share(&proxy, &well, 20);
    assert_eq!(requests(&ill), before);
    assert_eq!(proxy.status()["upstreams"][0]["panic"], false);
}

#[test]
fn a_worker_uses_its_subset_alone() {
    let origins = ["a", "b", "c", "d"].map(Origin::named);
    let list: Vec<_> = origins.iter().map(|origin| format!("\"{}\"", origin.addr)).collect();
    let upstream = format!("endpoints = [{}]\nsubset = 2", list.join(", "));
    let proxy = Proxy::start(&config("workers = 1", &upstream));
    share(&proxy, &origins[0], 100);
    assert_eq!(origins.iter().filter(|origin| !origin.seen().is_empty()).count(), 2);
}
