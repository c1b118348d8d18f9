//! Where a session ran, and whether this host's data about it is up to date.

use std::time::Duration;

use super::Timestamp;

/// Where a session ran, as seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLocation {
    /// It ran on this machine.
    pub here: bool,
    /// This host keeps it; otherwise it is mirrored from central.
    pub local: bool,
    /// When its machine's daemon last contacted central; none for a machine without a daemon.
    pub last_seen: Option<Timestamp>,
    /// When the host that vouches for the session last contacted central; none if no host does, as for a local session.
    pub alive_as_of: Option<Timestamp>,
    /// When the mirror was last up to date with central; none before the first complete pull.
    pub as_of: Option<Timestamp>,
}

impl SessionLocation {
    /// Whether its machine's daemon has contacted central within `stale_after`; none if no daemon is known.
    pub fn reachable(&self, now: Timestamp, stale_after: Duration) -> Option<bool> {
        if self.here { Some(true) } else { self.last_seen.map(|seen| now.since(seen) <= stale_after) }
    }

    /// Whether this host's data about the session is up to date. It is not while that machine's daemon or this one cannot
    /// reach central: later work may be recorded only on the session's machine.
    pub fn synced(&self, now: Timestamp, stale_after: Duration) -> bool {
        let recent = |at: Timestamp| now.since(at) <= stale_after;
        self.here || self.local || (self.as_of.is_some_and(recent) && self.last_seen.is_none_or(recent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE_AFTER: Duration = Duration::from_secs(120);

    #[test]
    fn is_synced_only_while_both_hosts_reach_central() {
        let now = Timestamp::from_micros(1_769_774_400_000_000);
        let ago = |seconds| Some(now.minus(Duration::from_secs(seconds)));
        for (last_seen, as_of, reachable, synced) in [
            (ago(120), ago(120), Some(true), true),
            (ago(121), ago(0), Some(false), false),
            (ago(0), ago(121), Some(true), false),
            (ago(0), None, Some(true), false),
            (None, ago(0), None, true),
            (None, None, None, false),
        ] {
            let place = SessionLocation { here: false, local: false, last_seen, alive_as_of: None, as_of };
            assert_eq!(place.reachable(now, STALE_AFTER), reachable, "{place:?}");
            assert_eq!(place.synced(now, STALE_AFTER), synced, "{place:?}");
            assert!(
                SessionLocation { local: true, ..place }.synced(now, STALE_AFTER),
                "local sessions are always up to date"
            );
            assert!(
                SessionLocation { here: true, ..place }.synced(now, STALE_AFTER),
                "sessions of this machine are always up to date"
            );
        }
        let here = SessionLocation { here: true, local: true, last_seen: None, alive_as_of: None, as_of: None };
        assert_eq!(here.reachable(now, STALE_AFTER), Some(true));
    }
}
