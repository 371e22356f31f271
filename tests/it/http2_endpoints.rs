//! Endpoints that speak HTTP/2 and go: in the middle of a request, at rest, or in order.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::harness::h2_wire::{CANCEL, GOAWAY, HEADERS, INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM, Wire};
use crate::harness::proxy::CONT;
use crate::harness::{Client, Origin, PATIENCE, Proxy, eventually, get, one_upstream};

fn config(upstream: &str, endpoints: &[SocketAddr]) -> String {
    one_upstream(
        &format!("balance = \"round_robin\"\nprotocol = \"h2\"\n{upstream}"),
        endpoints,
    )
}

/// Answers everything with 200, and counts it.
fn well() -> (Origin, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let origin = Origin::raw(move |stream, _| {
        let mut wire = Wire::begin(stream)?;
        while let Some(id) = wire.request()? {
            counter.fetch_add(1, Relaxed);
            wire.answer(id)?;
        }
        Ok(())
    });
    (origin, count)
}

#[track_caller]
fn post(client: &mut Client) -> u16 {
    client.send("POST /order HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none");
    client.reply().status
}

/// What an endpoint does with a POST, once; everything else it answers.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Closes the connection behind it.
    Closes,
    /// Resets the connection before it has read all of it.
    Resets,
    /// Says goodbye, and that it may have begun this stream; then it closes.
    GoesAfter(u32),
    /// Says goodbye, and that it has not looked at this stream; then it closes.
    GoesBefore(u32),
    /// Resets the stream with this code.
    Stream(u32),
}

