//! The cache's disk with the real binary: what survives which end, what purges mean afterwards, and a disk that fails.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;

use tempfile::TempDir;

use crate::cache::{answer, ask, config as memory_only, counting, purge};
use crate::harness::proxy::TERM;
use crate::harness::{Client, Origin, Proxy, eventually};

const FRESH: &str = "cache-control: max-age=600\r\netag: \"e\"";

fn config(origin: &Origin, folder: &Path, size: &str, extra: &str) -> String {
    let disk = format!(
        "disk = {{ path = \"{}\", size = \"{size}\" }}\n{extra}",
        folder.display()
    );
    memory_only(origin, &disk)
}

fn start(origin: &Origin, folder: &Path) -> Proxy {
    scanned(Proxy::start(&config(origin, folder, "64MiB", "")))
}

fn scanned(proxy: Proxy) -> Proxy {
    proxy.wait_for("the disk of a cache was scanned");
    proxy
}

fn stop(mut proxy: Proxy) {
    proxy.signal(TERM);
    assert_eq!(proxy.wait_end().code(), Some(0));
}

/// Its files, the journal and the lock not counted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let list = |path: &Path| {
        std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path())
    };
    list(&folder.join("data"))
        .flat_map(|sub| list(&sub).collect::<Vec<_>>())
        .collect()
}

/// Until what was stored is on the disk.
fn written(proxy: &Proxy, entries: f64) {
    eventually("the files", || proxy.metric("evenkeel_cache_disk_entries") >= entries);
}

fn hits(proxy: &Proxy) -> f64 {
    proxy.metric("evenkeel_cache_disk_hits_total")
}

/// A body that tells of itself whether it is whole and whose it is.
fn body_of(path: &str, length: usize) -> Vec<u8> {
    let mut state = path.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| {
        (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    });
    let mut body = Vec::with_capacity(length + 8);
    while body.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        body.extend_from_slice(&state.to_le_bytes());
    }
    body.truncate(length);
    body
}

/// `/n/LENGTH` has a body of that length.
fn lengths(fields: &'static str) -> Origin {
    Origin::start(move |seen, stream| {
        let length = seen.path().rsplit('/').next().unwrap().parse().unwrap();
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(&body_of(seen.path(), length))?;
        Ok(true)
    })
}

