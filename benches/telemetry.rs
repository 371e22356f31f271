//! What counting a request and writing its line costs: `cargo bench --bench telemetry`.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use divan::Bencher;
use evenkeel::telemetry::access::{Format, Line};
use evenkeel::telemetry::series::{EndpointSeries, Histogram, HistogramSum, Outcome, RequestSeries};
use evenkeel::telemetry::shard::WorkerId;

const WORKER: WorkerId = WorkerId(1);

fn main() {
    divan::main();
}

/// From the fastest bucket to the one above every bound.
#[divan::bench(args = [200, 20_000, 100_000_000])]
fn histogram(bencher: Bencher<'_, '_>, us: u64) {
    let histogram = Histogram::default();
    bencher.bench_local(|| histogram.observe(black_box(Duration::from_micros(us))));
}

/// All that is counted when a request ends.
#[divan::bench]
fn count_a_request(bencher: Bencher<'_, '_>) {
    let requests = RequestSeries::new(4);
    let endpoint = EndpointSeries::new(4);
    bencher.bench_local(|| {
        requests
            .local(WORKER)
            .record(black_box(200), black_box(Duration::from_micros(800)));
        endpoint.local(WORKER).outcome(black_box(Outcome::Success)).add(1);
    });
}

/// What one scrape does for each series.
#[divan::bench(args = [1, 4, 64])]
fn sum_over_workers(bencher: Bencher<'_, '_>, workers: usize) {
    let requests = RequestSeries::new(workers);
    for worker in 1..=workers {
        requests.local(WorkerId(worker)).record(200, Duration::from_micros(800));
    }
    bencher.bench(|| {
        let mut sum = HistogramSum::default();
        for part in requests.parts() {
            part.duration.add_to(&mut sum);
        }
        (sum.count(), requests.parts().flat_map(|part| part.codes()).count())
    });
}

fn line() -> Line {
    Line {
        time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_000_000_123_456),
        listener: "secure".into(),
        client: "192.0.2.17:51234".into(),
        method: "GET".into(),
        host: "shop.example".into(),
        target: "/api/v1/users/17/orders?page=2&sort=asc".into(),
        protocol: "HTTP/2.0",
        status: 200,
        bytes_in: 0,
        bytes_out: 5123,
        route: Some("api".into()),
        upstream: Some("api".into()),
        endpoint: Some("10.0.1.1:8080".into()),
        attempts: 1,
        queued: None,
        total: Duration::from_micros(3_456),
        connect: None,
        response: Some(Duration::from_micros(3_210)),
        error: None,
        cache: None,
        operation: None,
        sticky: None,
        desync: None,
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".into()),
    }
}

#[divan::bench(args = [Format::Text, Format::Json])]
fn access_line(bencher: Bencher<'_, '_>, format: Format) {
    let line = line();
    let mut out = Vec::with_capacity(4096);
    bencher.bench_local(|| {
        out.clear();
        format.render(black_box(&line), &mut out);
        out.len()
    });
}
