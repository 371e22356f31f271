//! A question to DNS, repeated: when the TTL of its answer is over, when it is denied, when connecting to what it
//! named fails.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::dns::Failure;
use super::feed::Teller;
use super::{Answer, MIN_WAIT, back_off};

/// A name server says that a name does not exist, or has no such records: so often in a row until that is believed.
const CONFIRMED: u32 = 3;

/// The loop. `ask` is one look-up, which ends within its own deadline, given what is believed; it returns what is to
/// be believed now, and for how long.
pub async fn run<T: Clone + PartialEq, A: Future<Output = Result<(Vec<T>, Duration), Failure>>>(
    teller: &Teller<Answer<T>>,
    longest: Duration,
    doubt: &Notify,
    ask: impl Fn(Option<Arc<Answer<T>>>) -> A,
    mut jittered: impl FnMut(Duration) -> Duration,
) {
    // In a row: failures of any kind, denials among them, times that a doubt changed nothing.
    let (mut failures, mut denials, mut doubts) = (0, 0, 0);
    loop {
        let mut is_new = false;
        let wait = match ask(teller.last()).await {
            Ok((found, ttl)) => {
                (failures, denials) = (0, 0);
                is_new = teller.found(found.into());
                ttl.min(longest).max(MIN_WAIT)
            }
            Err(Failure { reason, denied }) => {
                failures += 1;
                denials = if denied { denials + 1 } else { 0 };
                teller.failed(reason);
                if denials >= CONFIRMED
                    && let Some(last) = teller.last()
                {
                    teller.publish(Answer {
                        found: last.found.clone(),
                        denied: denials - CONFIRMED + 1,
                    });
                }
                back_off(failures, longest)
            }
        };
        // Doubts are heeded at once, but not again and again while they lead to nothing.
        doubts = if is_new { 0 } else { doubts };
        let asked = Instant::now();
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

    use super::super::feed::tests::teller;
    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);
    type Asked = Result<(Vec<u8>, Duration), Failure>;

    fn found(list: &[u8], ttl: u64) -> Asked {
        Ok((list.to_vec(), Duration::from_secs(ttl)))
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
        let (teller, doubt, over) = (teller::<Answer<u8>>(), Notify::new(), Notify::new());
        let ask = async |_| {
            if !asked.borrow().is_empty() {
                told.borrow_mut().push(
                    teller
                        .last()
                        .map_or_else(String::new, |answer| format!("{:?} {}", answer.found, answer.denied)),
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
            vec![found(&[1], 5), found(&[1], 0), found(&[1, 2], 3600), found(&[2], 5)],
            &[],
        )
        .await;
        assert_eq!(asked, [0, 5, 6, 36]);
        assert_eq!(told, ["[1] 0", "[1] 0", "[1, 2] 0", "[2] 0"]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_keep_the_last_addresses_and_back_off() {
        let mut answers = vec![found(&[1], 60)];
        answers.extend((0..7).map(|_| failure(false)));
        answers.push(found(&[1], 60));
        answers.push(failure(false));
        answers.push(found(&[3], 60));
        let (asked, told) = play(answers, &[]).await;
        assert_eq!(asked, [0, 30, 31, 33, 37, 45, 61, 91, 121, 151, 152]);
        assert!(told[..10].iter().all(|answer| answer == "[1] 0"), "{told:?}");
        assert_eq!(told[10], "[3] 0");
    }

    #[tokio::test(start_paused = true)]
    async fn a_denial_is_believed_when_it_was_repeated() {
        let (asked, told) = play(
            vec![
                found(&[1], 5),
                failure(true),
                failure(true),
                failure(false),
                failure(true),
                failure(true),
                failure(true),
                failure(true),
                found(&[1], 5),
            ],
            &[],
        )
        .await;
        assert_eq!(asked, [0, 5, 6, 8, 12, 20, 36, 66, 96]);
        let denied: Vec<_> = told.iter().map(|answer| answer.strip_prefix("[1] ").unwrap()).collect();
        assert_eq!(denied, ["0", "0", "0", "0", "0", "0", "1", "2", "0"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubt_asks_at_once_but_not_for_ever() {
        let answers = (0..7).map(|_| found(&[1], 3600)).collect();
        let doubts: Vec<u64> = [10, 11].into_iter().chain(13..29).collect();
        let (asked, _) = play(answers, &doubts).await;
        // Every second there is a doubt from 13 s on: the pauses grow to 2, 4, 8 s.
        assert_eq!(asked, [0, 10, 11, 13, 17, 25, 41], "{asked:?}");
    }
}