#[test]
fn what_was_stored_is_served_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicUsize::new(0);
    let origin = Origin::start(move |seen, stream| {
        let n = count.fetch_add(1, Relaxed);
        if seen.path() == "/error" && n > 10 {
            return answer(stream, 503, "x-no: 1", "");
        }
        if seen.headers.iter().any(|(name, _)| name == "if-none-match") {
            return answer(stream, 304, "etag: \"e\"\r\ncache-control: max-age=600\r\nx-new: 1", "");
        }
        let fields = match seen.path() {
            "/vary" => format!("{FRESH}\r\nvary: accept-language\r\nx-n: {n}"),
            "/stale" => "cache-control: max-age=0\r\netag: \"e\"".to_owned(),
            "/while" => "cache-control: max-age=0, stale-while-revalidate=600\r\netag: \"e\"".to_owned(),
            "/error" => "cache-control: max-age=0, stale-if-error=600\r\netag: \"e\"".to_owned(),
            _ => format!("{FRESH}\r\nx-n: {n}"),
        };
        answer(
            stream,
            200,
            &fields,
            &format!("{} {}", seen.path(), seen.header("accept-language")),
        )
    });
    let proxy = start(&origin, folder.path());
    let german = "Accept-Language: de\r\n";
    for path in ["/a", "/b", "/stale", "/while", "/error"] {
        ask(&proxy, "GET", path, "");
    }
    ask(&proxy, "GET", "/vary", german);
    ask(&proxy, "GET", "/vary", "Accept-Language: fr\r\n");
    written(&proxy, 8.0);
    let first = ask(&proxy, "GET", "/a", "");
    stop(proxy);
    let before = origin.seen().len();
    assert_eq!(before, 7);

    let proxy = start(&origin, folder.path());
    let again = ask(&proxy, "GET", "/a", "");
    assert_eq!((again.text(), again.header("x-n")), (first.text(), first.header("x-n")));
    assert!(
        again.header("cache-status").starts_with("evenkeel; hit; ttl="),
        "{again:?}"
    );
    assert!(again.header("age").parse::<u32>().unwrap() >= first.header("age").parse().unwrap());
    // Without the endpoint: HEAD, conditions, ranges, only-if-cached, variants.
    assert_eq!(ask(&proxy, "HEAD", "/b", "").header("content-length"), "3");
    stop(proxy);
    let proxy = start(&origin, folder.path());
    assert_eq!(ask(&proxy, "GET", "/b", "If-None-Match: \"e\"\r\n").status, 304);
    stop(proxy);
    let proxy = start(&origin, folder.path());
    assert_eq!(
        ask(&proxy, "GET", "/b", "Cache-Control: only-if-cached\r\n").text(),
        "/b "
    );
    assert_eq!(ask(&proxy, "GET", "/a", "Range: bytes=1-\r\n").text(), "a ");
    assert_eq!(ask(&proxy, "GET", "/vary", german).text(), "/vary de");
    assert_eq!(
        ask(&proxy, "GET", "/vary", "Accept-Language: fr\r\n").text(),
        "/vary fr"
    );
    assert_eq!(origin.seen().len(), before);
    assert_eq!(
        ask(&proxy, "GET", "/vary", "Accept-Language: en\r\n").text(),
        "/vary en"
    );
    assert_eq!(origin.seen().len(), before + 1);
    // Stale: validated, renewed behind, served because the endpoint fails.
    let validated = ask(&proxy, "GET", "/stale", "");
    assert!(
        validated.header("cache-status").contains("fwd-status=304"),
        "{validated:?}"
    );
    assert_eq!((validated.text().as_str(), validated.header("x-new")), ("/stale ", "1"));
    let meanwhile = ask(&proxy, "GET", "/while", "");
    assert!(
        meanwhile.header("cache-status").contains("stale-while-revalidate"),
        "{meanwhile:?}"
    );
    eventually("the renewal", || {
        origin.last().header("if-none-match") == "\"e\"" && origin.last().path() == "/while"
    });
    ask(&proxy, "GET", "/more", "");
    ask(&proxy, "GET", "/more2", "");
    let failing = ask(&proxy, "GET", "/error", "");
    assert!(failing.header("cache-status").contains("stale-if-error"), "{failing:?}");
    assert_eq!(failing.text(), "/error ");
    written(&proxy, 11.0);
    stop(proxy);

    // What a 304 said is what was written.
    let before = origin.seen().len();
    let proxy = start(&origin, folder.path());
    let renewed = ask(&proxy, "GET", "/stale", "");
    assert_eq!((renewed.text().as_str(), renewed.header("x-new")), ("/stale ", "1"));
    assert!(
        renewed.header("cache-status").starts_with("evenkeel; hit"),
        "{renewed:?}"
    );
    assert_eq!(origin.seen().len(), before);
}

