//! The checker in simulated time, and against a real endpoint.

use std::cell::{Cell, RefCell};

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::health::Probe;
use crate::net::addr::{DialAddr, EndpointAddr};

fn target(port: u16) -> Target {
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    Target {
        addr: DialAddr::Ip(addr),
        configured: EndpointAddr::Ip(addr),
    }
}

fn watcher(upstream: &str, port: u16, health: Health) -> Watcher {
    let Target { addr, configured } = target(port);
    Watcher {
        upstream: upstream.into(),
        endpoint: Arc::new(State::new(0, addr, configured, health, 1)),
    }
}

fn every(interval: Duration) -> Spec {
    Spec {
        probe: Probe::Tcp,
        agent: None,
        interval,
        interval_down: interval,
        interval_changing: interval,
        jitter: 0.2,
        timeout: interval,
        rise: 2,
        fall: 3,
        port: None,
    }
}

fn shared(permits: usize, changed: impl Fn(&Arc<str>) + Send + Sync + 'static) -> Shared {
    Shared {
        permits: Arc::new(Semaphore::new(permits)),
        changed: Arc::new(changed),
    }
}

fn found(spec: &Spec, watchers: &[Watcher], shared: Shared) -> Found {
    let initial = watchers[0].endpoint.health();
    Found {
        inner: Mutex::new(Inner {
            threshold: Threshold::new(spec.rise, spec.fall, initial),
            said: Said::default(),
            watchers: watchers.to_vec(),
        }),
        shared,
    }
}

/// What an endpoint does to probes, for a time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Well,
    Refusing,
    /// Fails only at the time-out.
    Silent,
}

/// Settings and moods from one seed, run on a paused clock: every change comes within its bound, and
/// none comes for fewer than `fall` or `rise` results.
#[tokio::test(start_paused = true)]
async fn leaves_and_returns_within_the_documented_bounds() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut interval = || Duration::from_millis(10 + rng.below(5000));
        let spec = Spec {
            interval_down: interval(),
            interval_changing: interval(),
            ..every(interval())
        };
        let spec = Spec {
            jitter: rng.unit(),
            timeout: spec.interval.mul_f64(rng.unit()),
            rise: 1 + rng.below(5) as u32,
            fall: 1 + rng.below(5) as u32,
            ..spec
        };
        simulate(seed, spec, rng).await;
    }
}

async fn simulate(seed: u64, spec: Spec, mut rng: Rng) {
    let watcher = watcher("site", 1, Health::Checking);
    let endpoint = &watcher.endpoint;
    let mood = Cell::new(Mood::Well);
    let results = RefCell::new(Vec::new());
    let starts = RefCell::new(Vec::new());
    let ask = async || {
        starts.borrow_mut().push(Instant::now());
        let now = mood.get();
        if now == Mood::Silent {
            sleep(spec.timeout).await;
        }
        results.borrow_mut().push(now == Mood::Well);
        match now {
            Mood::Well => Ok(()),
            Mood::Refusing => Err(Failed::Connect(format!("{now:?}"))),
            Mood::Silent => Err(Failed::Timeout(spec.timeout)),
        }
    };
    let changes = Arc::new(Mutex::new(0));
    let count = changes.clone();
    let found = found(
        &spec,
        std::slice::from_ref(&watcher),
        shared(1, move |_| *count.lock().unwrap() += 1),
    );
    let checking = every(Duration::ZERO).interval.max(spread(1));
    let longest = spec.interval.max(spec.interval_down).max(spec.interval_changing);
    let story = async {
        // Up for the first time: after the spread alone.
        sleep(checking + Duration::from_millis(1)).await;
        tokio::task::yield_now().await;
        assert_eq!(endpoint.health(), Health::Up, "seed {seed}: {spec:?}");
        results.borrow_mut().clear();
        for _ in 0..20 {
            let before = endpoint.health();
            let next = [Mood::Well, Mood::Refusing, Mood::Silent][rng.below(3) as usize];
            // A probe under way still ends as it began.
            mood.set(next);
            let (expected, needed, takes) = match next {
                Mood::Well => (Health::Up, spec.rise, spec.timeout),
                Mood::Refusing => (Health::Down, spec.fall, Duration::ZERO),
                Mood::Silent => (Health::Down, spec.fall, spec.timeout),
            };
            let first = spec.interval.max(spec.interval_down).max(spec.interval_changing);
            let bound = first + spec.interval_changing.max(takes) * (needed - 1) + takes;
            // The clock of the runtime ticks in milliseconds and rounds each sleep up.
            let ticks = Duration::from_millis(2) * (spec.rise.max(spec.fall) + 2);
            let told = *changes.lock().unwrap();
            sleep(bound + ticks).await;
            assert_eq!(endpoint.health(), expected, "seed {seed}: {next:?} {spec:?}");
            assert_eq!(*changes.lock().unwrap() - told, u32::from(before != expected));
            if before != expected {
                let seen = results.take();
                let run = seen.split(|r| *r != (next == Mood::Well)).map(<[bool]>::len);
                assert!(run.max() >= Some(needed as usize), "seed {seed}: {spec:?}");
            }
            sleep(spec.interval.mul_f64(3.0 * rng.unit())).await;
        }
    };
    tokio::select! {
        () = run(&spec, &found, Rng::new(seed), spread(1), ask) => unreachable!("the loop never ends"),
        () = story => {}
    }
    let starts = starts.into_inner();
    let gaps: Vec<_> = starts.windows(2).map(|w| w[1] - w[0]).collect();
    let longest = longest.max(spec.timeout) + Duration::from_millis(2);
    assert!(gaps.iter().all(|gap| *gap <= longest));
}

