//! How much an endpoint can do at once, found out by itself: a limit that follows the gradient of latency.
//!
//! An endpoint with room answers in its own time, however many ask; one without keeps requests waiting, and its latency
//! grows with their number. So latency now is compared with latency when there was room: as long as both are alike, the
//! limit may grow; as latency grows, the limit shrinks in proportion, before the endpoint breaks.
//!
//! As in Envoy's adaptive concurrency and Netflix's gradient2, with two differences. Latencies enter as their geometric
//! mean, which a few very slow requests do not move. And what "room" is, is measured anew where load is always at the limit:
//! twice a minute the limit is halved for one window, as BBR does to find a path's true length; without that a limit that
//! is slightly too high would teach itself that slow is normal.

use std::time::Duration;

use crate::base::rng::Rng;

/// `adaptive = …` as validated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// Where an endpoint begins that nothing is known of.
    pub initial: u32,
    pub min: u32,
    pub max: u32,
    /// How much slower than with room answers may be before the limit shrinks: 1.5 is half as slow again.
    pub tolerance: f64,
}

/// The shortest window, and the fewest answers that make one.
const WINDOW: Duration = Duration::from_millis(100);
const SAMPLES: u32 = 20;
/// How long a measured latency with room counts: it is the smallest of this epoch and the one before.
const EPOCH: Duration = Duration::from_secs(30);
/// How far one window moves the limit from where it is to where it should be.
const STEP: f64 = 0.3;
/// After a window with a greater share of failures the limit shrinks by a tenth, whatever latency says: an endpoint that
/// refuses quickly is not fast.
const FAILING: f64 = 0.1;

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    Answered(Duration),
    /// It was too much for the endpoint: a time-out, a reset, 503, 429.
    Overloaded,
}

/// One endpoint's limit and what it follows from.
#[derive(Debug)]
pub struct Adaptive {
    spec: Spec,
    limit: f64,
    window: Window,
    /// Logarithms of seconds: with room, in this epoch and the one before.
    room: [f64; 2],
    epoch_ends: Duration,
    /// The next window measures with half the limit.
    probing: bool,
    /// No window of this epoch had less under way than half the limit.
    crowded: bool,
}

#[derive(Debug, Default)]
struct Window {
    begun: Duration,
    answered: u32,
    failed: u32,
    /// Sum of the logarithms of latencies in seconds.
    logs: f64,
    /// The most that was under way.
    busiest: u32,
}

impl Adaptive {
    pub fn new(spec: Spec) -> Self {
        Self {
            spec,
            limit: f64::from(spec.initial.clamp(spec.min, spec.max)),
            window: Window::default(),
            room: [f64::INFINITY; 2],
            epoch_ends: EPOCH,
            probing: false,
            crowded: true,
        }
    }

    /// Requests that may be under way now.
    pub fn limit(&self) -> u32 {
        let now = if self.probing { self.limit / 2.0 } else { self.limit };
        (now as u32).clamp(self.spec.min, self.spec.max)
    }

    /// Takes one attempt into account. `active`: how many were under way with it. `now`: since any fixed time.
    pub fn observe(&mut self, sample: Sample, active: u32, now: Duration, rng: &mut Rng) {
        let window = &mut self.window;
        if window.answered + window.failed == 0 {
            window.begun = now;
        }
        match sample {
            Sample::Answered(latency) => {
                window.answered += 1;
                window.logs += latency.as_secs_f64().max(1e-6).ln();
            }
            Sample::Overloaded => window.failed += 1,
        }
        window.busiest = window.busiest.max(active);
        let samples = window.answered + window.failed;
        if samples >= SAMPLES && now.saturating_sub(window.begun) >= WINDOW {
            let window = std::mem::take(window);
            self.close(&window, now, rng);
        }
    }

