//! The notifications that are not sent yet, and when each is due. Pure.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::Channel;
use crate::domain::Timestamp;
use crate::domain::notification::Transition;

/// The most that may be pending; more are dropped.
pub(super) const MAX_PENDING: usize = 10_000;
/// The longest time between two attempts.
const MAX_RETRY: Duration = Duration::from_secs(600);
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// A transition that a rule matches.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub transition: Transition,
    pub channel: Channel,
    /// Whether it is about this host's own.
    pub is_own: bool,
    pub due: Timestamp,
    /// It is given up after this.
    pub until: Timestamp,
    /// How often the channel has failed.
    pub failures: u32,
    /// How often central did not answer the request for a lease.
    pub unanswered: u32,
    /// How often another host had the lease.
    pub refused: u32,
    /// It is being sent.
    pub in_flight: bool,
}

impl Pending {
    /// When the next attempt is due after the channel failed.
    pub(super) fn failed(&mut self, now: Timestamp) {
        self.in_flight = false;
        let wait = FIRST_RETRY.saturating_mul(1 << self.failures.min(10)).min(MAX_RETRY);
        self.failures += 1;
        self.due = now.plus(wait);
    }
}

/// All that is pending, by its key.
#[derive(Debug, Default)]
pub(super) struct PendingSet(HashMap<String, Pending>);

impl PendingSet {
    /// Adds it, unless it is there already. Returns false if there is no room.
    pub(super) fn add(&mut self, key: String, pending: Pending) -> bool {
        if self.0.len() >= MAX_PENDING && !self.0.contains_key(&key) {
            return false;
        }
        self.0.entry(key).or_insert(pending);
        true
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Pending> {
        self.0.get_mut(key)
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Forgets what was added under other settings. What is being sent stays, so that it is not sent twice.
    pub(super) fn clear(&mut self) {
        self.0.retain(|_, pending| pending.in_flight);
    }

    /// Forgets what is too old.
    pub(super) fn expire(&mut self, now: Timestamp) {
        self.0.retain(|_, pending| pending.until > now || pending.in_flight);
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.0.values().filter(|pending| !pending.in_flight).map(|pending| pending.due).min()
    }

    /// The keys of those that are due.
    pub(super) fn due(&self, now: Timestamp) -> Vec<String> {
        let is_due = |(_, pending): &(&String, &Pending)| !pending.in_flight && pending.due <= now;
        self.0.iter().filter(is_due).map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MachineName;
    use crate::domain::notification::Occasion;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_micros(0).plus(Duration::from_secs(second))
    }

    fn pending(due: u64) -> Pending {
        let machine = MachineName::parse("odin3").unwrap();
        Pending {
            transition: Transition::test(machine, at(0)),
            channel: Channel::Desktop,
            is_own: true,
            due: at(due),
            until: at(3600),
            failures: 0,
            unanswered: 0,
            refused: 0,
            in_flight: false,
        }
    }

    #[test]
    fn what_is_due_is_found_once_and_in_time() {
        let mut set = PendingSet::default();
        assert_eq!(set.next_due(), None);
        assert!(set.add("a".to_owned(), pending(10)) && set.add("b".to_owned(), pending(5)));
        assert!(set.add("a".to_owned(), pending(1)), "what is there stays as it is");
        assert_eq!((set.next_due(), set.due(at(4)).len(), set.due(at(5))), (Some(at(5)), 0, vec!["b".to_owned()]));
        set.get_mut("b").unwrap().in_flight = true;
        assert_eq!((set.next_due(), set.due(at(9)).len()), (Some(at(10)), 0));
        set.get_mut("b").unwrap().failed(at(20));
        assert_eq!(set.get_mut("b").unwrap().due, at(25));
        set.expire(at(3600));
        assert_eq!(set.next_due(), None);
    }

    #[test]
    fn attempts_become_rarer_and_never_stop_before_their_end() {
        let mut one = pending(0);
        let mut waits = Vec::new();
        for _ in 0..40 {
            one.failed(at(0));
            waits.push(one.due.since(at(0)).as_secs());
        }
        assert_eq!(&waits[..9], [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(waits[39], 600);
    }

    #[test]
    fn number_is_bounded() {
        let mut set = PendingSet::default();
        assert!((0..MAX_PENDING).all(|number| set.add(number.to_string(), pending(1))));
        assert!(!set.add("one more".to_owned(), pending(1)) && set.add("0".to_owned(), pending(1)));
        assert_eq!(Occasion::parse("waiting"), Some(Occasion::Waiting));
    }
}