#[test]
fn large_bodies_are_sent_from_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let origin = lengths(FRESH);
    let large = |proxy: &str| config(&origin, folder.path(), "256MiB", proxy).replace("\"16MiB\"", "\"64MiB\"");
    let path = "/large/3500000";
    let expected = body_of(path, 3_500_000);
    let proxy = scanned(Proxy::start(&large("")));
    assert!(ask(&proxy, "GET", path, "").body == expected);
    written(&proxy, 1.0);
    stop(proxy);

    let proxy = scanned(Proxy::start(&large("")));
    for _ in 0..3 {
        let reply = ask(&proxy, "GET", path, "");
        assert!(reply.body == expected && reply.header("cache-status").starts_with("evenkeel; hit"));
    }
    assert_eq!(hits(&proxy), 3.0, "none of it went to memory");
    assert_eq!(proxy.metric("evenkeel_cache_entries"), 0.0);
    for (range, from, to) in [
        ("0-0", 0, 1),
        ("65535-65536", 65_535, 65_537),
        ("3000000-", 3_000_000, 3_500_000),
        ("-1", 3_499_999, 3_500_000),
    ] {
        let reply = ask(&proxy, "GET", path, &format!("Range: bytes={range}\r\n"));
        assert!(reply.status == 206 && reply.body == expected[from..to], "{range}");
    }
    assert!(ask(&proxy, "GET", path, "Range: bytes=0-1,5-6\r\n").body == expected);
    assert_eq!(ask(&proxy, "GET", path, "If-None-Match: \"e\"\r\n").status, 304);
    // Many at once, some of whom leave.
    std::thread::scope(|scope| {
        for n in 0..12 {
            let (proxy, expected) = (&proxy, &expected);
            scope.spawn(move || {
                let mut client = Client::connect(proxy.addr("web"));
                client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
                match n % 3 {
                    0 => drop(client.head()),
                    _ => assert!(client.reply().body == *expected),
                }
            });
        }
    });
    // A block that is another breaks the response off before it.
    let [file] = files(folder.path()).try_into().unwrap();
    let file = File::options().write(true).open(file).unwrap();
    let at = file.metadata().unwrap().len() - 1_000_000;
    file.write_all_at(b"wrong", at).unwrap();
    let mut client = Client::connect(proxy.addr("web"));
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    client.head();
    let got = client.rest().unwrap_or_default();
    assert!(got.len() < expected.len() - 900_000 && expected.starts_with(&got));
    assert_eq!(
        proxy.metric("evenkeel_cache_disk_errors_total{cache=\"pages\",operation=\"corrupt\"}"),
        1.0
    );
    // And is fetched anew by the next one.
    assert!(ask(&proxy, "GET", path, "").body == expected);
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_process_killed_at_any_moment_leaves_nothing_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let origin = lengths("cache-control: max-age=600");
    let mut seed = 7u64;
    let mut next = move |most: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % most
    };
    let mut served = 0.0;
    for round in 0..6 {
        let proxy = Proxy::start(&config(&origin, folder.path(), "64MiB", ""));
        let (told, done) = channel();
        let addr = proxy.addr("web");
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (told, mut n) = (told.clone(), next(1000));
                std::thread::spawn(move || {
                    'connections: loop {
                        let Ok(stream) = std::net::TcpStream::connect(addr) else {
                            return;
                        };
                        let mut client = Client::over(stream);
                        loop {
                            n = (n * 31 + 17) % 150;
                            let length = n * n * 30;
                            let path = format!("/{n}/{length}");
                            if client
                                .try_send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
                                .is_err()
                            {
                                continue 'connections;
                            }
                            let Ok(reply) = client.try_reply(false) else {
                                continue 'connections;
                            };
                            assert_eq!(reply.status, 200);
                            assert!(reply.body == body_of(&path, length as usize), "{path}");
                            if told.send(()).is_err() {
                                return;
                            }
                        }
                    }
                })
            })
            .collect();
        for _ in 0..40 + next(200) {
            done.recv().unwrap();
        }
        served += hits(&proxy);
        assert_eq!(proxy.metric("evenkeel_cache_disk_errors_total"), 0.0, "round {round}");
        // Killed when dropped.
        drop(proxy);
        drop(done);
        clients.into_iter().for_each(|client| client.join().unwrap());
    }
    assert!(served > 50.0, "{served} were served from the disk");
    let proxy = start(&origin, folder.path());
    assert!(std::fs::read_dir(folder.path().join("tmp")).unwrap().next().is_none());
    for n in 0..150u64 {
        let path = format!("/{n}/{}", n * n * 30);
        assert!(
            ask(&proxy, "GET", &path, "").body == body_of(&path, (n * n * 30) as usize),
            "{path}"
        );
    }
    assert_eq!(proxy.metric("evenkeel_cache_disk_errors_total"), 0.0);
}

