//! Where endpoints come from, and that nothing which goes wrong there reaches a client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;

use crate::harness::consul::{Consul, Instance};
use crate::harness::dns::{Mood, NameServer};
use crate::harness::kubernetes::Kubernetes;
use crate::harness::{Client, Origin, Proxy, eventually, get};

fn config(upstream: &str) -> String {
    format!(
        r#"
        [server]
        workers = 1
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        [[routes]]
        upstream = "u"
        [upstreams.u]
        balance = "round_robin"
        {upstream}
        "#
    )
}

fn dns(server: &NameServer, more: &str) -> String {
    config(&format!(
        "name_servers = \"{}\"\nresolve_interval = \"1s\"\n{more}",
        server.addr
    ))
}

/// The addresses of the endpoints that take work, sorted.
fn endpoints(proxy: &Proxy) -> Vec<String> {
    let status = proxy.status();
    let all = status["upstreams"][0]["endpoints"].as_array().unwrap().iter();
    let all = all.filter(|e| e["duty"] == "active");
    let mut all: Vec<_> = all.map(|e| e["address"].as_str().unwrap().to_owned()).collect();
    all.sort();
    all
}

fn source(proxy: &Proxy) -> Value {
    proxy.status()["upstreams"][0]["sources"][0].clone()
}

/// Origins on one port: a name has an address, not a port.
fn origins(n: u8) -> (u16, Vec<Origin>) {
    loop {
        let first = Origin::at("127.0.0.1:0").unwrap();
        let port = first.addr.port();
        let others: Option<Vec<_>> = (2..=n).map(|i| Origin::at(&format!("127.0.0.{i}:{port}"))).collect();
        if let Some(others) = others {
            return (port, std::iter::once(first).chain(others).collect());
        }
    }
}

#[test]
fn every_address_of_a_name_is_an_endpoint_and_changes_come_without_a_reload() {
    let (port, _origins) = origins(3);
    let server = NameServer::start();
    server.addresses("app.test.", &["127.0.0.1", "127.0.0.2"]);
    let discovery = format!("discovery = {{ dns = \"app.test:{port}\" }}");
    let proxy = Proxy::start(&dns(&server, &discovery));
    assert_eq!(
        endpoints(&proxy),
        [format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}")]
    );
    let mut client = Client::connect(proxy.addr("web"));
    for _ in 0..4 {
        assert_eq!(client.get("/").status, 200);
    }
    let kept = format!("evenkeel_endpoint_attempts_total{{upstream=\"u\",endpoint=\"127.0.0.2:{port}\"");
    let attempts = proxy.metric(&(kept.clone() + ","));
    assert_eq!(attempts, 2.0);

    // Over TCP this time.
    server.mood(Mood::Truncates);
    server.addresses("app.test.", &["127.0.0.2", "127.0.0.3"]);
    let now = [format!("127.0.0.2:{port}"), format!("127.0.0.3:{port}")];
    eventually("the new addresses", || endpoints(&proxy) == now);
    assert_eq!(proxy.metric(&(kept + ",")), attempts, "what stays keeps its counters");
    assert_eq!(client.get("/").status, 200, "the same connection");
    let line = proxy.wait_for("endpoints changed");
    assert_eq!(
        (&line["new"], &line["gone"]),
        (&now[1].as_str().into(), &format!("127.0.0.1:{port}").into())
    );
    assert_eq!(proxy.metric("evenkeel_discovery_endpoints{upstream=\"u\"}"), 2.0);
    assert_eq!(
        proxy.metric("evenkeel_discovery_updates_total{upstream=\"u\",result=\"changed\"}"),
        2.0
    );
    assert_eq!(proxy.metric("evenkeel_config_generation"), 1.0);
    let source = source(&proxy);
    assert_eq!(
        (&source["kind"], &source["source"]),
        (&"dns".into(), &"app.test".into())
    );
    assert!(
        source["last_success"].is_string() && source["last_error"].is_null(),
        "{source}"
    );
}

