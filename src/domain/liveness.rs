//! Whether a session counts as active.
//!
//! A session of this host is active while its heartbeat is fresh. For a session of another host there is a second
//! witness: the host whose daemon wrote the session's row in central last vouches for it. That daemon reports at once when
//! one of its sessions turns stale or closes, so what central has of the others holds as long as the host reports at all.
//! Rows that clients without a daemon wrote are vouched for by no host: their heartbeat alone counts.
//!
//! **Invariant**: a host vouches for no session that central has as stale or closed, and for none that another host or
//! client wrote last. So after a host's death its sessions are active for at most `stale_after`.
//!
//! SQL states the same rule: `is_active` in the store's `columns`, and the sweep of central.

use std::time::Duration;

use super::session::fresh;
use super::{Status, Timestamp};

/// The status of a session now.
///
/// `recorded`, `last_heartbeat`: as they are in its row. `alive_as_of`: when the host that vouches for it last contacted
/// central, if one does.
pub fn status_at(
    recorded: Status,
    last_heartbeat: Timestamp,
    alive_as_of: Option<Timestamp>,
    now: Timestamp,
    stale_after: Duration,
) -> Status {
    let is_fresh = |at: Timestamp| fresh(at, now, stale_after);
    match recorded {
        Status::Active if !is_fresh(last_heartbeat) && !alive_as_of.is_some_and(is_fresh) => Status::Stale,
        recorded => recorded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE_AFTER: Duration = Duration::from_secs(120);

    #[test]
    fn host_vouches_only_for_what_central_has_as_active_and_only_while_it_reports() {
        let now = Timestamp::from_micros(1_769_774_400_000_000);
        let ago = |seconds: u64| now.minus(Duration::from_secs(seconds));
        for (recorded, heartbeat, alive_as_of, expected) in [
            (Status::Active, ago(119), None, Status::Active),
            (Status::Active, ago(120), None, Status::Stale),
            (Status::Active, ago(86_400), Some(ago(119)), Status::Active),
            (Status::Active, ago(86_400), Some(ago(120)), Status::Stale),
            (Status::Active, ago(10), Some(ago(120)), Status::Active),
            (Status::Active, ago(86_400), Some(now.plus(STALE_AFTER)), Status::Stale),
            (Status::Stale, ago(0), Some(ago(0)), Status::Stale),
            (Status::Closed, ago(0), Some(ago(0)), Status::Closed),
        ] {
            let status = status_at(recorded, heartbeat, alive_as_of, now, STALE_AFTER);
            assert_eq!(status, expected, "{recorded:?} {heartbeat:?} {alive_as_of:?}");
        }
    }
}
