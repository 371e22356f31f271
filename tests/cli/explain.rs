//! `evenkeel explain`: from a file, and of a running one, which then does what was said.

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::tls::Identity;
use crate::harness::{Origin, Proxy, eventually, one_upstream};
use crate::{Said, evenkeel, file};

const SITE: &str = r#"
[listeners.web]
bind = "127.0.0.1:18311"

[[routes]]
name = "canary"
hosts = ["shop.example"]
path = "/api"
headers = { x-canary = "yes" }
upstream = "api"

[[routes]]
name = "api"
hosts = ["shop.example"]
path = "/api"
methods = ["GET"]
timeout = "15s"
upstream = "api"
cache = "pages"

[[routes]]
name = "shop"
hosts = ["shop.example"]
upstream = "api"

[[routes]]
name = "moved"
hosts = ["old.example"]
redirect = { to = "https://new.example{uri}", status = 308 }

[upstreams.api]
balance = { algorithm = "maglev", hash = "header:x-user" }
retries = 2
endpoints = [
    "10.0.1.1:8080",
    { address = "10.0.1.2:8080", weight = 3 },
    { address = "10.0.9.9:8080", backup = true },
]

[caches.pages]
memory = "1MiB"
"#;

fn of_file(path: &str, args: &[&str]) -> Said {
    evenkeel(&[&["explain", "--config", path], args].concat())
}

/// As JSON.
#[track_caller]
fn told(args: &[&str]) -> Value {
    let said = evenkeel(&[&["explain", "--json"], args].concat());
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{args:?}");
    serde_json::from_str(&said.out).unwrap()
}

fn admin(proxy: &Proxy) -> String {
    proxy.addr("admin").to_string()
}

#[test]
fn a_request_is_explained_from_a_file() {
    let (_dir, path) = file(SITE);
    let said = of_file(
        &path,
        &[
            "GET",
            "http://shop.example:18311/api//x/../y?a=b",
            "-H",
            "x-user: ann",
            "--from",
            "10.1.2.3",
        ],
    );
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines[0], "GET http://shop.example:18311/api//x/../y?a=b from 10.1.2.3");
    let expected = "\
listener     web (http) on 127.0.0.1:18311
             it listens on port 18311
path         /api//x/../y?a=b is matched as /api/y, sent on as /api/y
route        api
             hosts shop.example; path /api; methods GET
not          canary  the request lacks the field `x-canary: yes`
             shop    matches too, but names the path less closely
             one more route is for another host or path
action       forward, timeout 15s
cache        pages
             key http://shop.example:18311/api/y?a=b
upstream     api: maglev, up to 3 attempts
             by the hash of header:x-user: the same for every request that has it
";
    assert!(said.out.contains(expected), "{}", said.out);
    let rest = said.out.split(expected).nth(1).unwrap();
    for part in [
        "endpoints    1.  10.0.1.",
        "             2.  10.0.1.",
        "             -   10.0.9.9:8080  up  weight 1; a backup: asked while no other is up\n",
        "weight 3, 75 %",
        "note         from a file: nobody's health is known",
    ] {
        assert!(rest.contains(part), "{part}: {rest}");
    }
    assert!(!said.out.contains('\x1b'), "no colours but on a terminal");
}

#[test]
fn what_evenkeel_answers_by_itself_is_told_too() {
    let (_dir, path) = file(SITE);
    let said = of_file(&path, &["http://old.example:18311/a?b"]);
    assert!(
        said.out
            .contains("action       redirect 308 to https://new.example/a?b\n"),
        "{}",
        said.out
    );
    let said = of_file(&path, &["http://elsewhere.example:18311/"]);
    assert!(said.out.contains("ends         404: no route takes it"), "{}", said.out);
    assert!(
        said.out.contains("moved   is for other hosts: old.example"),
        "{}",
        said.out
    );
    let said = of_file(&path, &["http://shop.example:18311/..;/x"]);
    assert!(
        said.out.contains("ends         400: the path has a dot segment"),
        "{}",
        said.out
    );
    let said = of_file(&path, &["http://shop.example:18311/", "-H", "x_user: ann"]);
    assert!(
        said.out.contains("ends         400: invalid field name"),
        "{}",
        said.out
    );
    let said = of_file(&path, &["https://shop.example:18311/"]);
    assert!(
        said.out.contains("no answer: the listener speaks plain HTTP"),
        "{}",
        said.out
    );
}