#[test]
fn dns_cannot_take_the_service_down() {
    let (port, _origins) = origins(2);
    let server = NameServer::start();
    server.addresses("app.test.", &["127.0.0.1", "127.0.0.2"]);
    let health = "[upstreams.u.health]\ntcp = true\ninterval = \"50ms\"";
    let config = dns(&server, &format!("endpoints = [\"app.test:{port}\"]\n{health}"));
    let proxy = Proxy::start(&config);
    eventually("both are up", || proxy.metric("evenkeel_endpoint_up") == 2.0);

    let over = Arc::new(AtomicBool::new(false));
    let (web, stop) = (proxy.addr("web"), over.clone());
    let traffic = std::thread::spawn(move || {
        let mut answered = 0;
        while !stop.load(Relaxed) {
            let reply = get(web, "/");
            assert_eq!(reply.status, 200, "{}", reply.text());
            answered += 1;
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        answered
    });
    for mood in [Mood::Denies, Mood::Empty, Mood::Garbage, Mood::Fails, Mood::Silent] {
        let failed = || proxy.metric("evenkeel_discovery_updates_total{upstream=\"u\",result=\"failed\"}");
        let before = failed();
        server.mood(mood);
        // Denials are believed after the third.
        let times = if matches!(mood, Mood::Denies) { 4.0 } else { 1.0 };
        eventually("failures", || failed() >= before + times);
        assert_eq!(endpoints(&proxy).len(), 2, "{mood:?}");
        assert!(source(&proxy)["last_error"]["reason"].is_string(), "{mood:?}");
    }
    // A reload meanwhile loses nothing either.
    proxy.reload(&(config.clone() + "\n[listeners.more]\nbind = \"127.0.0.1:0\""));
    assert_eq!(endpoints(&proxy).len(), 2);
    server.mood(Mood::Honest);
    eventually("it answers again", || source(&proxy)["last_error"].is_null());
    over.store(true, Relaxed);
    assert!(traffic.join().expect("no client saw an error") > 0);
    assert_eq!(
        proxy.metric("evenkeel_requests_total"),
        proxy.metric("evenkeel_requests_total{listener=\"web\",route=\"route-1\",upstream=\"u\",code=\"200\"}")
    );
}

#[test]
fn a_name_that_does_not_resolve_stops_no_start_and_comes_later() {
    let (port, _origins) = origins(1);
    let server = NameServer::start();
    let proxy = Proxy::start(&dns(&server, &format!("endpoints = [\"late.test:{port}\"]")));
    assert_eq!(get(proxy.addr("web"), "/").status, 503);
    server.addresses("late.test.", &["127.0.0.1"]);
    eventually("the name resolves", || get(proxy.addr("web"), "/").status == 200);
}

#[test]
fn a_confirmed_denial_removes_those_that_are_down() {
    let (port, origins) = origins(2);
    let server = NameServer::start();
    server.addresses("app.test.", &["127.0.0.1", "127.0.0.2"]);
    let health = "[upstreams.u.health]\ntcp = true\ninterval = \"50ms\"\nfall = 1";
    let proxy = Proxy::start(&dns(&server, &format!("endpoints = [\"app.test:{port}\"]\n{health}")));
    eventually("both are up", || proxy.metric("evenkeel_endpoint_up") == 2.0);
    server.mood(Mood::Denies);
    origins[1].kill();
    eventually("it is gone", || endpoints(&proxy) == [format!("127.0.0.1:{port}")]);
    assert_eq!(get(proxy.addr("web"), "/").status, 200);
}

#[test]
fn a_failed_connection_asks_again_at_once() {
    let (port, origins) = origins(2);
    let server = NameServer::start();
    server.ttl(3600);
    server.addresses("app.test.", &["127.0.0.1"]);
    let upstream = format!(
        "name_servers = \"{}\"\nresolve_interval = \"1h\"\nendpoints = [\"app.test:{port}\"]",
        server.addr
    );
    let proxy = Proxy::start(&config(&upstream));
    assert_eq!(get(proxy.addr("web"), "/").status, 200);
    // A deployment: the name has moved, its old address answers no more.
    server.addresses("app.test.", &["127.0.0.2"]);
    origins[0].kill();
    eventually("the new address", || get(proxy.addr("web"), "/").status == 200);
    assert!(server.asked() < 20, "asked {} times", server.asked());
}

#[test]
fn srv_records_say_port_weight_and_priority() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let [a, b, c] = origins.each_ref().map(|origin| origin.addr.port());
    let server = NameServer::start();
    for (name, addr) in [
        ("a.test.", "127.0.0.1"),
        ("b.test.", "127.0.0.1"),
        ("c.test.", "127.0.0.1"),
    ] {
        server.addresses(name, &[addr]);
    }
    server.services(
        "_http._tcp.test.",
        &[(10, 3, a, "a.test."), (10, 1, b, "b.test."), (20, 1, c, "c.test.")],
    );
    let proxy = Proxy::start(&dns(&server, "discovery = { srv = \"_http._tcp.test\" }"));
    let mut client = Client::connect(proxy.addr("web"));
    let mut bodies: Vec<_> = (0..8).map(|_| client.get("/").text()).collect();
    bodies.sort();
    assert_eq!(bodies.concat(), "aaaaaabb");
    server.services("_http._tcp.test.", &[(20, 1, c, "c.test.")]);
    eventually("the last one serves", || client.get("/").text() == "c");
    // A denied service and names that fail leave it where it is.
    server.mood(Mood::Denies);
    eventually("failures", || source(&proxy)["updates"]["failed"].as_u64() >= Some(4));
    assert_eq!(client.get("/").text(), "c");
    assert_eq!(source(&proxy)["kind"], "srv");
}