    fn close(&mut self, window: &Window, now: Duration, rng: &mut Rng) {
        let failing = f64::from(window.failed) > FAILING * f64::from(window.answered + window.failed);
        let mean = window.logs / f64::from(window.answered.max(1));
        let [current, _] = &mut self.room;
        if window.answered > window.failed {
            *current = current.min(mean);
        }
        let crowded = f64::from(window.busiest) > self.limit / 2.0;
        self.crowded &= crowded;
        let probed = std::mem::take(&mut self.probing);
        if failing {
            self.limit *= 0.9;
        } else if !probed {
            let [current, before] = self.room;
            let room = current.min(before);
            // How much slower than with room, as a factor of at least a half.
            let gradient = (self.spec.tolerance * (room - mean).exp()).clamp(0.5, 1.0);
            // Some more are let in than were, to find out whether they wait.
            let target = self.limit * gradient + self.limit.sqrt();
            // What is not used teaches nothing about what could be.
            if crowded || target < self.limit {
                self.limit += STEP * (target - self.limit);
            }
        }
        self.limit = self.limit.clamp(f64::from(self.spec.min), f64::from(self.spec.max));
        if now >= self.epoch_ends {
            // Always busy: nobody knows what it would do with room. Jitter, or all proxies would measure at once.
            self.probing = self.crowded;
            self.crowded = true;
            let [current, _] = self.room;
            self.room = [f64::INFINITY, current];
            self.epoch_ends = now + rng.shortened(EPOCH, 0.3);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BinaryHeap;

    use super::*;

    const SPEC: Spec = Spec {
        initial: 20,
        min: 4,
        max: 1_000,
        tolerance: 1.5,
    };

    /// What is seen of one endpoint in a stretch of time.
    #[derive(Debug, Default)]
    struct Seen {
        admitted: u32,
        shed: u32,
        latencies: Vec<f64>,
        limits: Vec<u32>,
    }

    impl Seen {
        fn quantile(&self, q: f64) -> f64 {
            let mut sorted = self.latencies.clone();
            sorted.sort_by(f64::total_cmp);
            sorted[((sorted.len() - 1) as f64 * q) as usize]
        }

        fn mean_limit(&self) -> f64 {
            f64::from(self.limits.iter().sum::<u32>()) / self.limits.len() as f64
        }
    }

    /// An endpoint with some workers and one queue behind a limit, asked at random times.
    struct World {
        adaptive: Adaptive,
        rng: Rng,
        now: f64,
        /// When each worker is free, the soonest first.
        workers: BinaryHeap<std::cmp::Reverse<u64>>,
        /// When answers come, the soonest first, and when they were asked for.
        pending: BinaryHeap<std::cmp::Reverse<(u64, u64)>>,
    }

    const NANOS: f64 = 1e9;

    impl World {
        fn new(seed: u64, workers: usize) -> Self {
            Self {
                adaptive: Adaptive::new(SPEC),
                rng: Rng::new(seed),
                now: 0.0,
                workers: std::iter::repeat_n(std::cmp::Reverse(0), workers).collect(),
                pending: BinaryHeap::new(),
            }
        }

        fn resize(&mut self, workers: usize) {
            let now = (self.now * NANOS) as u64;
            self.workers = std::iter::repeat_n(std::cmp::Reverse(now), workers).collect();
        }

        fn exponential(&mut self, mean: f64) -> f64 {
            -mean * (1.0 - self.rng.unit()).ln()
        }

        /// Asks `rate` times a second for `seconds`; an answer takes a worker `service` seconds in the mean.
        fn run(&mut self, seconds: f64, rate: f64, service: f64) -> Seen {
            let mut seen = Seen::default();
            let end = self.now + seconds;
            while self.now < end {
                self.now += self.exponential(1.0 / rate);
                while let Some(std::cmp::Reverse((at, asked))) = self.pending.peek().copied() {
                    if at as f64 / NANOS > self.now {
                        break;
                    }
                    let active = self.pending.len() as u32;
                    self.pending.pop();
                    let latency = Duration::from_nanos(at - asked);
                    seen.latencies.push(latency.as_secs_f64());
                    let now = Duration::from_nanos(at);
                    self.adaptive
                        .observe(Sample::Answered(latency), active, now, &mut self.rng);
                    seen.limits.push(self.adaptive.limit());
                }
                if self.pending.len() as u32 >= self.adaptive.limit() {
                    seen.shed += 1;
                    continue;
                }
                seen.admitted += 1;
                let asked = (self.now * NANOS) as u64;
                let std::cmp::Reverse(free) = self.workers.pop().unwrap();
                let took = (self.exponential(service) * NANOS) as u64;
                let done = free.max(asked) + took;
                self.workers.push(std::cmp::Reverse(done));
                self.pending.push(std::cmp::Reverse((done, asked)));
            }
            seen
        }
    }

    /// Answers per second an endpoint with so many workers can give.
    fn capacity(workers: usize) -> f64 {
        workers as f64 / SERVICE
    }

    const SERVICE: f64 = 0.02;

    #[test]
    fn an_endpoint_asked_twice_what_it_can_do_is_kept_busy_and_fast() {
        for (workers, seed) in [(8, 1), (32, 2), (32, 3), (100, 4)] {
            let mut world = World::new(seed, workers);
            let rate = 2.0 * capacity(workers);
            world.run(20.0, rate, SERVICE);
            let seen = world.run(60.0, rate, SERVICE);
            let (limit, done) = (
                seen.mean_limit(),
                seen.latencies.len() as f64 / 60.0 / capacity(workers),
            );
            assert!(done > 0.95, "{workers} workers: {done} of what they can do");
            let times = limit / workers as f64;
            assert!((1.0..3.2).contains(&times), "{workers} workers: limit {limit}");
            assert!(
                seen.quantile(0.5) < 3.0 * SERVICE,
                "{workers} workers: {}",
                seen.quantile(0.5)
            );
            // One in a hundred takes 92 ms without any wait.
            assert!(seen.quantile(0.99) < 0.15, "{workers} workers: {}", seen.quantile(0.99));
            assert!(seen.shed > seen.admitted / 2, "the rest was sent away");
        }
    }

    #[test]
    fn overload_without_end_does_not_teach_that_slow_is_normal() {
        let mut world = World::new(7, 16);
        let rate = 3.0 * capacity(16);
        world.run(600.0, rate, SERVICE);
        let seen = world.run(60.0, rate, SERVICE);
        assert!(seen.mean_limit() < 3.0 * 16.0, "{}", seen.mean_limit());
        assert!(seen.quantile(0.5) < 3.0 * SERVICE, "{}", seen.quantile(0.5));
    }

    #[test]
    fn the_limit_follows_what_the_endpoint_loses_and_gets_back() {
        let mut world = World::new(3, 32);
        let rate = 2.0 * capacity(32);
        world.run(60.0, rate, SERVICE);
        let whole = world.run(20.0, rate, SERVICE).mean_limit();
        world.resize(16);
        world.run(20.0, rate, SERVICE);
        let seen = world.run(20.0, rate, SERVICE);
        let half = seen.mean_limit();
        assert!(half < 0.75 * whole && half >= 16.0, "{whole} became {half}");
        assert!(seen.quantile(0.99) < 0.15, "{}", seen.quantile(0.99));
        world.resize(32);
        world.run(20.0, rate, SERVICE);
        let again = world.run(20.0, rate, SERVICE);
        assert!(again.mean_limit() > 32.0, "{}", again.mean_limit());
        assert!(again.latencies.len() as f64 / 20.0 > 0.95 * capacity(32));
    }

    #[test]
    fn an_endpoint_with_room_sheds_nobody() {
        let mut world = World::new(5, 32);
        world.run(30.0, 0.5 * capacity(32), SERVICE);
        let seen = world.run(120.0, 0.5 * capacity(32), SERVICE);
        assert!(
            seen.shed * 10_000 <= seen.admitted,
            "{} of {}",
            seen.shed,
            seen.admitted
        );
    }

    #[test]
    fn refusing_quickly_is_not_being_fast() {
        let mut adaptive = Adaptive::new(SPEC);
        let mut rng = Rng::new(1);
        for n in 0..10_000u64 {
            let sample = match n % 4 {
                0 => Sample::Overloaded,
                _ => Sample::Answered(Duration::from_millis(1)),
            };
            adaptive.observe(sample, adaptive.limit(), Duration::from_millis(n * 5), &mut rng);
        }
        assert_eq!(adaptive.limit(), SPEC.min);
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let mut adaptive = Adaptive::new(SPEC);
        let mut rng = Rng::new(1);
        for n in 0..10_000u64 {
            let sample = Sample::Answered(Duration::from_millis(1));
            adaptive.observe(sample, 5, Duration::from_millis(n * 5), &mut rng);
        }
        assert_eq!(adaptive.limit(), SPEC.initial);
    }
}
