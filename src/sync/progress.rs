//! Whether sync moves on: for a watchdog, which must tell an unreachable central from a sync that hangs.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How much later than promised it may show itself: the machine may be busy.
const GRACE: Duration = Duration::from_secs(30);

/// By when sync shows itself again, as it promises with each step. Every wait on central has a limit, so an
/// unreachable central breaks no promise. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Progress(watch::Sender<Option<Instant>>);

impl Progress {
    /// It asks central something, which takes at most so long.
    pub fn at_work(&self, patience: Duration) {
        self.0.send_replace(Some(Instant::now() + patience + GRACE));
    }

    /// It waits, at most so long.
    pub fn at_rest(&self, wait: Duration) {
        self.at_work(wait);
    }

    /// There is no central: it waits for as long as that is so.
    pub fn nothing_to_do(&self) {
        self.0.send_replace(None);
    }

    /// Has a promise been broken?
    pub fn stands_still(&self) -> bool {
        self.stands_still_at(Instant::now())
    }

    fn stands_still_at(&self, now: Instant) -> bool {
        self.0.borrow().is_some_and(|by| by < now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_is_a_standstill() {
        let now = Instant::now();
        let sync = Progress::default();
        assert!(!sync.stands_still_at(now));
        sync.at_work(Duration::from_secs(100));
        let seen = sync.clone();
        assert!(!seen.stands_still_at(now + Duration::from_secs(129)));
        assert!(seen.stands_still_at(now + Duration::from_secs(140)));
        sync.at_rest(Duration::from_secs(1));
        assert!(!seen.stands_still_at(now + Duration::from_secs(29)));
        sync.nothing_to_do();
        assert!(!seen.stands_still_at(now + Duration::from_secs(1_000_000)));
    }
}
