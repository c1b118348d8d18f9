//! When a live session's row in central is refreshed, although nothing but its heartbeat changed.
//!
//! Other daemons need no refresh: a host vouches for its sessions (see `liveness`). Clients without a daemon judge a row by its
//! heartbeat, so the row must not become as old as their limit. A row is refreshed once its heartbeat in central is older
//! than `refresh_after`.
//!
//! Sessions that are seen alive at every check would be refreshed together for ever. So each has a step of its own, which the
//! hash of its id chooses, and is refreshed one step early, again and again, until it is refreshed in that step. It
//! is not refreshed early if central would get a heartbeat that is hardly newer: sessions whose heartbeats are so far
//! apart are spread by them, and the row would soon be due again.

use std::time::Duration;

use super::hash::fnv1a;
use super::{InstanceId, Timestamp};

/// The rule of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshRule {
    /// How old a live session's heartbeat in central may become. Zero: each heartbeat is pushed.
    pub refresh_after: Duration,
    /// The time between two checks.
    pub step: Duration,
    /// Also push the heartbeats that central has.
    pub rewrites: bool,
}

impl RefreshRule {
    /// Every heartbeat that central lacks is due.
    pub const EVERYTHING: Self = Self { refresh_after: Duration::ZERO, step: Duration::ZERO, rewrites: false };

    /// Every live session is due, also if central has its newest heartbeat.
    pub const ALL_AGAIN: Self = Self { rewrites: true, ..Self::EVERYTHING };

    /// The newest heartbeat in central that may be due.
    pub fn newest_due(&self, now: Timestamp) -> Timestamp {
        now.minus(self.refresh_after.saturating_sub(self.step))
    }

    /// Whether a session is due whose newest heartbeat is `last_heartbeat`, and of which central has `in_central`, if that is
    /// known.
    pub fn is_due(
        &self,
        id: &InstanceId,
        in_central: Option<Timestamp>,
        last_heartbeat: Timestamp,
        now: Timestamp,
    ) -> bool {
        let Some(in_central) = in_central else { return true };
        // The clock was set back.
        if self.rewrites || in_central > now {
            return true;
        }
        let age = now.since(in_central);
        in_central != last_heartbeat
            && (age >= self.refresh_after
                || in_central <= self.newest_due(last_heartbeat) && !self.is_step_of(id, now.plus(self.step)))
    }

    /// Whether the step at this time is the one that the hash of the id chooses.
    fn is_step_of(&self, id: &InstanceId, at: Timestamp) -> bool {
        let step = self.step.as_micros().max(1);
        let steps = (self.refresh_after.as_micros() / step).max(1);
        let number = u128::from(at.micros().unsigned_abs()) / step;
        number % steps == u128::from(fnv1a(id.as_str())) % steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: RefreshRule =
        RefreshRule { refresh_after: Duration::from_secs(60), step: Duration::from_secs(15), rewrites: false };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(1_769_774_400_000_000).plus(Duration::from_secs(seconds))
    }

    fn id(number: u32) -> InstanceId {
        InstanceId::parse(&format!("odin-PS-{number:06x}")).unwrap()
    }

    #[test]
    fn row_is_refreshed_when_central_has_an_old_heartbeat() {
        for (rule, in_central, last_heartbeat, now, expected) in [
            (RULE, Some(at(0)), at(59), at(60), true),
            (RULE, Some(at(0)), at(40), at(44), false),
            (RULE, Some(at(0)), at(0), at(600), false),
            (RULE, None, at(0), at(0), true),
            (RULE, Some(at(100)), at(100), at(99), true),
            (RefreshRule::EVERYTHING, Some(at(0)), at(1), at(1), true),
            (RefreshRule::EVERYTHING, Some(at(1)), at(1), at(1), false),
            (RefreshRule::ALL_AGAIN, Some(at(1)), at(1), at(1), true),
        ] {
            assert_eq!(rule.is_due(&id(7), in_central, last_heartbeat, now), expected, "{in_central:?} {now:?}");
        }
    }

    /// The writes in each step of a number of sessions that send a heartbeat after each interval, at the same times.
    fn writes(sessions: u32, interval: Duration, steps: u64) -> Vec<usize> {
        let mut in_central: Vec<_> = (0..sessions).map(|number| (id(number), at(0))).collect();
        let writes_of_step = |step: u64| {
            let now = at(step * 15);
            let last_heartbeat = at(0).plus(interval * (step as u32 * 15_000 / interval.as_millis() as u32));
            let due = in_central.iter_mut().filter(|(id, known)| {
                assert!(now.since(*known) <= Duration::from_secs(75), "an earlier client sees it live");
                RULE.is_due(id, Some(*known), last_heartbeat, now)
            });
            due.map(|(_, known)| *known = last_heartbeat).count()
        };
        (1..=steps).map(writes_of_step).collect()
    }

    #[test]
    fn sessions_are_refreshed_about_once_in_a_minute_however_far_apart_their_heartbeats_are() {
        // A heartbeat that comes late moves against the steps, and a row is due just before it.
        for (interval, most) in [(1_000, 120), (7_000, 122), (30_000, 120), (30_020, 121), (31_000, 124)] {
            let interval = Duration::from_millis(interval);
            let in_two_hours: usize = writes(40, interval, 480).iter().sum();
            assert!(
                in_two_hours <= 40 * most,
                "{in_two_hours} writes of 40 sessions with heartbeats every {interval:?}"
            );
        }
    }

    #[test]
    fn sessions_that_are_seen_together_at_every_step_are_refreshed_apart() {
        let writes = writes(400, Duration::from_secs(5), 120);
        let busiest = writes[60..].iter().max().copied().unwrap_or(0);
        assert!(busiest <= 120, "{busiest} of 400 sessions in one step");
    }
}