#[tokio::test(start_paused = true)]
async fn intervals_follow_the_health() {
    let spec = Spec {
        interval_down: Duration::from_secs(10),
        interval_changing: Duration::from_secs(1),
        jitter: 0.0,
        ..every(Duration::from_secs(5))
    };
    let watcher = watcher("site", 1, Health::Up);
    let found = found(&spec, &[watcher], shared(1, |_| ()));
    let mut then = |passed: bool| {
        let result = passed.then_some(()).ok_or(Failed::Connect("refused".into()));
        found.report(result, Duration::ZERO, &spec).as_secs()
    };
    let said = [true, false, false, false, false, true, true].map(&mut then);
    assert_eq!(said, [5, 1, 1, 10, 10, 1, 5]);
}

#[tokio::test]
async fn tells_every_watcher_of_a_real_endpoint_and_ends_with_its_handle() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let spec = Spec {
        timeout: Duration::from_secs(30),
        fall: 2,
        ..every(Duration::from_millis(10))
    };
    let checked = Checked {
        spec,
        tls: None,
        h2: false,
    };
    let watchers = ["a", "b"].map(|name| watcher(name, addr.port(), Health::Checking));
    let (tell, mut told) = mpsc::unbounded_channel();
    let shared = shared(1, move |upstream| tell.send(upstream.clone()).unwrap());
    let checker = Checker::start(target(addr.port()), checked, watchers.to_vec(), Duration::ZERO, &shared);
    let mut both = async || [told.recv().await.unwrap(), told.recv().await.unwrap()];
    let health = || watchers.each_ref().map(|w| w.endpoint.health());
    assert_eq!(both().await.map(|name| name.to_string()), ["a", "b"]);
    assert_eq!(health(), [Health::Up; 2]);
    drop(listener);
    both().await;
    assert_eq!(health(), [Health::Down; 2]);
    let changes = watchers[1].endpoint.record.changes();
    let seen: Vec<_> = changes.iter().map(|c| (c.from, c.to, c.reason.as_str())).collect();
    assert_eq!(
        seen,
        [("up", "down", "connection refused"), ("checking", "up", "probe passed")]
    );
    assert!(watchers[0].endpoint.record.probes(ProbeResult::ConnectFailed) >= 2);

    // Who comes later learns what is known, without a probe of its own.
    let late = watcher("c", addr.port(), Health::Checking);
    checker.watch(vec![late.clone()]);
    assert_eq!(told.recv().await.as_deref(), Some("c"));
    assert_eq!(late.endpoint.health(), Health::Down);
    drop((checker, shared));
    assert_eq!(told.recv().await, None, "the loop and its callback are gone");
}

#[tokio::test(start_paused = true)]
async fn health_carried_over_a_reload_is_where_counting_starts() {
    let spec = every(Duration::from_secs(1));
    let watcher = watcher("site", 1, Health::Up);
    let (tell, mut told) = mpsc::unbounded_channel();
    let found = found(
        &spec,
        std::slice::from_ref(&watcher),
        shared(1, move |_| tell.send(()).unwrap()),
    );
    let asked = Cell::new(0);
    let ask = async || {
        asked.set(asked.get() + 1);
        Err(Failed::Connect("refused".to_owned()))
    };
    tokio::select! {
        () = run(&spec, &found, Rng::new(1), Duration::ZERO, ask) => {}
        _ = told.recv() => {}
    }
    assert_eq!((asked.get(), watcher.endpoint.health()), (3, Health::Down));
}

/// Ten thousand targets on a paused clock: in no 10 ms does more than a few times the share of it begin, from the
/// second interval on hardly more than chance makes of an even flow; and never more than allowed run at once.
#[tokio::test(start_paused = true)]
async fn ten_thousand_probes_come_without_bursts() {
    const TARGETS: usize = 10_000;
    let spec = Arc::new(every(Duration::from_secs(5)));
    let begun = Instant::now();
    let slots = Arc::new(Mutex::new(vec![0u32; 3000]));
    let running = Arc::new(Mutex::new((0, 0)));
    let shared = shared(512, |_| ());
    let tasks: Vec<_> = (0..TARGETS)
        .map(|n| {
            let found = found(&spec, &[watcher("site", 1, Health::Up)], shared.clone());
            let (spec, slots, running) = (spec.clone(), slots.clone(), running.clone());
            task::spawn(async move {
                let ask = || {
                    let (slots, running) = (slots.clone(), running.clone());
                    async move {
                        let slot = begun.elapsed().as_millis() as usize / 10;
                        if let Some(slot) = slots.lock().unwrap().get_mut(slot) {
                            *slot += 1;
                        }
                        {
                            let (now, most) = &mut *running.lock().unwrap();
                            *now += 1;
                            *most = (*most).max(*now);
                        }
                        sleep(Duration::from_millis(20)).await;
                        running.lock().unwrap().0 -= 1;
                        Ok(())
                    }
                };
                run(&spec, &found, Rng::new(n as u64), spread(TARGETS), ask).await;
            })
        })
        .collect();
    sleep(Duration::from_secs(29)).await;
    drop(tasks);
    let slots = slots.lock().unwrap();
    // 200 µs apart at first: 50 in 10 ms, and the second ones among them.
    assert!(slots.iter().all(|n| *n <= 120), "{:?}", slots.iter().max());
    // 10,000 in 4.5 s are 22 in 10 ms; chance (a Poisson distribution) makes at most 50 of it.
    let later = &slots[1000..2900];
    assert!(later.iter().all(|n| *n <= 55), "{:?}", later.iter().max());
    let total: u32 = later.iter().sum();
    assert!((38_000..=46_000).contains(&total), "{total}");
    assert!(running.lock().unwrap().1 <= 512);
}
