//! Ranges of what is not stored: what is fetched for them, and who waits for whom.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::cache::{answer, ask, config};
use crate::harness::client::Reply;
use crate::harness::origin::Seen;
use crate::harness::{Client, Origin, Proxy, eventually, get};

/// The letter at this place of every body.
fn letter(at: usize) -> u8 {
    b'a' + (at % 26) as u8
}

fn letters(first: usize, last: usize) -> Vec<u8> {
    (first..=last).map(letter).collect()
}

/// A body as long as the path says, and ranges of it, as any server of files answers them.
fn file(seen: &Seen, stream: &mut TcpStream) -> std::io::Result<bool> {
    let length: usize = seen.path().trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    let fields = "cache-control: max-age=60\r\netag: \"e\"";
    let range = seen
        .header("range")
        .strip_prefix("bytes=")
        .and_then(|r| r.split_once('-'));
    let Some((first, last)) = range else {
        return answer(
            stream,
            200,
            fields,
            std::str::from_utf8(&letters(0, length - 1)).unwrap(),
        );
    };
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(length - 1).min(length - 1);
    let fields = format!("{fields}\r\ncontent-range: bytes {first}-{last}/{length}");
    answer(
        stream,
        206,
        &fields,
        std::str::from_utf8(&letters(first, last)).unwrap(),
    )
}

/// The same, each answer when it is told to.
fn halting() -> (Origin, Sender<()>) {
    let (go, wait): (_, Receiver<()>) = channel();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |seen, stream| {
        wait.lock().unwrap().recv().map_err(std::io::Error::other)?;
        file(seen, stream)
    });
    (origin, go)
}

fn range(proxy: &Proxy, path: &str, range: &str) -> Reply {
    ask(proxy, "GET", path, &format!("Range: bytes={range}\r\n"))
}

#[track_caller]
fn is_part(reply: &Reply, first: usize, last: usize, length: usize) {
    let told = format!("bytes {first}-{last}/{length}");
    assert_eq!((reply.status, reply.header("content-range")), (206, told.as_str()));
    assert!(reply.body == letters(first, last), "{reply:?}");
}

#[test]
fn the_same_range_asked_for_by_many_is_one_request_and_another_is_another() {
    let (origin, go) = halting();
    let proxy = Proxy::start(&config(&origin, "ranges = \"part\""));
    let ask = |range: &str| {
        let mut client = Client::connect(proxy.addr("web"));
        client.send(format!(
            "GET /f/5000 HTTP/1.1\r\nHost: test\r\nRange: bytes={range}\r\n\r\n"
        ));
        client
    };
    let mut same: Vec<_> = (0..200).map(|_| ask("1000-1999")).collect();
    eventually("the origin is asked", || origin.seen().len() == 1);
    let mut other = ask("3000-");
    eventually("the other, too", || origin.seen().len() == 2);
    go.send(()).unwrap();
    go.send(()).unwrap();
    for client in &mut same {
        is_part(&client.reply(), 1000, 1999, 5000);
    }
    is_part(&other.reply(), 3000, 4999, 5000);
    assert_eq!(origin.seen().len(), 2);
    assert!(proxy.metric("evenkeel_cache_requests_total{cache=\"pages\",result=\"collapsed\"}") > 0.0);
    // One of the two parts is kept; if it was the other, this one is fetched once more.
    (0..1000).for_each(|_| go.send(()).unwrap());
    eventually("a part is stored", || {
        range(&proxy, "/f/5000", "3500-3600")
            .header("cache-status")
            .contains("; hit")
    });
}

#[test]
fn what_a_part_tells_to_be_small_is_fetched_whole_by_the_next_range() {
    let origin = Origin::start(file);
    let proxy = Proxy::start(&config(&origin, ""));
    is_part(&range(&proxy, "/f/5000", "0-99"), 0, 99, 5000);
    eventually("the part is stored", || {
        range(&proxy, "/f/5000", "5-9").header("cache-status").contains("; hit")
    });
    let next = range(&proxy, "/f/5000", "4000-4099");
    is_part(&next, 4000, 4099, 5000);
    assert!(
        next.header("cache-status")
            .starts_with("evenkeel; fwd=partial; fwd-status=200;"),
        "{next:?}"
    );
    assert_eq!((origin.seen().len(), origin.last().header("range")), (2, ""));
    eventually("the whole is stored", || {
        get(proxy.addr("web"), "/f/5000")
            .header("cache-status")
            .contains("; hit")
    });
    is_part(&range(&proxy, "/f/5000", "-10"), 4990, 4999, 5000);
    // What is large is fetched in parts, and those that meet are joined.
    for (first, last) in [(0, 99), (100, 199), (200, 1_999_999)] {
        is_part(
            &range(&proxy, "/f/2000000", &format!("{first}-{last}")),
            first,
            last,
            2_000_000,
        );
    }
    assert_eq!(origin.last().header("range"), "bytes=200-1999999");
}

#[test]
fn where_the_whole_is_fetched_everybody_gets_his_range_of_it() {
    let (origin, go) = halting();
    let proxy = Proxy::start(&config(&origin, "ranges = \"whole\""));
    let ask = |fields: &str| {
        let mut client = Client::connect(proxy.addr("web"));
        client.send(format!("GET /f/5000 HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
        client
    };
    let mut first = ask("Range: bytes=10-19\r\n");
    eventually("the origin is asked", || origin.seen().len() == 1);
    let mut last = ask("Range: bytes=-10\r\n");
    let mut beyond = ask("Range: bytes=5000-\r\n");
    let mut several = ask("Range: bytes=0-1,10-11\r\n");
    let mut another = ask("Range: bytes=0-1\r\nIf-Range: \"other\"\r\n");
    let mut whole = ask("");
    go.send(()).unwrap();
    is_part(&first.reply(), 10, 19, 5000);
    is_part(&last.reply(), 4990, 4999, 5000);
    let beyond = beyond.reply();
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */5000"));
    // Several at once while it comes: the whole, as who does not know ranges would answer.
    let several = several.reply();
    assert!(
        several.status == 200 || several.status == 206 && several.text().contains("content-range: bytes 10-11/5000")
    );
    for whole in [&mut another, &mut whole] {
        let reply = whole.reply();
        assert_eq!((reply.status, reply.body.len()), (200, 5000));
    }
    assert_eq!((origin.seen().len(), origin.last().header("range")), (1, ""));
}

#[test]
fn what_is_not_stored_is_cut_once_and_passed_as_it_was_asked_for_then() {
    let origin = Origin::start(|seen, stream| match (seen.path(), seen.header("range")) {
        ("/short", _) => {
            stream.write_all(b"HTTP/1.1 200 X\r\ncache-control: max-age=60\r\ncontent-length: 100\r\n\r\nhalf")?;
            Ok(false)
        }
        (_, "") => answer(stream, 200, "cache-control: private", "0123456789"),
        _ => answer(
            stream,
            206,
            "cache-control: private\r\ncontent-range: bytes 2-3/10",
            "23",
        ),
    });
    let proxy = Proxy::start(&config(&origin, "ranges = \"whole\""));
    for asked in ["", "bytes=2-3"] {
        let reply = range(&proxy, "/own", "2-3");
        assert_eq!(
            (reply.status, reply.text().as_str(), reply.header("content-range")),
            (206, "23", "bytes 2-3/10")
        );
        assert_eq!(origin.last().header("range"), asked);
    }
    // A range of what breaks off before it is no range.
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET /short HTTP/1.1\r\nHost: test\r\nRange: bytes=50-59\r\n\r\n");
    assert!(client.try_reply(false).is_err());
}