#[test]
fn a_watched_file_is_followed_and_a_broken_one_changes_nothing() {
    let origins = ["a", "b"].map(Origin::named);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("endpoints.json");
    let swap = |text: String| {
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    swap(format!("[\"{}\"]", origins[0].addr));
    let settings = config("discovery = { file = \"endpoints.json\" }");
    let proxy = Proxy::start_in(dir, &settings);
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(client.get("/").text(), "a");

    swap("[\"10.0.0.1\"]".to_owned());
    eventually("it is told", || !source(&proxy)["last_error"].is_null());
    let reason = source(&proxy)["last_error"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("endpoint 1: `10.0.0.1` has no port"), "{reason}");
    proxy.wait("why", |line| line["reason"] == reason.as_str());
    assert_eq!(
        proxy.metric("evenkeel_discovery_updates_total{upstream=\"u\",result=\"failed\"}"),
        1.0
    );
    assert_eq!(client.get("/").text(), "a");
    std::fs::remove_file(&path).unwrap();
    eventually("it is missed", || {
        source(&proxy)["last_error"]["reason"] == "there is no such file"
    });
    proxy.reload(&(settings + "\nretries = 2"));
    assert_eq!(client.get("/").text(), "a", "a reload keeps what was found");

    swap(format!(
        "{{\"endpoints\": [{{\"address\": \"{}\", \"weight\": 2}}]}}",
        origins[1].addr
    ));
    eventually("the new one serves", || client.get("/").text() == "b");
    assert!(source(&proxy)["last_error"].is_null());
    swap("[]".to_owned());
    eventually("nobody, in so many words", || client.get("/").status == 503);
}

#[test]
fn a_reload_to_another_source_has_no_gap() {
    let origin = Origin::named("a");
    let server = NameServer::start();
    server.addresses("a.test.", &["127.0.0.1"]);
    server.services("_http._tcp.test.", &[(1, 1, origin.addr.port(), "a.test.")]);
    let srv = dns(&server, "discovery = { srv = \"_http._tcp.test\" }");
    let proxy = Proxy::start(&srv);
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(client.get("/").text(), "a");
    // There is no such file: what the other source found is used until there is.
    proxy.reload(&dns(&server, "discovery = { file = \"none.json\" }"));
    assert_eq!(client.get("/").text(), "a");
    assert_eq!(source(&proxy)["kind"], "file");
    proxy.reload_rejected(&dns(&server, "discovery = { file = \"none.txt\" }"));
    proxy.reload(&srv);
    eventually("the first source again", || source(&proxy)["kind"] == "srv");
    assert_eq!(client.get("/").text(), "a");
}

fn instance(origin: &Origin, status: &'static str, tags: &'static [&'static str]) -> Instance {
    Instance {
        addr: origin.addr,
        status,
        tags,
    }
}

#[test]
fn consul_is_followed_by_blocking_queries() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let [a, b, c] = &origins;
    let consul = Consul::start("secret");
    let v2 = &["v2"][..];
    consul.register(&[
        instance(a, "passing", v2),
        instance(b, "warning", v2),
        instance(c, "passing", &[]),
    ]);
    let discovery = format!(
        "discovery = {{ consul = \"{}\", service = \"web\", tag = \"v2\", datacenter = \"dc1\", token = \"secret\" }}",
        consul.url()
    );
    let proxy = Proxy::start(&config(&discovery));
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!([client.get("/").text(), client.get("/").text()].concat(), "aa");
    eventually("it waits for news", || {
        consul.asked().last().unwrap().contains("&index=11&wait=55s")
    });
    assert!(
        consul.asked()[0].contains("passing=1&tag=v2&dc=dc1"),
        "{:?}",
        consul.asked()
    );
    consul.register(&[instance(b, "passing", v2)]);
    eventually("the change has come", || client.get("/").text() == "b");

    consul.break_with(500, "No cluster leader");
    eventually("it is told", || {
        source(&proxy)["last_error"]["reason"] == "status 500: No cluster leader"
    });
    consul.break_with(200, "[{\"Node\": 7");
    eventually("garbage", || {
        let reason = source(&proxy)["last_error"]["reason"].clone();
        reason.as_str().is_some_and(|reason| reason.contains("X-Consul-Index"))
    });
    assert_eq!(client.get("/").text(), "b", "the last good list is kept");
    consul.register(&[instance(a, "passing", v2)]);
    eventually("it answers again", || client.get("/").text() == "a");
    // Consul begins anew: its index goes backwards.
    consul.restart(&[instance(b, "passing", v2)]);
    eventually("its new state", || client.get("/").text() == "b");
    consul.register(&[instance(c, "passing", v2)]);
    eventually("and the next one", || client.get("/").text() == "c");
    assert!(source(&proxy)["last_error"].is_null());
    consul.register(&[]);
    eventually("nobody passes", || client.get("/").status == 503);
}

#[test]
fn consul_that_refuses_the_token_stops_no_start() {
    let origin = Origin::named("a");
    let consul = Consul::start("secret");
    consul.register(&[instance(&origin, "warning", &[])]);
    let discovery = |token: &str| {
        format!(
            "discovery = {{ consul = \"{}\", service = \"web\", only_passing = false, token = \"{token}\" }}",
            consul.url()
        )
    };
    let proxy = Proxy::start(&config(&discovery("wrong")));
    assert_eq!(get(proxy.addr("web"), "/").status, 503);
    let reason = source(&proxy)["last_error"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("status 403: Permission denied"), "{reason}");
    proxy.reload(&config(&discovery("secret")));
    assert_eq!(
        get(proxy.addr("web"), "/").text(),
        "a",
        "a reload waits for the first answer"
    );
}

#[test]
fn kubernetes_is_listed_and_watched() {
    let (port, _origins) = origins(4);
    let at = |n: u8| std::net::SocketAddr::from(([127, 0, 0, n], port));
    let ready = serde_json::json!({"ready": true, "serving": true, "terminating": false});
    let draining = serde_json::json!({"ready": false, "serving": true, "terminating": true});
    let api = Kubernetes::start("first");
    api.put("web-a", &[(at(1), ready.clone()), (at(2), draining.clone())]);
    api.put("web-b", &[(at(3), serde_json::json!({}))]);
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().to_owned();
    std::fs::write(files.join("ca.crt"), &api.identity.cert).unwrap();
    std::fs::write(files.join("token"), "first\n").unwrap();
    let settings = config(&format!(
        "discovery = {{ kubernetes = {{ namespace = \"shop\", service = \"web\", port = \"http\", api = \"{}\", \
         token_file = \"token\", ca_file = \"ca.crt\" }} }}",
        api.url()
    ));
    let proxy = Proxy::start_in(dir, &settings);
    let are = |list: &[u8]| {
        let expected: Vec<_> = list.iter().map(|n| at(*n).to_string()).collect();
        endpoints(&proxy) == expected
    };
    assert!(are(&[1, 3]), "{:?}", endpoints(&proxy));
    let all = proxy.status()["upstreams"][0]["endpoints"].clone();
    let second = all
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["address"] == at(2).to_string().as_str());
    assert_eq!(second.unwrap()["duty_by"], serde_json::json!(["discovery"]));
    assert_eq!(get(proxy.addr("web"), "/").status, 200);
    assert_eq!(api.begun().0, 2, "a list of two pages");

    eventually("a watch", || api.begun().1 == 1);
    api.put("web-b", &[(at(3), draining.clone()), (at(4), ready.clone())]);
    eventually("the change", || are(&[1, 4]));
    api.delete("web-a");
    eventually("the end of a slice", || are(&[4]));
    api.put("web-b", &[(at(3), draining.clone()), (at(4), draining)]);
    eventually("those that drain are better than none", || are(&[3, 4]));

    // A watch that ends is taken up where it was, and the list is not asked for again.
    api.bookmark();
    api.cut();
    eventually("the next watch", || api.begun().1 == 2);
    assert_eq!(api.begun().0, 2);
    // What is forgotten is listed again.
    api.compact();
    api.put("web-b", &[(at(4), ready.clone())]);
    eventually("the list again", || are(&[4]) && api.begun().0 > 2);
    assert!(source(&proxy)["last_error"].is_null(), "{}", source(&proxy));

    // Another token, which is in the file a little later.
    api.set_token("second");
    eventually("it is refused", || {
        let reason = source(&proxy)["last_error"]["reason"].clone();
        reason.as_str().is_some_and(|reason| reason.starts_with("status 401"))
    });
    assert!(are(&[4]));
    std::fs::write(files.join("token"), "second\n").unwrap();
    api.put("web-b", &[(at(1), ready)]);
    eventually("the new token works", || are(&[1]));
    assert!(source(&proxy)["last_error"].is_null());
}

#[test]
fn one_per_name_is_reached_by_whichever_address_answers() {
    let (port, origins) = origins(3);
    origins[0].kill();
    let server = NameServer::start();
    server.addresses("app.test.", &["127.0.0.1", "127.0.0.2", "::1"]);
    let upstream = format!("discovery = {{ dns = \"app.test:{port}\" }}\none_per_name = true\nhealth.tcp = true");
    let proxy = Proxy::start(&dns(&server, &upstream));
    let name = format!("app.test:{port}");
    assert_eq!(endpoints(&proxy).join(" "), name);
    assert_eq!(get(proxy.addr("web"), "/").text(), format!("127.0.0.2:{port}"));
    server.addresses("app.test.", &["127.0.0.1", "127.0.0.3"]);
    origins[1].kill();
    eventually("the new address", || {
        get(proxy.addr("web"), "/").text() == format!("127.0.0.3:{port}")
    });
    let of = |outcome: &str| {
        format!("evenkeel_endpoint_attempts_total{{upstream=\"u\",endpoint=\"{name}\",outcome=\"{outcome}\"}}")
    };
    assert!(proxy.metric(&of("success")) >= 2.0, "the same endpoint");
    assert_eq!(endpoints(&proxy).join(" "), name);
}
