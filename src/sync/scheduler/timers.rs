//! When each activity is due.

use super::{Tick, Unsynced};
use crate::sync::pacing::Fleet;

/// When each activity is due while connected. `Tick::MAX` means never.
#[derive(Clone, Debug)]
pub(super) struct Timers {
    pub(super) refresh_at: Tick,
    /// A push of urgent changes.
    pub(super) urgent_push_at: Tick,
    /// A push of heartbeats.
    pub(super) heartbeat_push_at: Tick,
    /// A push of nothing.
    pub(super) empty_push_at: Tick,
    /// A push of rows that central did not accept before.
    pub(super) held_push_at: Tick,
    pub(super) table_check_at: Tick,
    pub(super) hosts_at: Tick,
    pub(super) pull_at: Tick,
    /// The earliest pull after a notification.
    pub(super) notified_pull_at: Tick,
    pub(super) listen_at: Tick,
    pub(super) sweep_at: Tick,
    pub(super) read_all_at: Tick,
}

impl Timers {
    pub(super) fn all_due(now: Tick) -> Self {
        Self {
            refresh_at: now,
            urgent_push_at: now,
            heartbeat_push_at: now,
            empty_push_at: now,
            held_push_at: Tick::MAX,
            table_check_at: Tick::MAX,
            hosts_at: now,
            pull_at: now,
            notified_pull_at: now,
            listen_at: now,
            sweep_at: now,
            read_all_at: Tick::MAX,
        }
    }

    /// Central was lost to a fleet of which this host is one: it reads at `at`, and sweeps when all may be back.
    pub(super) fn read_later(&mut self, at: Tick, fleet: Fleet) {
        (self.hosts_at, self.pull_at, self.notified_pull_at, self.listen_at) = (at, at, at, at);
        self.sweep_at = at + fleet.reading_window();
    }

    pub(super) fn push_at(&self, unsynced: Unsynced) -> Tick {
        let by_content = match unsynced {
            Unsynced::Nothing => self.empty_push_at,
            Unsynced::HeartbeatsOnly => self.heartbeat_push_at.min(self.empty_push_at),
            Unsynced::Urgent => self.urgent_push_at.min(self.empty_push_at),
        };
        by_content.min(self.held_push_at.max(self.urgent_push_at))
    }
}