#[test]
fn mistakes_are_told_with_advice() {
    let (_dir, path) = file(SITE);
    for (args, code, parts) in [
        (
            &["get", "http://a/"][..],
            2,
            ["`get` is not a method", "help: methods are upper case: write `GET`"],
        ),
        (
            &["shop.example/x"],
            2,
            ["the scheme is missing", "help: write `https://shop.example/x`"],
        ),
        (
            &["http://a/", "-H", "x-canary yes"],
            2,
            ["it has no colon", "help: write `name: value`"],
        ),
        (
            &["http://a/", "--listener", "wbe"],
            2,
            ["no listener `wbe`", "`web` (127.0.0.1:18311)"],
        ),
        (
            &["https://a:8443/"],
            2,
            ["nothing listens on port 8443", "--listener: `web`"],
        ),
        (
            &["http://a/", "--from", "ten"],
            2,
            ["invalid value 'ten' for '--from", ""],
        ),
    ] {
        let said = of_file(&path, args);
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{args:?}");
        assert!(
            parts.iter().all(|part| said.err.contains(part)),
            "{args:?}: {}",
            said.err
        );
    }
    let broken = file("[listeners.web]\nbind = 7\n");
    let said = of_file(&broken.1, &["http://a/"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("expected a string"), "{}", said.err);
    let nobody = Origin::nobody().to_string();
    let said = evenkeel(&["explain", "http://a/", "--admin", &nobody]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains(&format!("cannot ask {nobody}")) && said.err.contains("--config"),
        "{}",
        said.err
    );
}

#[test]
fn a_port_that_is_mapped_elsewhere_is_no_obstacle() {
    let (_dir, path) = file(SITE);
    let told = told(&["http://shop.example/api", "--config", &path]);
    assert_eq!(told["listener"]["name"], "web");
    assert!(
        told["listener"]["why"]
            .as_str()
            .unwrap()
            .contains("the only one for HTTP without TLS")
    );
}

#[test]
fn the_certificate_is_told_by_the_name_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    Identity::of(&["first.example"]).write(dir.path(), "first");
    Identity::of(&["*.shop.example"]).write(dir.path(), "wild");
    let text = r#"
        [listeners.secure]
        bind = "127.0.0.1:18312"
        tls.certificates = [
            { cert = "DIR/first.pem", key = "DIR/first.key" },
            { cert = "DIR/wild.pem", key = "DIR/wild.key" },
        ]
        [[routes]]
        respond = { status = 200, body = "ok" }
    "#;
    let path = dir.path().join("evenkeel.toml");
    std::fs::write(&path, text.replace("DIR", dir.path().to_str().unwrap())).unwrap();
    let path = path.to_str().unwrap();
    for (url, file, fits) in [
        ("https://eu.shop.example:18312/", "wild.pem", true),
        ("https://first.example:18312/", "first.pem", true),
        ("https://shop.example:18312/", "first.pem", false),
        ("https://127.0.0.1:18312/", "first.pem", false),
    ] {
        let told = told(&[url, "--config", path]);
        let certificate = &told["certificate"];
        assert!(
            certificate["file"].as_str().unwrap().ends_with(file),
            "{url}: {certificate}"
        );
        assert_eq!(certificate["fits"], fits, "{url}");
    }
    let said = evenkeel(&["explain", "http://shop.example:18312/", "--config", path]);
    assert!(said.out.contains("the listener speaks TLS"), "{}", said.out);
}

#[test]
fn untouched_tls_is_explained_by_its_server_name() {
    let (_dir, path) = file(
        r#"
        [listeners.pass]
        bind = "127.0.0.1:18313"
        protocol = "tcp"
        sni = { "*.shop.example" = "shop" }
        [upstreams.shop]
        endpoints = ["10.0.0.1:443"]
        "#,
    );
    let found = told(&["https://eu.shop.example:18313/", "--config", &path]);
    assert_eq!(found["action"]["kind"], "relay");
    assert_eq!(found["upstreams"][0]["endpoints"][0]["address"], "10.0.0.1:443");
    let closed = told(&["https://other.example:18313/", "--config", &path]);
    assert_eq!(closed["ends"]["status"], Value::Null);
}

