//! One fetch and many who wait for it.

use std::task::Waker;

use proptest::prelude::*;

use super::*;

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn key() -> Key {
    Key::of(false, "a", b"a", "/k", None).unwrap()
}

fn setup() -> (Arc<Fills>, Arc<Budget>) {
    (Arc::default(), Arc::new(Budget::new(1000)))
}

fn lead(fills: &Arc<Fills>, budget: &Arc<Budget>) -> (Lead, Seat) {
    match fills.join(&key(), budget) {
        Joined::Lead(lead, seat) => (lead, seat),
        Joined::Follow(_) => panic!("somebody leads already"),
    }
}

fn follow(fills: &Arc<Fills>, budget: &Arc<Budget>) -> Seat {
    match fills.join(&key(), budget) {
        Joined::Follow(seat) => seat,
        Joined::Lead(..) => panic!("nobody leads"),
    }
}

fn next(seat: &mut Seat) -> Option<Vec<u8>> {
    match seat.poll_next(&cx()) {
        Poll::Ready(Some(Ok(bytes))) => Some(bytes.to_vec()),
        _ => None,
    }
}

#[test]
fn everybody_gets_everything_at_his_own_pace() {
    let (fills, budget) = setup();
    let (lead, mut first) = lead(&fills, &budget);
    assert!(lead.push(b"one"));
    let mut late = follow(&fills, &budget);
    assert_eq!(next(&mut first).unwrap(), b"one");
    assert!(lead.push(b"two"));
    assert_eq!(next(&mut first).unwrap(), b"two");
    assert!(first.poll_next(&cx()).is_pending());
    assert_eq!(lead.end(None).unwrap().concat(), b"onetwo");
    drop(lead);
    assert!(fills.is_empty() && budget.used() == 0);
    assert_eq!(
        (next(&mut late).unwrap(), next(&mut late).unwrap()),
        (b"one".to_vec(), b"two".to_vec())
    );
    assert!(matches!(late.poll_next(&cx()), Poll::Ready(None)) && late.is_end());
}

#[test]
fn trailers_come_behind_the_last_part_once_for_each() {
    let (fills, budget) = setup();
    let (lead, mut first) = lead(&fills, &budget);
    let mut second = follow(&fills, &budget);
    lead.push(b"one");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("1"));
    lead.end(Some(&trailers));
    for seat in [&mut first, &mut second] {
        assert_eq!(next(seat).unwrap(), b"one");
        assert!(!seat.is_end() && matches!(seat.poll_next(&cx()), Poll::Ready(None)));
        assert_eq!(seat.take_trailers().unwrap()["x-sum"], "1");
        assert!(seat.take_trailers().is_none() && seat.is_end());
    }
}

#[test]
fn whoever_leaves_early_leaves_nobody_waiting() {
    let (fills, budget) = setup();
    let (lead, _) = lead(&fills, &budget);
    let seat = follow(&fills, &budget);
    assert!(seat.poll_outcome(&cx()).is_pending());
    assert_eq!(lead.watchers(), 1);
    drop(lead);
    assert!(matches!(seat.poll_outcome(&cx()), Poll::Ready(Outcome::Released)));
    assert!(fills.is_empty());
}

#[test]
fn a_broken_body_is_broken_for_all() {
    let (fills, budget) = setup();
    let (lead, mut seat) = lead(&fills, &budget);
    lead.push(b"half");
    drop(lead);
    assert_eq!(next(&mut seat).unwrap(), b"half");
    assert!(matches!(seat.poll_next(&cx()), Poll::Ready(Some(Err(Broken)))));
    assert!(!seat.is_end());
}

#[test]
fn what_is_not_kept_waits_for_the_slowest() {
    let (fills, budget) = setup();
    let (mut lead, mut fast) = lead(&fills, &budget);
    let mut slow = follow(&fills, &budget);
    lead.push(&[0; 900]);
    assert!(!lead.push(&[0; 200]), "more than the budget");
    assert_eq!(budget.used(), 900 + PER_PART);
    lead.forgo();
    assert!(budget.used() == 0 && fills.is_empty());
    assert!(lead.poll_room(&cx()).is_ready());
    lead.push(&vec![1; WINDOW as usize]);
    assert!(lead.poll_room(&cx()).is_pending());
    while next(&mut fast).is_some() {}
    assert!(lead.poll_room(&cx()).is_pending(), "the slow one has nothing yet");
    assert_eq!(next(&mut slow).unwrap().len(), 900);
    assert_eq!(next(&mut slow).unwrap().len(), 200);
    assert_eq!(next(&mut slow).unwrap().len(), WINDOW as usize);
    assert!(lead.poll_room(&cx()).is_ready());
    lead.push(&vec![1; WINDOW as usize]);
    drop(slow);
    drop(fast);
    assert!(lead.poll_room(&cx()).is_ready());
    assert_eq!((lead.watchers(), lead.end(None)), (0, None));
}

#[test]
fn a_purge_while_it_is_under_way_keeps_it_out() {
    let (fills, budget) = setup();
    let (mut one, seat) = lead(&fills, &budget);
    fills.purge(&key());
    assert!(!one.is_storable());
    let (two, _) = lead(&fills, &budget);
    one.release();
    assert_eq!(fills.len(), 1, "the second is still listed");
    assert!(two.is_storable() && matches!(seat.poll_outcome(&cx()), Poll::Ready(Outcome::Released)));
    assert_eq!(one.end(None), None);
}

proptest! {
    /// Whoever comes, reads and leaves in whatever order: each gets all the parts there are, from the first, and what is
    /// not kept is held no longer than somebody needs it.
    #[test]
    fn whatever_others_do_each_gets_every_part_once(steps in prop::collection::vec((0u8..4, 0usize..8), 1..80), keeps in any::<bool>()) {
        let (fills, budget) = (Arc::new(Fills::default()), Arc::new(Budget::new(1000)));
        let (mut lead, seat) = lead(&fills, &budget);
        let mut readers: Vec<(Seat, u8)> = vec![(seat, 0)];
        readers.extend((0..3).map(|_| (follow(&fills, &budget), 0)));
        if !keeps {
            lead.forgo();
        }
        let mut pushed = 0;
        for (step, which) in steps {
            match step {
                0 if keeps => readers.push((follow(&fills, &budget), 0)),
                0 | 1 => {
                    lead.push(&[pushed]);
                    pushed += 1;
                }
                2 if !readers.is_empty() => {
                    let count = readers.len();
                    let (seat, read) = &mut readers[which % count];
                    let expected = (*read < pushed).then(|| vec![*read]);
                    prop_assert_eq!(next(seat), expected.clone());
                    *read += u8::from(expected.is_some());
                }
                3 if which < readers.len() => drop(readers.swap_remove(which)),
                _ => {}
            }
            let slowest = readers.iter().map(|(_, read)| *read).min().unwrap_or(pushed);
            let held = if keeps { pushed } else { pushed - slowest };
            prop_assert_eq!(lead.fill.lock().held, u64::from(held) * (1 + PER_PART));
            prop_assert_eq!(lead.watchers(), readers.len());
        }
    }
}
