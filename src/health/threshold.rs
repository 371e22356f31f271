//! How answers add up: single failures and single passes do not move an endpoint, runs of them do.
//!
//! State machine, with `n` the results in a row that speak against the present state:
//!
//! ```text
//! Checking  pass            → Up         the first result decides, so that a start neither
//! Checking  failure         → Down       sends traffic into the dark nor waits
//! Up        pass            → Up, n = 0
//! Up        failure         → Up, n + 1; Down when n = fall
//! Down      failure         → Down, n = 0
//! Down      pass            → Down, n + 1; Up when n = rise
//! ```
//!
//! With a probe at least every `interval`, an endpoint that fails for good is out within `fall` probes
//! and one that recovers is back within `rise` probes.

use crate::endpoint::Health;

/// Turns single results into [`Health`]. Pure: knows neither time nor sockets.
#[derive(Debug, Clone)]
pub struct Threshold {
    rise: u32,
    fall: u32,
    health: Health,
    /// Results in a row that speak against `health`.
    against: u32,
}

impl Threshold {
    /// Starts at `initial`. 0 for `rise` or `fall` counts as 1.
    pub fn new(rise: u32, fall: u32, initial: Health) -> Self {
        Self {
            rise: rise.max(1),
            fall: fall.max(1),
            health: initial,
            against: 0,
        }
    }

    /// Takes one result in; the new health where this result changed it.
    pub fn report(&mut self, passed: bool) -> Option<Health> {
        let (said, needed) = match (passed, self.health) {
            (true, Health::Up) | (false, Health::Down) => {
                self.against = 0;
                return None;
            }
            (true, Health::Checking) => (Health::Up, 1),
            (false, Health::Checking) => (Health::Down, 1),
            (false, Health::Up) => (Health::Down, self.fall),
            (true, Health::Down) => (Health::Up, self.rise),
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.health = said;
        self.against = 0;
        Some(said)
    }

    pub fn health(&self) -> Health {
        self.health
    }

    /// Results in a row that speak against the present health: more than 0 while a change is in progress.
    pub fn against(&self) -> u32 {
        self.against
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_result_decides() {
        assert_eq!(Threshold::new(5, 5, Health::Checking).report(true), Some(Health::Up));
        assert_eq!(Threshold::new(5, 5, Health::Checking).report(false), Some(Health::Down));
    }

    #[test]
    fn runs_decide_afterwards_and_a_run_broken_starts_again() {
        let mut t = Threshold::new(2, 3, Health::Up);
        assert_eq!([false, false, true, false, false].map(|r| t.report(r)), [None; 5]);
        assert_eq!(t.against(), 2);
        assert_eq!(t.report(false), Some(Health::Down));
        assert_eq!(t.report(false), None);
        assert_eq!([true, false, true].map(|r| t.report(r)), [None; 3]);
        assert_eq!(t.report(true), Some(Health::Up));
        assert_eq!(t.against(), 0);
    }

    /// The rule read off the whole history: the last `needed` results, all after the last change, agree.
    fn naive(rise: u32, fall: u32, initial: Health, results: &[bool]) -> Vec<Option<Health>> {
        let (mut health, mut since) = (initial, 0);
        let mut changes = Vec::new();
        for end in 1..=results.len() {
            let (passed, to, needed) = match health {
                Health::Checking if results[end - 1] => (true, Health::Up, 1),
                Health::Checking => (false, Health::Down, 1),
                Health::Up => (false, Health::Down, fall as usize),
                Health::Down => (true, Health::Up, rise as usize),
            };
            let run = results[since..end].iter().rev().take_while(|r| **r == passed).count();
            changes.push((run >= needed).then_some(to));
            if run >= needed {
                (health, since) = (to, end);
            }
        }
        changes
    }

    proptest! {
        #[test]
        fn does_what_the_rule_says(
            rise in 1u32..6,
            fall in 1u32..6,
            initial in prop_oneof![Just(Health::Checking), Just(Health::Up), Just(Health::Down)],
            results in prop::collection::vec(any::<bool>(), 0..80),
        ) {
            let mut t = Threshold::new(rise, fall, initial);
            let changes: Vec<_> = results.iter().map(|r| t.report(*r)).collect();
            prop_assert_eq!(changes, naive(rise, fall, initial, &results));
        }
    }
}