/// Routes that tell their names, in many ways that overlap.
const NAMED: &[(&str, &str)] = &[
    ("exact", "hosts = [\"a.example\"]\npath_exact = \"/x/y\""),
    ("wild", "hosts = [\"*.example\"]"),
    ("wild-deep", "hosts = [\"*.b.example\"]\npath = \"/x\""),
    ("prefix", "hosts = [\"a.example\"]\npath = \"/x\""),
    ("post", "hosts = [\"a.example\"]\npath = \"/x\"\nmethods = [\"POST\"]"),
    ("regex", "path_regex = \"/[0-9]+\""),
    ("cookie", "path = \"/x\"\ncookies = { group = \"beta\" }"),
    ("query", "path = \"/x\"\nquery = { v = \"2\" }"),
    ("field", "path = \"/x\"\nheaders = { x-canary = \"yes\" }"),
    ("loud", "path = \"/x/loud\"\npriority = 5"),
    ("source", "path = \"/inside\"\nsources = [\"127.0.0.0/8\"]"),
    ("else", "path = \"/x\""),
];

#[test]
fn the_running_one_does_what_it_says() {
    let mut text = String::from("[admin]\nbind = \"127.0.0.1:0\"\n[listeners.web]\nbind = \"127.0.0.1:0\"\n");
    for (name, predicates) in NAMED {
        text +=
            &format!("[[routes]]\nname = \"{name}\"\n{predicates}\nrespond = {{ status = 200, body = \"{name}\" }}\n");
    }
    let proxy = Proxy::start(&text);
    let (web, admin) = (proxy.addr("web"), admin(&proxy));
    let mut seen = std::collections::BTreeSet::new();
    let mut asked = 0;
    for host in ["a.example", "c.b.example", "b.example", "other", "A.Example:80"] {
        for path in [
            "/x",
            "/x/y",
            "/x//y",
            "/%78/./y",
            "/12",
            "/x/loud/z",
            "/x?v=2",
            "/inside",
            "/..%2fx",
            "/",
        ] {
            for fields in [&[][..], &["x-canary: yes"], &["Cookie: a=b; group=beta"]] {
                let method = if asked % 3 == 0 { "POST" } else { "GET" };
                asked += 1;
                // Each way of asking is tried with some of them: a process for each takes its time.
                let told: Value = if asked % 5 == 0 {
                    let url = format!("http://{web}{path}");
                    let host = format!("Host: {host}");
                    let mut args = vec![
                        "explain",
                        method,
                        url.as_str(),
                        "--admin",
                        admin.as_str(),
                        "--json",
                        "-H",
                        host.as_str(),
                    ];
                    args.extend(fields.iter().flat_map(|field| ["-H", field]));
                    serde_json::from_str(&evenkeel(&args).out).unwrap()
                } else {
                    let headers: Vec<String> = std::iter::once(format!("Host: {host}"))
                        .chain(fields.iter().map(|field| (*field).to_owned()))
                        .collect();
                    let question =
                        json!({ "method": method, "url": format!("http://{web}{path}"), "headers": headers });
                    post(&proxy, &question.to_string()).1
                };
                let mut client = Client::connect(web);
                let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
                client.send(format!(
                    "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n{lines}\r\n"
                ));
                let reply = client.reply();
                let context = format!("{method} {host}{path} {fields:?}: {told}");
                match reply.status {
                    200 => {
                        assert_eq!(told["route"]["name"], reply.text(), "{context}");
                        seen.insert(reply.text());
                    }
                    status => assert_eq!(told["ends"]["status"], status, "{context}"),
                }
            }
        }
    }
    assert!(seen.len() > 9, "{seen:?}");
}

