//! The health checker of one endpoint: probe, count, tell, wait.
//!
//! Probes start at most `interval` apart. So an endpoint that begins to fail is out within `fall` ×
//! `interval`, plus `timeout` where it fails by silence, and one that recovers is back within `rise` ×
//! `interval`, plus the time its last answer takes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::threshold::Threshold;
use super::{Failed, ProbeTls, Spec, Target, probe};
use crate::base::rng::Rng;
use crate::base::task::{self, Handle};
use crate::endpoint::{Health, State};

/// The most by which the first probe waits, so that those of many endpoints do not leave in one instant.
const MAX_SPREAD: Duration = Duration::from_millis(100);

/// What the endpoints of an upstream are asked, and how they are connected to.
#[derive(Debug)]
pub struct Checked {
    pub spec: Spec,
    pub tls: Option<ProbeTls>,
    /// HTTP probes speak HTTP/2; otherwise they do where TLS agrees on it.
    pub h2: bool,
    /// The upstream's name, for logs.
    pub upstream: Arc<str>,
}

/// Checks `endpoint` until the handle is dropped. Every change is in the endpoint's state before `changed`
/// is called, which must not block. Must be called in a tokio runtime.
///
/// Counting starts from the health the endpoint has: one that was up before a reload takes `fall` failures
/// to go out.
pub fn start(checked: Arc<Checked>, endpoint: Arc<State>, changed: impl Fn() + Send + 'static) -> Handle {
    task::spawn(async move {
        let target = Target {
            addr: endpoint.addr.clone(),
            configured: endpoint.configured.clone(),
        };
        let ask = || probe(&target, &checked.spec, checked.tls.as_ref(), checked.h2);
        run(&checked, &endpoint, Rng::from_entropy(), ask, changed).await;
    })
}

/// The loop; `ask` is one probe and ends within the spec's `timeout`.
async fn run<A: Future<Output = Result<(), Failed>>>(
    checked: &Checked,
    endpoint: &State,
    mut rng: Rng,
    ask: impl Fn() -> A,
    changed: impl Fn(),
) {
    let spec = &checked.spec;
    let mut threshold = Threshold::new(spec.rise, spec.fall, endpoint.health());
    sleep(MAX_SPREAD.min(spec.interval / 10).mul_f64(rng.unit())).await;
    loop {
        let started = Instant::now();
        let result = ask().await;
        let consecutive = threshold.against() + 1;
        let change = threshold.report(result.is_ok());
        if let Some(health) = change {
            endpoint.set_health(health);
            changed();
        }
        tell(&checked.upstream, endpoint, change, result.err(), consecutive);
        sleep_until(started + rng.shortened(spec.interval, spec.jitter)).await;
    }
}

