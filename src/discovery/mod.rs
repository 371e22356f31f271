//! Where endpoints with a host name are: names resolved again and again while the proxy runs.

pub mod dns;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info, warn};

use self::dns::{Resolved, Resolver};
use crate::base::task::{self, Handle};

/// No name is asked for more often than this, whatever its TTL.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// How long an answer is used: for its TTL, at most `resolve_interval`, at least a second.
pub fn next(ttl: Duration, resolve_interval: Duration) -> Duration {
    ttl.min(resolve_interval).max(MIN_WAIT)
}

/// How long to wait after the `failures`th failure in a row (from 1): 1 s, 2 s, 4 s … `resolve_interval`.
fn back_off(failures: u32, resolve_interval: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    MIN_WAIT
        .saturating_mul(1 << doublings)
        .min(resolve_interval)
        .max(MIN_WAIT)
}

/// Resolves `host` at once and from then on, until the handle is dropped; calls `on_change`, which must
/// not block, with the sorted addresses when they differ from the last ones (at first: from none).
///
/// No answer, or one without addresses, is a failure: the last good addresses stay. Must be called in a
/// tokio runtime.
pub fn watch(
    resolver: Arc<Resolver>,
    host: Arc<str>,
    resolve_interval: Duration,
    on_change: impl FnMut(&[IpAddr]) + Send + 'static,
) -> Handle {
    task::spawn(async move {
        run(&host, resolve_interval, || resolver.lookup(&host), on_change).await;
    })
}

/// The loop; `ask` is one look-up and ends within its own deadline.
async fn run<A: Future<Output = Result<Resolved, String>>>(
    host: &str,
    resolve_interval: Duration,
    ask: impl Fn() -> A,
    mut on_change: impl FnMut(&[IpAddr]),
) {
    let mut known: Vec<IpAddr> = Vec::new();
    let mut failures = 0;
    loop {
        let wait = match ask().await {
            Ok(resolved) => {
                let ttl = resolved.ttl;
                let addrs = resolved.with_unanswered(&known);
                let changed = addrs != known;
                if changed {
                    on_change(&addrs);
                    known = addrs;
                }
                if changed || failures > 0 {
                    info!(host, addresses = ?known, changed, "name resolved");
                }
                failures = 0;
                next(ttl, resolve_interval)
            }
            Err(reason) => {
                failures += 1;
                if failures == 1 {
                    warn!(host, reason, kept = ?known, "name does not resolve");
                } else {
                    debug!(host, reason, failures, "name still does not resolve");
                }
                back_off(failures, resolve_interval)
            }
        };
        sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::dns::Family;
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn resolved(addrs: &[&str], ttl: u64, unanswered: Option<Family>) -> Result<Resolved, String> {
        Ok(Resolved {
            addrs: addrs.iter().map(|a| a.parse().unwrap()).collect(),
            ttl: Duration::from_secs(ttl),
            unanswered,
        })
    }

    /// Lets the loop have `answers` one after the other; when it asked, and what it told.
    async fn play(answers: Vec<Result<Resolved, String>>) -> (Vec<u64>, Vec<String>) {
        let start = Instant::now();
        let (asked, told) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let answers = RefCell::new(answers.into_iter());
        let (over, mut end) = tokio::sync::mpsc::unbounded_channel();
        let ask = async || match answers.borrow_mut().next() {
            Some(answer) => {
                asked.borrow_mut().push(start.elapsed().as_secs());
                answer
            }
            None => {
                over.send(()).unwrap();
                Err("over".into())
            }
        };
        let tell = |addrs: &[IpAddr]| told.borrow_mut().push(format!("{addrs:?}"));
        tokio::select! {
            () = run("api.example", INTERVAL, ask, tell) => unreachable!("the loop never ends"),
            _ = end.recv() => {}
        }
        (asked.into_inner(), told.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn tells_changes_only_and_keeps_to_the_ttl() {
        let (asked, told) = play(vec![
            resolved(&["10.0.0.1"], 5, None),
            resolved(&["10.0.0.1"], 0, None),
            resolved(&["10.0.0.1", "10.0.0.2"], 3600, None),
            resolved(&["10.0.0.2"], 5, None),
        ])
        .await;
        assert_eq!(asked, [0, 5, 6, 36]);
        assert_eq!(told, ["[10.0.0.1]", "[10.0.0.1, 10.0.0.2]", "[10.0.0.2]"]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_keep_the_last_addresses_and_back_off() {
        let failed = || Err("no such name".to_owned());
        let mut answers = vec![resolved(&["10.0.0.1"], 60, None)];
        answers.extend((0..7).map(|_| failed()));
        answers.push(resolved(&["10.0.0.1"], 60, None));
        answers.push(failed());
        answers.push(resolved(&["10.0.0.3"], 60, None));
        let (asked, told) = play(answers).await;
        assert_eq!(asked, [0, 30, 31, 33, 37, 45, 61, 91, 121, 151, 152]);
        assert_eq!(told, ["[10.0.0.1]", "[10.0.0.3]"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_family_without_an_answer_keeps_its_addresses() {
        let (_, told) = play(vec![
            resolved(&["10.0.0.1", "2001:db8::1"], 5, None),
            resolved(&["10.0.0.1"], 5, Some(Family::V6)),
            resolved(&["10.0.0.2"], 5, Some(Family::V6)),
            resolved(&["10.0.0.2"], 5, None),
        ])
        .await;
        assert_eq!(
            told,
            ["[10.0.0.1, 2001:db8::1]", "[10.0.0.2, 2001:db8::1]", "[10.0.0.2]"]
        );
    }

    #[tokio::test]
    async fn watches_a_real_name_and_ends_with_its_handle() {
        let hosts = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(hosts.path(), "10.0.0.7 api.example\n").unwrap();
        let resolver = Resolver::with_name_servers(&[], hosts.path().into());
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let handle = watch(Arc::new(resolver), "api.example".into(), INTERVAL, move |addrs| {
            tell.send(addrs.to_vec()).unwrap();
        });
        assert_eq!(told.recv().await, Some(vec!["10.0.0.7".parse().unwrap()]));
        drop(handle);
        assert_eq!(told.recv().await, None);
    }

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(ttl in 0u64..1 << 33, interval in 1u64..1 << 20, failures in 1u32..) {
            let interval = Duration::from_secs(interval);
            for wait in [next(Duration::from_secs(ttl), interval), back_off(failures, interval)] {
                prop_assert!(wait >= MIN_WAIT && wait <= interval);
            }
            prop_assert!(back_off(failures, interval) <= back_off(failures.saturating_add(1), interval));
        }
    }
}
