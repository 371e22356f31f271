//! A host name watched: asked for again when its TTL is over, when it is denied, when connecting to what it
//! named fails.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until};

use super::dns::{Failure, Resolved, Resolver};
use super::feed::{self, Feed, Report, Teller};
use super::{MIN_WAIT, back_off, jittered};
use crate::base::rng::Rng;

/// A name server says that a name does not exist, or has no address: so often in a row until that is believed.
const CONFIRMED: u32 = 3;

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Sorted, without duplicates.
    pub addrs: Vec<IpAddr>,
    /// How often in a row the name servers have said, since it was confirmed, that there are none any more. Those
    /// that are known to be down may go then; those that are well stay.
    pub denied: u32,
}

/// Which addresses of a name are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Families {
    /// Both, as far as this machine has a route.
    Any,
    V4,
    V6,
}

/// How a name is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    pub host: String,
    /// Empty: those of this machine.
    pub name_servers: Vec<SocketAddr>,
    pub families: Families,
}

/// Asks at once and from then on until the feed is dropped, at least every `longest`; `doubt`: ask soon.
pub fn watch(
    resolver: Arc<Resolver>,
    question: &Question,
    longest: Duration,
    doubt: Arc<Notify>,
    changed: Arc<Notify>,
    known: Option<Arc<Answer>>,
) -> Feed<Answer> {
    let report = Report::new("dns", question.host.clone());
    let (host, families) = (question.host.clone(), question.families);
    feed::start(report, changed, known, move |teller| async move {
        let mut rng = Rng::from_entropy();
        let ask = || ask(&resolver, &host, families);
        run(&teller, longest, &doubt, ask, |wait| jittered(wait, &mut rng)).await;
    })
}

async fn ask(resolver: &Resolver, host: &str, families: Families) -> Result<Resolved, Failure> {
    let mut resolved = resolver.lookup(host).await?;
    choose(&mut resolved.addrs, families, has_route);
    match resolved.addrs.is_empty() {
        false => Ok(resolved),
        true => Err(Failure {
            reason: "the name has no address of the wanted family".into(),
            denied: resolved.unanswered.is_none(),
        }),
    }
}

/// Leaves out addresses of the other family, and those to which there is no way from here, unless that is all.
fn choose(addrs: &mut Vec<IpAddr>, families: Families, has_route: impl Fn(IpAddr) -> bool) {
    let is_wanted = |addr: &IpAddr| match families {
        Families::Any => has_route(*addr),
        Families::V4 => addr.is_ipv4(),
        Families::V6 => addr.is_ipv6(),
    };
    if families != Families::Any || addrs.iter().any(is_wanted) {
        addrs.retain(is_wanted);
    }
}

/// Whether this machine knows where to send packets for `addr`: no packet is sent.
fn has_route(addr: IpAddr) -> bool {
    let any: IpAddr = match addr {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect((addr, 9)).is_ok())
}

