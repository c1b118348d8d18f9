//! What the driver remembers of pulling from central.

use std::time::Duration;

use super::scheduler::Tick;
use crate::domain::limits::AccountLimit;
use crate::domain::mirror::{PageSize, PullPosition};

/// The shortest time between two readings of the list of hosts, however many daemons join.
const HOST_LIST_GAP: Duration = Duration::from_secs(1);

/// The state of pulling over one link.
pub(super) struct PullState {
    /// Between two pages: the number at which the pull began, and where the next page begins.
    pub position: Option<(u64, PullPosition)>,
    pub page_size: PageSize,
    /// The timeline of central that the position belongs to.
    pub timeline: String,
    /// When the current or the last pull began.
    pub began: Tick,
    pub host_list_due: Tick,
    pub host_list_read: Tick,
    /// The rate limits of this host that central has; none before they were shared over this link.
    pub shared_limits: Option<Vec<AccountLimit>>,
}

impl Default for PullState {
    fn default() -> Self {
        Self {
            position: None,
            page_size: PageSize::LARGEST,
            timeline: String::new(),
            began: Tick::ZERO,
            host_list_due: Tick::ZERO,
            host_list_read: Tick::ZERO,
            shared_limits: None,
        }
    }
}

impl PullState {
    /// A handshake was accepted: the list of hosts is due, and a pull on another timeline starts over.
    pub(super) fn follow_timeline(&mut self, timeline: String, now: Tick) {
        if self.timeline != timeline {
            self.position = None;
        }
        self.timeline = timeline;
        self.shared_limits = None;
        self.host_list_due = now;
    }

    /// Schedules the list of hosts after one joined. Returns when it is due.
    pub(super) fn schedule_host_list(&mut self, now: Tick) -> Tick {
        self.host_list_due = self.host_list_due.min(now.max(self.host_list_read + HOST_LIST_GAP));
        self.host_list_due
    }
}
