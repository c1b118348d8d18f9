//! Detects a sync worker that hangs, and distinguishes it from one that waits for an unreachable central.
//!
//! Before each wait the worker sets a deadline by which it will be heard of again. Every call of central has a limit,
//! so an unreachable central never makes it miss one.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long after its deadline the worker counts as hanging: the machine may be busy.
const GRACE: Duration = Duration::from_secs(30);

/// The worker's current deadline; none while there is no central. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Watchdog(watch::Sender<Option<Instant>>);

impl Watchdog {
    /// Sets the deadline: the worker will call this again within `limit`.
    pub fn expect_within(&self, limit: Duration) {
        self.0.send_replace(Some(Instant::now() + limit + GRACE));
    }

    /// Removes the deadline: there is no central, and nothing to do until there is one.
    pub fn suspend(&self) {
        self.0.send_replace(None);
    }

    /// Whether the worker has missed its deadline.
    pub fn is_missed(&self) -> bool {
        self.is_missed_at(Instant::now())
    }

    fn is_missed_at(&self, now: Instant) -> bool {
        self.0.borrow().is_some_and(|deadline| deadline < now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_hangs_once_its_deadline_has_passed() {
        let now = Instant::now();
        let worker = Watchdog::default();
        assert!(!worker.is_missed_at(now));
        worker.expect_within(Duration::from_secs(100));
        let seen = worker.clone();
        assert!(!seen.is_missed_at(now + Duration::from_secs(129)));
        assert!(seen.is_missed_at(now + Duration::from_secs(140)));
        worker.expect_within(Duration::from_secs(1));
        assert!(!seen.is_missed_at(now + Duration::from_secs(29)));
        worker.suspend();
        assert!(!seen.is_missed_at(now + Duration::from_secs(1_000_000)));
    }
}