/// The status for a POST that meets `fate`, and how often an endpoint may have worked on it. `used`: on a connection that
/// has served another before.
fn meet(fate: Fate, used: bool) -> (u16, usize) {
    let (worked, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(!used)));
    let (count, met) = (worked.clone(), AtomicBool::new(false));
    let warm = done.clone();
    let ill = Origin::raw(move |stream, _| {
        let mut wire = Wire::begin(stream)?;
        if let Fate::Resets = fate
            && warm.load(Relaxed)
            && !met.swap(true, Relaxed)
        {
            // The head alone; what is not read makes a reset of the close.
            while wire.next()?.is_some_and(|frame| frame.kind != HEADERS) {}
            count.fetch_add(1, Relaxed);
            return Ok(());
        }
        while let Some(id) = wire.request()? {
            if !warm.load(Relaxed) || met.swap(true, Relaxed) {
                count.fetch_add(usize::from(warm.load(Relaxed)), Relaxed);
                wire.answer(id)?;
                continue;
            }
            match fate {
                Fate::Closes | Fate::Resets => {}
                Fate::GoesAfter(code) => wire.go_away(id, code)?,
                Fate::GoesBefore(code) => wire.go_away(id - 1, code)?,
                Fate::Stream(code) => wire.reset(id, code)?,
            }
            let refused = matches!(fate, Fate::GoesBefore(_) | Fate::Stream(REFUSED_STREAM));
            count.fetch_add(usize::from(!refused), Relaxed);
            if !matches!(fate, Fate::Stream(_)) {
                return wire.close();
            }
        }
        Ok(())
    });
    let (well, elsewhere) = well();
    let proxy = Proxy::start(&config("", &[ill.addr, well.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    if used {
        // One for each endpoint; the next is the first's again.
        assert_eq!([post(&mut client), post(&mut client)], [200, 200]);
        elsewhere.store(0, Relaxed);
        done.store(true, Relaxed);
    }
    let status = post(&mut client);
    eventually("nothing is left", || proxy.metric("evenkeel_endpoint_active") == 0.0);
    (status, worked.load(Relaxed) + elsewhere.load(Relaxed))
}

#[test]
fn what_an_endpoint_may_have_begun_is_not_sent_twice_over_http2() {
    for used in [false, true] {
        for fate in [
            Fate::Closes,
            Fate::Resets,
            Fate::GoesAfter(NO_ERROR),
            Fate::GoesAfter(INTERNAL_ERROR),
            Fate::Stream(CANCEL),
            Fate::Stream(INTERNAL_ERROR),
            Fate::Stream(NO_ERROR),
        ] {
            assert_eq!(meet(fate, used), (502, 1), "{fate:?}, used before: {used}");
        }
    }
}

#[test]
fn what_an_endpoint_says_it_has_not_begun_is_sent_again_over_http2() {
    for used in [false, true] {
        for fate in [
            Fate::GoesBefore(NO_ERROR),
            Fate::GoesBefore(INTERNAL_ERROR),
            Fate::Stream(REFUSED_STREAM),
        ] {
            assert_eq!(meet(fate, used), (200, 1), "{fate:?}, used before: {used}");
        }
    }
}

#[test]
fn a_connection_that_was_closed_at_rest_fails_no_post() {
    let answered = Arc::new(AtomicUsize::new(0));
    let count = answered.clone();
    // One request a connection, and no goodbye.
    let origin = Origin::raw(move |stream, _| {
        let mut wire = Wire::begin(stream)?;
        if let Some(id) = wire.request()? {
            wire.answer(id)?;
            count.fetch_add(1, Relaxed);
        }
        wire.close()
    });
    let proxy = Proxy::start(&config("", &[origin.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    for n in 0..200 {
        assert_eq!(post(&mut client), 200, "number {n}");
        eventually("it is closed", || origin.open() == 0);
    }
    assert_eq!(answered.load(Relaxed), 200);
}

/// The request and the end of the connection it would have taken come in the same moment: the proxy looks at neither before
/// both are there.
#[test]
fn a_connection_that_is_closed_as_a_post_comes_fails_none() {
    let (close, closing) = channel::<()>();
    let closing = Mutex::new(closing);
    let origin = Origin::raw(move |stream, _| {
        let mut wire = Wire::begin(stream)?;
        while let Some(id) = wire.request()? {
            wire.answer(id)?;
            if closing.lock().unwrap().recv().is_ok() {
                break;
            }
        }
        Ok(())
    });
    let proxy = Proxy::start(&config("", &[origin.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    for n in 0..50 {
        assert_eq!(post(&mut client), 200, "number {n}");
        proxy.stop();
        client.send("POST /order HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none");
        close.send(()).unwrap();
        eventually("it is closed", || origin.open() == 0);
        proxy.signal(CONT);
        assert_eq!(client.reply().status, 200, "number {n}");
        close.send(()).unwrap();
        eventually("it is closed", || origin.open() == 0);
    }
}

type Holding = (Origin, Sender<()>, Receiver<(bool, bool)>, Arc<AtomicUsize>);

/// Answers its first request when it is let go; says then how its connection ended.
fn holding() -> Holding {
    let (go, held) = channel::<()>();
    let (ended, end) = channel();
    let (held, ended) = (Mutex::new(held), Mutex::new(ended));
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let origin = Origin::raw(move |stream, _| {
        let mut wire = Wire::begin(stream)?;
        let Some(id) = wire.request()? else { return Ok(()) };
        count.fetch_add(1, Relaxed);
        let _ = held.lock().unwrap().recv();
        wire.answer(id)?;
        let (mut more, mut goodbye) = (false, false);
        while let Ok(Some(frame)) = wire.next() {
            more |= frame.kind == HEADERS;
            goodbye |= frame.kind == GOAWAY && frame.payload[4..8] == NO_ERROR.to_be_bytes();
        }
        ended.lock().unwrap().send((more, goodbye)).unwrap();
        Ok(())
    });
    (origin, go, end, requests)
}

/// While one request is held at an endpoint, `leave` takes it away.
fn leaves(leave: impl FnOnce(&Proxy, SocketAddr, SocketAddr)) {
    let (ill, go, end, requests) = holding();
    let (well, elsewhere) = well();
    let proxy = Proxy::start(&config("", &[ill.addr, well.addr]));
    let mut running = Client::connect(proxy.addr("web"));
    running.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it runs", || requests.load(Relaxed) == 1);
    leave(&proxy, ill.addr, well.addr);
    for _ in 0..10 {
        assert_eq!(get(proxy.addr("web"), "/").status, 200);
    }
    assert_eq!(elsewhere.load(Relaxed), 10);
    go.send(()).unwrap();
    assert_eq!(running.reply().status, 200, "what ran has ended");
    let (more, goodbye) = end.recv_timeout(PATIENCE).expect("the end of the connection");
    assert!(!more, "nothing new came");
    assert!(goodbye, "and it ended in order");
}

#[test]
fn a_draining_endpoints_shared_connection_ends_with_its_last_stream() {
    leaves(|proxy, ill, _| {
        let mut client = Client::connect(proxy.addr("admin"));
        let path = format!("/api/v1/upstreams/u/endpoints/{ill}/drain");
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(client.reply().status, 200);
    });
}

#[test]
fn a_removed_endpoints_shared_connection_ends_with_its_last_stream() {
    leaves(|proxy, _, well| {
        proxy.reload(&config("", &[well]));
    });
}
