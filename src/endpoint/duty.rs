//! Whether an endpoint is to take work, besides its health: what operators, agents and the configuration say.

use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;

/// What an endpoint is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Duty {
    #[default]
    Active = 0,
    /// It ends what it does, and takes new work only from clients that are bound to it.
    Draining = 1,
    /// It ends what it does, and takes no new work from anybody.
    Disabled = 2,
}

/// Who says so. What takes the most work away counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Over the admin listener.
    Operator = 0,
    /// The agent that a health check asks.
    Agent = 1,
    /// It is no longer in the configuration, nor found by its name.
    Removal = 2,
    /// The source it was found by.
    Discovery = 3,
}

impl Duty {
    /// The word in logs and in the status API.
    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }

    fn of(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Active,
            1 => Self::Draining,
            _ => Self::Disabled,
        }
    }
}

impl By {
    pub const ALL: [Self; 4] = [Self::Operator, Self::Agent, Self::Removal, Self::Discovery];

    /// The word in the status API.
    pub fn label(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Agent => "agent",
            Self::Removal => "removal",
            Self::Discovery => "discovery",
        }
    }
}

/// No weight but the configured one.
const AS_CONFIGURED: u16 = u16::MAX;
/// Of the configured weight, in percent.
const WHOLE: u8 = 100;

/// One endpoint's orders. They outlive reloads with its state.
#[derive(Debug)]
pub struct Orders {
    /// Two bits for each of [`By`].
    duties: AtomicU8,
    weight: AtomicU16,
    share: AtomicU8,
    changed: Notify,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            duties: AtomicU8::new(0),
            weight: AtomicU16::new(AS_CONFIGURED),
            share: AtomicU8::new(WHOLE),
            changed: Notify::new(),
        }
    }
}

impl Orders {
    pub fn duty(&self) -> Duty {
        let bits = self.duties.load(Relaxed);
        if bits == 0 {
            return Duty::Active;
        }
        By::ALL.into_iter().map(|by| part(bits, by)).max().unwrap_or_default()
    }

    /// What one of them says.
    pub fn duty_by(&self, by: By) -> Duty {
        part(self.duties.load(Relaxed), by)
    }

    /// Tells whether that changed anything. Whoever calls this publishes the upstream's choice anew.
    pub fn set_duty(&self, by: By, duty: Duty) -> bool {
        let shift = 2 * by as u8;
        let new = |bits: u8| bits & !(3 << shift) | (duty as u8) << shift;
        let before = self.duties.fetch_update(Relaxed, Relaxed, |bits| Some(new(bits)));
        let changed = before.is_ok_and(|bits| new(bits) != bits);
        if changed {
            self.changed.notify_waiters();
        }
        changed
    }

    /// The weight by which it is picked. 0: it takes no new work.
    pub fn weight(&self, configured: u16) -> u16 {
        let weight = self.operators_weight().unwrap_or(configured);
        match self.share.load(Relaxed) {
            WHOLE => weight,
            share => (u32::from(weight) * u32::from(share)).div_ceil(u32::from(WHOLE)) as u16,
        }
    }

    /// Instead of the configured one.
    pub fn operators_weight(&self) -> Option<u16> {
        Some(self.weight.load(Relaxed)).filter(|weight| *weight != AS_CONFIGURED)
    }

    /// `None`: as configured. Whoever calls this publishes the upstream's choice anew.
    pub fn set_operators_weight(&self, weight: Option<u16>) {
        self.weight.store(weight.unwrap_or(AS_CONFIGURED), Relaxed);
    }

    /// What the agent leaves of the weight, in percent.
    pub fn agents_share(&self) -> u8 {
        self.share.load(Relaxed)
    }

    /// Percent of the weight. Whoever calls this publishes the upstream's choice anew.
    pub fn set_agents_share(&self, percent: u8) {
        self.share.store(percent.min(WHOLE), Relaxed);
    }

    /// Returns when what runs there has had its time: `after` it was to take no more work.
    pub async fn over(&self, after: Duration) {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before the look, so that no change between the two is missed.
            changed.as_mut().enable();
            if self.duty() == Duty::Active {
                changed.await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(after) => return,
                () = self.active_again() => {}
            }
        }
    }

    async fn active_again(&self) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.duty() == Duty::Active {
                return;
            }
            changed.await;
        }
    }
}

fn part(bits: u8, by: By) -> Duty {
    Duty::of(bits >> (2 * by as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_the_most_away_counts() {
        let orders = Orders::default();
        assert_eq!(orders.duty(), Duty::Active);
        assert!(orders.set_duty(By::Agent, Duty::Draining));
        assert!(!orders.set_duty(By::Agent, Duty::Draining));
        assert!(orders.set_duty(By::Operator, Duty::Disabled));
        assert_eq!(orders.duty(), Duty::Disabled);
        assert_eq!(orders.duty_by(By::Removal), Duty::Active);
        assert!(orders.set_duty(By::Operator, Duty::Active));
        assert_eq!(orders.duty(), Duty::Draining);
        assert!(orders.set_duty(By::Agent, Duty::Active));
        assert_eq!(orders.duty(), Duty::Active);
    }

    #[test]
    fn weights_are_the_operators_and_the_agents_part_of_it() {
        let orders = Orders::default();
        assert_eq!(orders.weight(7), 7);
        orders.set_agents_share(50);
        assert_eq!(
            (orders.weight(7), orders.weight(1)),
            (4, 1),
            "never nothing by rounding"
        );
        orders.set_operators_weight(Some(10));
        assert_eq!(orders.weight(7), 5);
        orders.set_agents_share(0);
        assert_eq!(orders.weight(7), 0);
        orders.set_agents_share(255);
        orders.set_operators_weight(None);
        assert_eq!(orders.weight(7), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_has_its_time_and_keeps_it_when_the_order_is_taken_back() {
        let orders = Orders::default();
        let after = Duration::from_secs(10);
        let mut over = pin!(orders.over(after));
        let within = |seconds| Duration::from_secs(seconds);
        assert!(tokio::time::timeout(within(100), over.as_mut()).await.is_err());
        orders.set_duty(By::Operator, Duty::Draining);
        assert!(tokio::time::timeout(within(9), over.as_mut()).await.is_err());
        orders.set_duty(By::Operator, Duty::Active);
        assert!(tokio::time::timeout(within(100), over.as_mut()).await.is_err());
        orders.set_duty(By::Removal, Duty::Disabled);
        assert!(tokio::time::timeout(within(9), over.as_mut()).await.is_err());
        assert!(tokio::time::timeout(within(2), over.as_mut()).await.is_ok());
    }
}