#[test]
fn files_that_are_not_what_was_written_are_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let origin = lengths(FRESH);
    let paths: Vec<String> = (0..30).map(|n| format!("/{n}/{}", 100 + n * 1000)).collect();
    let proxy = start(&origin, folder.path());
    for path in &paths {
        ask(&proxy, "GET", path, "");
    }
    written(&proxy, 30.0);
    stop(proxy);
    for (n, path) in files(folder.path()).iter().enumerate() {
        let mut text = std::fs::read(path).unwrap();
        match n % 4 {
            0 => text.truncate(n * 10),
            1 => text.push(0),
            2 => text.clear(),
            _ => {
                let at = text.len() * n / 30;
                text[at] ^= 1;
            }
        }
        std::fs::write(path, text).unwrap();
    }
    // Of nothing of ours nothing is thought.
    std::fs::write(folder.path().join("data/README"), "x").unwrap();
    std::fs::write(files(folder.path())[0].with_file_name("other"), "x").unwrap();
    let before = origin.seen().len();
    let proxy = start(&origin, folder.path());
    for _ in 0..2 {
        for path in &paths {
            let length = path.rsplit('/').next().unwrap().parse().unwrap();
            assert!(ask(&proxy, "GET", path, "").body == body_of(path, length), "{path}");
        }
    }
    assert_eq!(origin.seen().len(), before + 30);
    let corrupt = proxy.metric("evenkeel_cache_disk_errors_total{cache=\"pages\",operation=\"corrupt\"}");
    assert_eq!(corrupt, 30.0);
    proxy.wait_for("a file of a cache is not what was written, and is removed");
}

#[test]
fn purges_hold_after_a_kill_that_follows_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicUsize::new(0);
    let origin = Origin::start(move |seen, stream| {
        let fields = match seen.path() {
            "/tagged" => format!("{FRESH}\r\nsurrogate-key: g"),
            "/soft-tagged" => format!("{FRESH}\r\nsurrogate-key: s"),
            "/vary" | "/soft-vary" => format!("{FRESH}\r\nvary: accept-language"),
            _ => FRESH.to_owned(),
        };
        answer(stream, 200, &fields, &count.fetch_add(1, Relaxed).to_string())
    });
    let hard = ["/url", "/tagged", "/prefix/1", "/vary", "/changed"];
    let soft = ["/soft", "/soft-tagged", "/soft-prefix/1", "/soft-vary"];
    let proxy = start(&origin, folder.path());
    for path in hard.iter().chain(&soft).chain(&["/kept"]) {
        ask(&proxy, "GET", path, "");
    }
    written(&proxy, 12.0);
    for what in [
        "{\"url\": [\"http://test/url\", \"http://test/vary\"]}",
        "{\"tag\": \"g\"}",
        "{\"prefix\": \"http://test/prefix\"}",
        "{\"url\": [\"http://test/soft\", \"http://test/soft-vary\"], \"soft\": true}",
        "{\"tag\": \"s\", \"soft\": true}",
        "{\"prefix\": \"http://test/soft-prefix\", \"soft\": true}",
    ] {
        assert!(purge(&proxy, what)["entries"].is_number(), "{what}");
    }
    assert_eq!(ask(&proxy, "POST", "/changed", "Content-Length: 0\r\n").status, 200);
    drop(proxy);

    // Also by a second process, to whom the first one's journal tells it.
    for _ in 0..2 {
        drop(start(&origin, folder.path()));
    }
    // Not even before the scan has ended.
    let proxy = Proxy::start(&config(&origin, folder.path(), "64MiB", ""));
    for path in hard {
        let status = ask(&proxy, "GET", path, "").header("cache-status").to_owned();
        assert!(status.contains("fwd=uri-miss"), "{path}: {status}");
    }
    for path in soft {
        let status = ask(&proxy, "GET", path, "").header("cache-status").to_owned();
        assert!(status.contains("fwd=stale"), "{path}: {status}");
        assert_eq!(origin.last().header("if-none-match"), "\"e\"");
    }
    let kept = ask(&proxy, "GET", "/kept", "");
    assert!(kept.header("cache-status").starts_with("evenkeel; hit"), "{kept:?}");

    assert!(purge(&proxy, "{\"all\": true}")["entries"].is_number());
    drop(proxy);
    let proxy = start(&origin, folder.path());
    let gone = ask(&proxy, "GET", "/kept", "");
    assert!(gone.header("cache-status").contains("fwd=uri-miss"), "{gone:?}");
    // What is asked for after a purge stays.
    written(&proxy, 1.0);
    stop(proxy);
    let proxy = start(&origin, folder.path());
    let kept = ask(&proxy, "GET", "/kept", "");
    assert!(kept.header("cache-status").starts_with("evenkeel; hit"), "{kept:?}");
    stop(proxy);

    // Without a journal nothing is known of purges.
    std::fs::write(folder.path().join("purges"), "junk").unwrap();
    let proxy = start(&origin, folder.path());
    let gone = ask(&proxy, "GET", "/kept", "");
    assert!(gone.header("cache-status").contains("fwd=uri-miss"), "{gone:?}");
}

