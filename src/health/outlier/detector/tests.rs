//! The detector in seeded simulations: thousands of requests on a clock of numbers.

use super::*;

fn spec() -> Spec {
    Spec {
        consecutive_5xx: 5,
        consecutive_gateway: 5,
        success_rate: 1.9,
        failure_rate: 0.85,
        latency: 1.9,
        minimum_hosts: 5,
        minimum_requests: 100,
        window: Duration::from_secs(10),
        base_ejection: Duration::from_secs(10),
        max_ejection: Duration::from_secs(300),
        max_ejected: 0.5,
    }
}

/// How an endpoint does: the share of 5xx, and milliseconds until an answer.
#[derive(Debug, Clone, Copy)]
struct Host {
    failing: f64,
    latency_ms: f64,
}

const WELL: Host = Host {
    failing: 0.01,
    latency_ms: 20.0,
};

/// Endpoints under load, seen by a detector. Counts as the data path does.
struct World {
    detector: Detector,
    hosts: Vec<Host>,
    seen: Vec<Seen>,
    streaks: Vec<u32>,
    ejected: Vec<bool>,
    rng: Rng,
    now: Duration,
}

impl World {
    fn new(seed: u64, spec: Spec, hosts: &[Host]) -> Self {
        let seen = |id| Seen {
            id,
            usable: true,
            totals: Totals::default(),
            tripped: None,
        };
        Self {
            detector: Detector::new(spec),
            hosts: hosts.to_vec(),
            seen: (0..hosts.len() as u32).map(seen).collect(),
            streaks: vec![0; hosts.len()],
            ejected: vec![false; hosts.len()],
            rng: Rng::new(seed),
            now: Duration::from_secs(1000),
        }
    }

    /// `per_second` requests to whoever is in, for `seconds`; every decision with its time.
    fn run(&mut self, seconds: u64, per_second: u64) -> Vec<(Duration, Decision)> {
        let mut told = Vec::new();
        let step = Duration::from_secs(1) / per_second as u32;
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.now += step;
            let open: Vec<usize> = (0..self.hosts.len())
                .filter(|n| !self.ejected[*n] && self.seen[*n].usable)
                .collect();
            let n = open[self.rng.below(open.len() as u64) as usize];
            self.request(n);
            let tripped = self.seen.iter().any(|seen| seen.tripped.is_some());
            if tripped || self.detector.next().is_some_and(|next| next <= self.now) {
                for decision in self.judge() {
                    told.push((self.now, decision));
                }
            }
        }
        told
    }

    fn request(&mut self, n: usize) {
        let (host, seen) = (self.hosts[n], &mut self.seen[n]);
        let failed = self.rng.unit() < host.failing;
        let latency = host.latency_ms * (0.5 + self.rng.unit());
        seen.totals.latency_us += (latency * 1000.0) as u64;
        if failed {
            seen.totals.server_errors += 1;
            self.streaks[n] += 1;
        } else {
            seen.totals.successes += 1;
            self.streaks[n] = 0;
        }
        let limit = self.detector.spec().consecutive_5xx;
        seen.tripped = (limit > 0 && self.streaks[n] >= limit).then_some(EjectReason::Consecutive5xx);
    }

    fn judge(&mut self) -> Vec<Decision> {
        let decisions = self.detector.judge(self.now, &self.seen, &mut self.rng);
        for decision in &decisions {
            let (id, out) = match decision {
                Decision::Eject { id, .. } => (*id as usize, true),
                Decision::Return { id } => (*id as usize, false),
            };
            assert_ne!(self.ejected[id], out, "{decision:?}");
            self.ejected[id] = out;
            self.streaks[id] = 0;
            self.seen[id].tripped = None;
        }
        let usable = self.seen.iter().filter(|s| s.usable).count();
        let out = (0..self.seen.len())
            .filter(|n| self.seen[*n].usable && self.ejected[*n])
            .count();
        let allowed = ((usable as f64 * self.detector.spec().max_ejected) as usize).max(1);
        // More may be out already when probes have taken others out since.
        if decisions.iter().any(|d| matches!(d, Decision::Eject { .. })) {
            assert!(out <= allowed && out < usable, "{out} of {usable} are out");
        }
        decisions
    }

    fn out(&self) -> Vec<usize> {
        (0..self.ejected.len()).filter(|n| self.ejected[*n]).collect()
    }
}

fn ejected(told: &[(Duration, Decision)]) -> Vec<(u32, EjectReason)> {
    let of = |d: &Decision| match d {
        Decision::Eject { id, reason, .. } => Some((*id, *reason)),
        Decision::Return { .. } => None,
    };
    told.iter().filter_map(|(_, d)| of(d)).collect()
}

fn with(host: Host, n: usize) -> Vec<Host> {
    let mut hosts = vec![WELL; n];
    hosts[0] = host;
    hosts
}

#[test]
fn who_does_as_the_others_do_is_left_alone() {
    for seed in 0..5 {
        for failing in [0.0, 0.01, 0.05] {
            let host = Host { failing, ..WELL };
            let spec = Spec {
                // At 5 % five in a row happen by chance.
                consecutive_5xx: 0,
                ..spec()
            };
            let mut world = World::new(seed, spec, &[host; 8]);
            assert_eq!(world.run(60, 1000), [], "seed {seed}, {failing}");
        }
    }
}

