//! When a live session's row in central is refreshed, although nothing but its heartbeat changed.
//!
//! Other daemons need no refresh: a host vouches for its sessions (see `liveness`). Clients without a daemon judge a row by its
//! heartbeat, so the row must not become as old as their limit. A row is refreshed once its heartbeat in central is older
//! than `refresh_after`. So that sessions that are seen alive together are not refreshed together for ever, each may be
//! refreshed one step earlier, in the step that the hash of its id chooses.

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
            && (age >= self.refresh_after || in_central <= self.newest_due(now) && self.is_step_of(id, now))
    }

    /// Whether the present step is the one that the hash of the id chooses.
    fn is_step_of(&self, id: &InstanceId, now: Timestamp) -> bool {
        let step = self.step.as_micros().max(1);
        let steps = (self.refresh_after.as_micros() / step).max(1);
        let present = u128::from(now.micros().unsigned_abs()) / step;
        present % steps == u128::from(fnv1a(id.as_str())) % steps
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

    #[test]
    fn sessions_that_are_seen_together_are_refreshed_apart_and_at_most_once_in_a_minute() {
        let mut in_central: Vec<_> = (0..400).map(|number| (id(number), at(0))).collect();
        let mut writes = vec![0; 120];
        for step in 1..=120_u64 {
            // A heartbeat of all in every second step.
            let (now, heartbeat) = (at(step * 15), at(step / 2 * 30));
            for (id, known) in &mut in_central {
                assert!(now.since(*known) <= Duration::from_secs(75), "an earlier client sees it live");
                if RULE.is_due(id, Some(*known), heartbeat, now) {
                    *known = heartbeat;
                    writes[step as usize - 1] += 1;
                }
            }
        }
        let in_half_an_hour: u32 = writes.iter().sum();
        assert!(in_half_an_hour <= 400 * 31, "{in_half_an_hour} writes of 400 sessions in 30 minutes");
        let busiest = writes[60..].iter().max().copied().unwrap_or(0);
        assert!(busiest <= 300, "{busiest} of 400 sessions in one step");
    }
}