#[test]
fn files_take_no_more_than_they_may() {
    let folder = tempfile::tempdir().unwrap();
    let origin = lengths(FRESH);
    let size_of = |folder: &Path| {
        // Some leave while they are looked at.
        let lengths = files(folder)
            .into_iter()
            .filter_map(|file| Some(file.metadata().ok()?.len()));
        lengths.sum::<u64>()
    };
    let with =
        |size: &str| config(&origin, folder.path(), size, "").replace("memory = \"16MiB\"", "memory = \"64MiB\"");
    let proxy = scanned(Proxy::start(&with("32MiB")));
    // Each is on the disk before the next is asked for: none is dropped because too many are in line.
    let fill = |proxy: &Proxy, from: usize| {
        let taken =
            || proxy.metric("evenkeel_cache_disk_entries") + proxy.metric("evenkeel_cache_disk_evictions_total");
        let before = taken();
        for n in 0..100 {
            ask(proxy, "GET", &format!("/{}/500000", from + n), "");
            eventually("it is written", || taken() > before + n as f64);
        }
    };
    fill(&proxy, 0);
    eventually("what is too much leaves", || {
        proxy.metric("evenkeel_cache_disk_evictions_total") > 20.0
    });
    assert!(proxy.metric("evenkeel_cache_disk_bytes") <= 32.0 * 1024.0 * 1024.0);
    eventually("files within the size", || {
        (20 << 20..=32 << 20).contains(&size_of(folder.path()))
    });
    proxy.reload(&with("16MiB"));
    eventually("files within another", || size_of(folder.path()) <= 16 << 20);
    assert!(proxy.metric("evenkeel_cache_disk_entries") > 10.0);
    proxy.reload(&with("32MiB"));
    fill(&proxy, 100);
    eventually("files as before", || size_of(folder.path()) > 20 << 20);
    stop(proxy);
    // What is there counts after a restart.
    let proxy = scanned(Proxy::start(&with("16MiB")));
    eventually("files within the size of the next process", || {
        size_of(folder.path()) <= 16 << 20
    });
    assert!(proxy.metric("evenkeel_cache_disk_bytes") <= 16.0 * 1024.0 * 1024.0);
}

#[test]
fn a_reload_takes_a_disk_leaves_it_and_empties_it_for_other_keys() {
    let folder = tempfile::tempdir().unwrap();
    let origin = counting(FRESH);
    let with = |extra: &str| config(&origin, folder.path(), "64MiB", extra);
    let proxy = Proxy::start(&memory_only(&origin, ""));
    assert_eq!(ask(&proxy, "GET", "/a", "").text(), "body 1");
    proxy.reload(&with(""));
    proxy.wait_for("the disk of a cache was scanned");
    assert_eq!(ask(&proxy, "GET", "/a", "").text(), "body 1");
    assert_eq!(ask(&proxy, "GET", "/b", "").text(), "body 2");
    written(&proxy, 1.0);
    assert_eq!(proxy.status()["caches"][0]["disk"]["state"], "ok");
    let missing = proxy.reload_rejected(&with("").replace(folder.path().to_str().unwrap(), "/nowhere/at/all"));
    assert!(missing.contains("does not exist: create it"), "{missing}");
    proxy.reload(&memory_only(&origin, ""));
    assert_eq!(proxy.metric("evenkeel_cache_disk_entries"), 0.0);
    // It has let go of the folder.
    stop(Proxy::start(&with("")));
    proxy.reload(&with(""));
    assert_eq!(ask(&proxy, "GET", "/b", "").text(), "body 2");
    proxy.reload(&with("key = { headers = [\"x-tenant\"] }"));
    assert_eq!(ask(&proxy, "GET", "/b", "").text(), "body 3");
    written(&proxy, 1.0);
    stop(proxy);
    // And across a restart.
    let proxy = scanned(Proxy::start(&with("key = { headers = [\"x-tenant\"] }")));
    assert_eq!(ask(&proxy, "GET", "/b", "").text(), "body 3");
    stop(proxy);
    let proxy = scanned(Proxy::start(&with("")));
    assert_eq!(ask(&proxy, "GET", "/b", "").text(), "body 4");
}