/// One line per change, and one for developers per failure without.
fn tell(upstream: &str, endpoint: &State, change: Option<Health>, failed: Option<Failed>, consecutive: u32) {
    let label = &*endpoint.label;
    let reason = failed.map(|failed| failed.to_string());
    match (change, &reason) {
        (Some(_), None) => info!(
            upstream,
            endpoint = label,
            reason = "probe passed",
            consecutive,
            "endpoint up"
        ),
        (Some(_), Some(reason)) => warn!(upstream, endpoint = label, reason, consecutive, "endpoint down"),
        (None, Some(reason)) => debug!(upstream, endpoint = label, reason, "probe failed"),
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::health::Probe;
    use crate::net::addr::{DialAddr, EndpointAddr};

    fn endpoint(port: u16, health: Health) -> State {
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        State::new(0, DialAddr::Ip(addr), EndpointAddr::Ip(addr), health, 1)
    }

    fn checked(spec: Spec) -> Checked {
        Checked {
            spec,
            tls: None,
            h2: false,
            upstream: "site".into(),
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
            let interval = Duration::from_millis(10 + rng.below(5000));
            let spec = Spec {
                probe: Probe::Tcp,
                interval,
                jitter: rng.unit(),
                timeout: interval.mul_f64(rng.unit()),
                rise: 1 + rng.below(5) as u32,
                fall: 1 + rng.below(5) as u32,
                port: None,
            };
            simulate(seed, checked(spec), rng).await;
        }
    }

    async fn simulate(seed: u64, checked: Checked, mut rng: Rng) {
        let spec = checked.spec.clone();
        let endpoint = endpoint(1, Health::Checking);
        let mood = Cell::new(Mood::Well);
        // The results since the last change, and when changes came.
        let results = RefCell::new(Vec::new());
        let changes = RefCell::new(Vec::new());
        let starts = RefCell::new(Vec::new());
        let ask = async || {
            starts.borrow_mut().push(Instant::now());
            let now = mood.get();
            if now == Mood::Silent {
                sleep(spec.timeout).await;
            }
            results.borrow_mut().push(now == Mood::Well);
            if now == Mood::Well {
                Ok(())
            } else {
                Err(Failed::Answer(format!("{now:?}")))
            }
        };
        let changed = || {
            let (health, seen) = (endpoint.health(), results.take());
            let needed = match (changes.borrow().is_empty(), health) {
                (true, _) => 1,
                (_, Health::Up) => spec.rise,
                _ => spec.fall,
            };
            let run = seen.iter().rev().take_while(|r| **r == (health == Health::Up)).count();
            assert_eq!(run, needed as usize, "seed {seed}: {spec:?}");
            changes.borrow_mut().push(Instant::now());
        };
        let story = async {
            // Up for the first time: after the spread alone.
            sleep(MAX_SPREAD.min(spec.interval / 10)).await;
            tokio::task::yield_now().await;
            assert_eq!(endpoint.health(), Health::Up, "seed {seed}: {spec:?}");
            for _ in 0..20 {
                let before = endpoint.health();
                let next = [Mood::Well, Mood::Refusing, Mood::Silent][rng.below(3) as usize];
                // A probe under way still ends as it began.
                mood.set(next);
                let (expected, bound) = match next {
                    Mood::Well => (Health::Up, spec.interval * spec.rise + spec.timeout),
                    Mood::Refusing => (Health::Down, spec.interval * spec.fall),
                    Mood::Silent => (Health::Down, spec.interval * spec.fall + spec.timeout),
                };
                // The clock of the runtime ticks in milliseconds and rounds each sleep up.
                let ticks = Duration::from_millis(2) * (spec.rise.max(spec.fall) + 2);
                let told = changes.borrow().len();
                sleep(bound + ticks).await;
                assert_eq!(endpoint.health(), expected, "seed {seed}: {next:?} {spec:?}");
                assert_eq!(changes.borrow().len() - told, usize::from(before != expected));
                sleep(spec.interval.mul_f64(3.0 * rng.unit())).await;
            }
        };
        tokio::select! {
            () = run(&checked, &endpoint, Rng::new(seed), ask, changed) => unreachable!("the loop never ends"),
            () = story => {}
        }
        let starts = starts.into_inner();
        let gaps: Vec<_> = starts.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.iter().all(|gap| *gap <= spec.interval + Duration::from_millis(1)));
    }

    #[tokio::test]
    async fn tells_of_a_real_endpoint_and_ends_with_its_handle() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let endpoint = Arc::new(endpoint(addr.port(), Health::Checking));
        let spec = Spec {
            probe: Probe::Tcp,
            interval: Duration::from_millis(10),
            jitter: 0.2,
            timeout: Duration::from_secs(30),
            rise: 2,
            fall: 2,
            port: None,
        };
        let (tell, mut told) = mpsc::unbounded_channel();
        let seen = endpoint.clone();
        let handle = start(Arc::new(checked(spec)), endpoint.clone(), move || {
            tell.send(seen.health()).unwrap();
        });
        assert_eq!(told.recv().await, Some(Health::Up));
        drop(listener);
        assert_eq!(told.recv().await, Some(Health::Down));
        let _listener = TcpListener::bind(addr).await.unwrap();
        assert_eq!(told.recv().await, Some(Health::Up));
        drop(handle);
        assert_eq!(told.recv().await, None, "the loop and its callback are gone");
    }

    #[tokio::test(start_paused = true)]
    async fn health_carried_over_a_reload_is_where_counting_starts() {
        let endpoint = endpoint(1, Health::Up);
        let spec = Spec {
            probe: Probe::Tcp,
            interval: Duration::from_secs(1),
            jitter: 0.0,
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            port: None,
        };
        let checked = checked(spec);
        let asked = Cell::new(0);
        let ask = async || {
            asked.set(asked.get() + 1);
            Err(Failed::Connect("refused".to_owned()))
        };
        let (tell, mut told) = mpsc::unbounded_channel();
        tokio::select! {
            () = run(&checked, &endpoint, Rng::new(1), ask, || tell.send(()).unwrap()) => {}
            _ = told.recv() => {}
        }
        assert_eq!((asked.get(), endpoint.health()), (3, Health::Down));
    }
}