#[test]
fn one_that_fails_more_often_than_the_others_goes() {
    for seed in 0..30 {
        let host = Host { failing: 0.3, ..WELL };
        let spec = Spec {
            consecutive_5xx: 0,
            ..spec()
        };
        let mut world = World::new(seed, spec, &with(host, 8));
        let told = world.run(9, 1000);
        assert_eq!(ejected(&told), [(0, EjectReason::SuccessRate)], "seed {seed}");
    }
}

#[test]
fn one_that_fails_in_a_row_goes_with_the_fifth_failure() {
    for seed in 0..30 {
        let host = Host { failing: 1.0, ..WELL };
        let mut world = World::new(seed, spec(), &with(host, 3));
        let told = world.run(2, 100);
        assert_eq!(ejected(&told), [(0, EjectReason::Consecutive5xx)], "seed {seed}");
        assert_eq!(world.seen[0].totals.server_errors, 5, "not one more got through");
    }
}

#[test]
fn a_slow_one_goes() {
    for seed in 0..30 {
        let host = Host {
            latency_ms: 400.0,
            ..WELL
        };
        let mut world = World::new(seed, spec(), &with(host, 8));
        let told = world.run(9, 1000);
        assert_eq!(ejected(&told), [(0, EjectReason::Latency)], "seed {seed}");
        // Off: it stays.
        let off = Spec { latency: 0.0, ..spec() };
        let mut world = World::new(seed, off, &with(host, 8));
        assert_eq!(world.run(30, 1000), [], "seed {seed}");
    }
}

#[test]
fn little_traffic_says_nothing() {
    for seed in 0..30 {
        // Half of its few answers fail: a rate of that few is chance.
        let host = Host { failing: 0.5, ..WELL };
        let spec = Spec {
            consecutive_5xx: 0,
            ..spec()
        };
        let mut world = World::new(seed, spec, &with(host, 8));
        assert_eq!(world.run(300, 20), [], "seed {seed}");
    }
}

#[test]
fn what_is_long_ago_is_forgotten() {
    // Ten seconds of failures among too little traffic to judge, then all is well with much of it.
    let spec = Spec {
        consecutive_5xx: 0,
        ..spec()
    };
    let mut world = World::new(1, spec, &with(Host { failing: 1.0, ..WELL }, 8));
    assert_eq!(world.run(10, 60), []);
    world.hosts[0] = WELL;
    assert_eq!(world.run(12, 60), []);
    assert_eq!(world.run(60, 2000), []);
}

#[test]
fn a_failure_all_share_ejects_nobody_by_comparison() {
    for seed in 0..10 {
        let spec = Spec {
            consecutive_5xx: 0,
            ..spec()
        };
        let host = Host { failing: 1.0, ..WELL };
        let mut world = World::new(seed, spec, &[host; 8]);
        assert_eq!(world.run(30, 1000), [], "seed {seed}");
    }
}

#[test]
fn the_share_is_kept_and_the_last_one_stays() {
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let n = 1 + rng.below(12) as usize;
        let spec = Spec {
            max_ejected: rng.unit(),
            minimum_hosts: 2,
            minimum_requests: 10,
            ..spec()
        };
        let hosts: Vec<_> = (0..n)
            .map(|_| Host {
                failing: rng.unit(),
                latency_ms: 1.0 + 500.0 * rng.unit(),
            })
            .collect();
        let mut world = World::new(seed, spec, &hosts);
        // The world asserts both at every decision; probes take some out and in meanwhile.
        for _ in 0..10 {
            world.run(20, 200);
            let n = rng.below(n as u64) as usize;
            let others = (0..world.seen.len()).any(|m| m != n && world.seen[m].usable && !world.ejected[m]);
            world.seen[n].usable = !world.seen[n].usable || !others;
        }
        if n == 1 {
            assert_eq!(world.out(), [0usize; 0]);
        }
    }
}

#[test]
fn ejections_grow_are_capped_and_decay() {
    let mut world = World::new(3, spec(), &with(Host { failing: 1.0, ..WELL }, 4));
    let told = world.run(3500, 40);
    let times: Vec<f64> = told
        .iter()
        .filter_map(|(_, d)| match d {
            Decision::Eject { time, .. } => Some(time.as_secs_f64()),
            Decision::Return { .. } => None,
        })
        .collect();
    for (n, time) in times.iter().enumerate() {
        let full = (10.0 * (n + 1) as f64).min(300.0);
        assert!((0.9 * full..=full).contains(time), "{n}: {time}");
    }
    assert!(times.len() > 18, "{times:?}");
    // It gets well; after a while a new failure counts as if it had not happened before.
    world.hosts[0] = WELL;
    world.run(3600, 100);
    world.hosts[0].failing = 1.0;
    let told = world.run(5, 100);
    assert!(
        matches!(told.as_slice(), [(_, Decision::Eject { times: 1, .. })]),
        "{told:?}"
    );
}

#[test]
fn those_that_are_gone_are_forgotten_and_new_ones_start_fresh() {
    let mut world = World::new(5, spec(), &with(Host { failing: 1.0, ..WELL }, 3));
    world.run(1, 100);
    assert_eq!(world.out(), [0]);
    let left = world.seen.split_off(1);
    let decisions = world.detector.judge(world.now, &left, &mut world.rng);
    assert_eq!(decisions, []);
    assert_eq!(world.detector.hosts.len(), 2);
}