/// The loop; `ask` is one look-up and ends within its own deadline.
async fn run<A: Future<Output = Result<Resolved, Failure>>>(
    teller: &Teller<Answer>,
    longest: Duration,
    doubt: &Notify,
    ask: impl Fn() -> A,
    mut jittered: impl FnMut(Duration) -> Duration,
) {
    let mut known = teller.last().map_or_else(Vec::new, |answer| answer.addrs.clone());
    // In a row: failures of any kind, denials among them, times that a doubt changed nothing.
    let (mut failures, mut denials, mut doubts) = (0, 0, 0);
    loop {
        let mut is_new = false;
        let wait = match ask().await {
            Ok(resolved) => {
                (failures, denials) = (0, 0);
                let wait = resolved.ttl.min(longest).max(MIN_WAIT);
                known = resolved.with_unanswered(&known);
                is_new = teller.found(Answer {
                    addrs: known.clone(),
                    denied: 0,
                });
                wait
            }
            Err(Failure { reason, denied }) => {
                failures += 1;
                denials = if denied { denials + 1 } else { 0 };
                teller.failed(reason);
                if denials >= CONFIRMED && !known.is_empty() {
                    teller.publish(Answer {
                        addrs: known.clone(),
                        denied: denials - CONFIRMED + 1,
                    });
                }
                back_off(failures, longest)
            }
        };
        // Doubts are heeded at once, but not again and again while they lead to nothing.
        doubts = if is_new { 0 } else { doubts };
        let asked = tokio::time::Instant::now();
        let wait = jittered(wait);
        sleep(back_off(doubts, longest).min(wait)).await;
        tokio::select! {
            () = sleep_until(asked + wait) => doubts = 0,
            () = doubt.notified() => doubts += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::super::dns::Family;
    use super::super::feed::tests::teller;
    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);
    type Asked = Result<Resolved, Failure>;

    fn addrs(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|a| a.parse().unwrap()).collect()
    }

    fn resolved(list: &[&str], ttl: u64, unanswered: Option<Family>) -> Asked {
        Ok(Resolved {
            addrs: addrs(list),
            ttl: Duration::from_secs(ttl),
            unanswered,
        })
    }

    fn failure(denied: bool) -> Asked {
        let reason = "no".to_owned();
        Err(Failure { reason, denied })
    }

    /// Lets the loop have `answers` one after the other: when it asked, in whole seconds, and what was believed
    /// after each. `doubts`: connecting fails at these seconds.
    async fn play(answers: Vec<Asked>, doubts: &[u64]) -> (Vec<u64>, Vec<String>) {
        let start = Instant::now();
        let (asked, told) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let answers = RefCell::new(answers.into_iter());
        let (teller, doubt, over) = (teller::<Answer>(), Notify::new(), Notify::new());
        let ask = async || {
            if !asked.borrow().is_empty() {
                told.borrow_mut().push(
                    teller
                        .last()
                        .map_or_else(String::new, |answer| format!("{:?} {}", answer.addrs, answer.denied)),
                );
            }
            match answers.borrow_mut().next() {
                Some(answer) => {
                    asked.borrow_mut().push(start.elapsed().as_secs());
                    answer
                }
                None => {
                    over.notify_one();
                    failure(false)
                }
            }
        };
        let fail = async {
            for at in doubts {
                sleep_until(start + Duration::from_secs(*at)).await;
                doubt.notify_one();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = run(&teller, LONGEST, &doubt, ask, |wait| wait) => unreachable!("the loop never ends"),
            () = fail => {}
            () = over.notified() => {}
        }
        (asked.into_inner(), told.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_to_the_ttl_within_its_bounds() {
        let (asked, told) = play(
            vec![
                resolved(&["10.0.0.1"], 5, None),
                resolved(&["10.0.0.1"], 0, None),
                resolved(&["10.0.0.1", "10.0.0.2"], 3600, None),
                resolved(&["10.0.0.2"], 5, None),
            ],
            &[],
        )
        .await;
        assert_eq!(asked, [0, 5, 6, 36]);
        assert_eq!(
            told,
            ["[10.0.0.1] 0", "[10.0.0.1] 0", "[10.0.0.1, 10.0.0.2] 0", "[10.0.0.2] 0"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_keep_the_last_addresses_and_back_off() {
        let mut answers = vec![resolved(&["10.0.0.1"], 60, None)];
        answers.extend((0..7).map(|_| failure(false)));
        answers.push(resolved(&["10.0.0.1"], 60, None));
        answers.push(failure(false));
        answers.push(resolved(&["10.0.0.3"], 60, None));
        let (asked, told) = play(answers, &[]).await;
        assert_eq!(asked, [0, 30, 31, 33, 37, 45, 61, 91, 121, 151, 152]);
        assert!(told[..10].iter().all(|answer| answer == "[10.0.0.1] 0"), "{told:?}");
        assert_eq!(told[10], "[10.0.0.3] 0");
    }

    #[tokio::test(start_paused = true)]
    async fn a_denial_is_believed_when_it_was_repeated() {
        let (asked, told) = play(
            vec![
                resolved(&["10.0.0.1"], 5, None),
                failure(true),
                failure(true),
                failure(false),
                failure(true),
                failure(true),
                failure(true),
                failure(true),
                resolved(&["10.0.0.1"], 5, None),
            ],
            &[],
        )
        .await;
        assert_eq!(asked, [0, 5, 6, 8, 12, 20, 36, 66, 96]);
        let denied: Vec<_> = told
            .iter()
            .map(|answer| answer.strip_prefix("[10.0.0.1] ").unwrap())
            .collect();
        assert_eq!(denied, ["0", "0", "0", "0", "0", "0", "1", "2", "0"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubt_asks_at_once_but_not_for_ever() {
        let answers = (0..7).map(|_| resolved(&["10.0.0.1"], 3600, None)).collect();
        let doubts: Vec<u64> = [10, 11].into_iter().chain(13..29).collect();
        let (asked, _) = play(answers, &doubts).await;
        // Every second there is a doubt from 13 s on: the pauses grow to 2, 4, 8 s.
        assert_eq!(asked, [0, 10, 11, 13, 17, 25, 41], "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_family_without_an_answer_keeps_its_addresses() {
        let (_, told) = play(
            vec![
                resolved(&["10.0.0.1", "2001:db8::1"], 5, None),
                resolved(&["10.0.0.1"], 5, Some(Family::V6)),
                resolved(&["10.0.0.2"], 5, Some(Family::V6)),
                resolved(&["10.0.0.2"], 5, None),
            ],
            &[],
        )
        .await;
        assert_eq!(
            told,
            [
                "[10.0.0.1, 2001:db8::1] 0",
                "[10.0.0.1, 2001:db8::1] 0",
                "[10.0.0.2, 2001:db8::1] 0",
                "[10.0.0.2] 0"
            ]
        );
    }

    #[test]
    fn addresses_without_a_way_are_left_out_unless_there_are_no_others() {
        let of = |list: &[&str], families| {
            let mut addrs = addrs(list);
            choose(&mut addrs, families, |addr| addr.is_ipv4());
            addrs
        };
        let both = ["10.0.0.1", "2001:db8::1"];
        assert_eq!(of(&both, Families::Any), addrs(&both[..1]));
        assert_eq!(of(&both[1..], Families::Any), addrs(&both[1..]));
        assert_eq!(of(&both, Families::V4), addrs(&both[..1]));
        assert_eq!(of(&both, Families::V6), addrs(&both[1..]));
        assert_eq!(of(&both[..1], Families::V6), addrs(&[]));
        assert!(has_route("127.0.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn watches_a_real_name_and_ends_with_its_feed() {
        let hosts = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(hosts.path(), "127.0.0.7 api.example\n").unwrap();
        let resolver = Arc::new(Resolver::with_name_servers(&[], hosts.path().into()));
        let question = Question {
            host: "api.example".into(),
            name_servers: Vec::new(),
            families: Families::Any,
        };
        let held = Arc::downgrade(&resolver);
        let feed = watch(resolver, &question, LONGEST, Arc::default(), Arc::default(), None);
        feed.answered().await;
        assert_eq!(feed.latest().unwrap().addrs, addrs(&["127.0.0.7"]));
        drop(feed);
        while held.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