/// To the endpoint itself: status and JSON.
fn post(proxy: &Proxy, body: &str) -> (u16, Value) {
    let mut client = Client::connect(proxy.addr("admin"));
    client.send(format!(
        "POST /api/v1/explain HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let reply = client.reply();
    (reply.status, serde_json::from_slice(&reply.body).unwrap())
}

#[test]
fn endpoints_are_told_with_their_state_and_nothing_is_changed() {
    let (a, b, c) = (Origin::named("a"), Origin::named("b"), Origin::named("c"));
    let down = Origin::nobody();
    let settings = "balance = \"round_robin\"\nhealth = { tcp = true, interval = \"100ms\" }";
    let proxy = Proxy::start(&one_upstream(settings, &[a.addr, b.addr, c.addr, down]));
    let url = format!("http://{}/", proxy.addr("web"));
    let admin = admin(&proxy);
    eventually("all are checked", || {
        let endpoints = proxy.status()["upstreams"][0]["endpoints"].clone();
        endpoints
            .as_array()
            .unwrap()
            .iter()
            .all(|endpoint| endpoint["health"] != "checking")
    });
    let drain = format!("/api/v1/upstreams/u/endpoints/{}/drain", c.addr);
    let mut operator = Client::connect(proxy.addr("admin"));
    operator.send(format!("POST {drain} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(operator.reply().status, 200);
    let mut web = Client::connect(proxy.addr("web"));
    let first = web.get("/").text();
    for _ in 0..3 {
        let told = told(&[&url, "--admin", &admin]);
        let endpoints = told["upstreams"][0]["endpoints"].as_array().unwrap();
        let of = |origin: std::net::SocketAddr| {
            let address = Value::String(origin.to_string());
            endpoints
                .iter()
                .find(|endpoint| endpoint["address"] == address)
                .unwrap()
        };
        let next = if first == "a" { b.addr } else { a.addr };
        assert_eq!(of(next)["turn"], 1, "{told}");
        assert_eq!(of(c.addr)["why"], "draining by order of operator");
        assert_eq!(of(down)["health"], "down");
        assert!(of(down)["why"].as_str().unwrap().starts_with("down: "), "{told}");
    }
    // It was nobody's turn meanwhile.
    assert_ne!(web.get("/").text(), first);
    assert_eq!(web.get("/").text(), first);
    assert_eq!(proxy.metric("evenkeel_requests_total"), 3.0);
    assert_eq!(proxy.metric("evenkeel_endpoint_active"), 0.0);
}

#[test]
fn who_is_hashed_to_and_who_is_bound_to_an_endpoint_is_told_its_own() {
    let names = ["a", "b", "c"];
    let origins = names.map(Origin::named);
    let addrs = origins.each_ref().map(|origin| origin.addr);
    let settings = "balance = { algorithm = \"rendezvous\", hash = \"header:x-user\" }\n\
                    sticky = { cookie = \"at\", secret = \"0123456789abcdef0123456789abcdef\" }";
    let proxy = Proxy::start(&one_upstream(settings, &addrs));
    let (url, admin) = (format!("http://{}/", proxy.addr("web")), admin(&proxy));
    let place = |name: &str| {
        let n = names.iter().position(|other| *other == name).unwrap();
        Value::String(addrs[n].to_string())
    };
    let mut web = Client::connect(proxy.addr("web"));
    for user in ["ann", "bob", "carl", "dora"] {
        web.send(format!("GET / HTTP/1.1\r\nHost: a\r\nx-user: {user}\r\n\r\n"));
        let reply = web.reply();
        let told_by_hash = told(&[&url, "--admin", &admin, "-H", &format!("x-user: {user}")]);
        assert_eq!(
            told_by_hash["upstreams"][0]["endpoints"][0]["address"],
            place(&reply.text()),
            "{user}"
        );
        let cookie = reply.header("set-cookie").split(';').next().unwrap().to_owned();
        let bound = told(&[
            &url,
            "--admin",
            &admin,
            "-H",
            "x-user: somebody",
            "-H",
            &format!("Cookie: {cookie}"),
        ]);
        let upstream = &bound["upstreams"][0];
        assert_eq!(upstream["endpoints"][0]["address"], place(&reply.text()), "{bound}");
        assert_eq!(upstream["endpoints"][0]["why"], "the client is bound to it");
    }
}

#[test]
fn the_endpoint_refuses_what_makes_no_sense() {
    let proxy = Proxy::start(&one_upstream("", &[Origin::nobody()]));
    assert_eq!(post(&proxy, "{").0, 400);
    assert_eq!(post(&proxy, "{\"url\": \"http://a/\", \"colour\": 1}").0, 400);
    let (status, wrong) = post(&proxy, "{\"url\": \"a/\"}");
    assert_eq!(status, 400);
    assert!(
        wrong["error"].as_str().unwrap().contains("scheme") && wrong["help"].is_string(),
        "{wrong}"
    );
    let mut client = Client::connect(proxy.addr("admin"));
    let reply = client.get("/api/v1/explain");
    assert_eq!((reply.status, reply.header("allow")), (405, "POST"));
}