#[test]
fn a_folder_that_cannot_be_used_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let origin = counting(FRESH);
    let fails = |path: &Path| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("evenkeel.toml");
        std::fs::write(
            &file,
            config(&origin, path, "64MiB", "").replace("{DIR}", dir.path().to_str().unwrap()),
        )
        .unwrap();
        let run = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .args(["run", "--config"])
            .arg(&file)
            .output();
        let run = run.unwrap();
        assert!(!run.status.success());
        String::from_utf8(run.stderr).unwrap()
    };
    let missing = fails(&folder.path().join("missing"));
    assert!(
        missing.contains("`[caches.pages]`: `disk`: the folder") && missing.contains("install -d"),
        "{missing}"
    );
    std::fs::write(folder.path().join("file"), "").unwrap();
    let file = fails(&folder.path().join("file"));
    assert!(file.contains("is no folder"), "{file}");
    let _first = start(&origin, folder.path());
    let second = fails(folder.path());
    assert!(second.contains("another process uses"), "{second}");
}

#[test]
fn many_who_ask_for_what_is_on_disk_are_one_read() {
    let folder = tempfile::tempdir().unwrap();
    let origin = counting(FRESH);
    let proxy = start(&origin, folder.path());
    ask(&proxy, "GET", "/a", "");
    written(&proxy, 1.0);
    stop(proxy);
    let proxy = start(&origin, folder.path());
    let mut clients: Vec<_> = (0..100).map(|_| Client::connect(proxy.addr("web"))).collect();
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.reply().text(), "body 1");
    }
    assert_eq!((hits(&proxy), origin.seen().len()), (1.0, 1));
}

/// A file system of its own, gone when dropped.
struct Small(TempDir);

impl Small {
    /// `None`: this user may not mount one.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "none"])
            .arg(dir.path())
            .output();
        mount.is_ok_and(|done| done.status.success()).then(|| Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: the process that uses it may be ending.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_costs_its_hits_alone_and_comes_back() {
    let Some(small) = Small::mount() else {
        eprintln!("skipped: only root may mount a small file system to fill");
        return;
    };
    let folder = small.0.path();
    let origin = lengths(FRESH);
    let proxy = start(&origin, folder);
    ask(&proxy, "GET", "/first/1000", "");
    written(&proxy, 1.0);
    let filler = folder.join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let mut n = 0;
    let mut one_more = |proxy: &Proxy| {
        n += 1;
        let path = format!("/{n}/20000");
        assert!(ask(proxy, "GET", &path, "").body == body_of(&path, 20_000));
    };
    eventually("nothing is written any more", || {
        one_more(&proxy);
        proxy.metric("evenkeel_cache_disk_up{") == 0.0
    });
    proxy.wait_for("the disk of a cache cannot be written: the cache goes on without");
    assert_eq!(proxy.status()["caches"][0]["disk"]["state"], "failing");
    assert!(proxy.metric("evenkeel_cache_disk_errors_total{cache=\"pages\",operation=\"write\"}") >= 3.0);
    let dropped = || proxy.metric("evenkeel_cache_disk_dropped_writes_total");
    eventually("fills that are not written are counted", || {
        one_more(&proxy);
        dropped() > 3.0
    });
    // A purge is not lost, even where it cannot be noted.
    let purged = purge(&proxy, "{\"prefix\": \"http://test/first\"}");
    assert!(purged["entries"].is_number() || purged["error"].is_string(), "{purged}");
    std::fs::remove_file(&filler).unwrap();
    drop(file);
    eventually("it is written again", || {
        one_more(&proxy);
        proxy.metric("evenkeel_cache_disk_up{") == 1.0
    });
    proxy.wait_for("the disk of a cache can be written again");
    eventually("files", || !files(folder).is_empty());

    stop(proxy);
    let proxy = start(&origin, folder);
    let first = ask(&proxy, "GET", "/first/1000", "");
    assert!(first.header("cache-status").contains("fwd=uri-miss"), "{first:?}");
    stop(proxy);
}
