//! What the driver remembers of pulling from central.

use std::time::Duration;

use uuid::Uuid;

use super::pacing::AnswerTimes;
use super::scheduler::Tick;
use crate::domain::Timestamp;
use crate::domain::limits::AccountLimit;
use crate::domain::mirror::{PageSize, PullPosition, Transactions};

/// The shortest time between two readings of hosts that joined. It doubles with each of them until all hosts are read, up to
/// the window of the fleet: after an outage all hosts join again.
const JOINED_GAP: Duration = Duration::from_secs(1);

/// The time between two pulls of everything where central does not mark all changes.
pub(super) const WHOLE_INTERVAL: Duration = Duration::from_secs(300);

/// A transaction that runs for longer is reported, by `doctor` too.
pub(super) const LONG_TRANSACTION: Duration = Duration::from_secs(300);

/// A reading of everything between two pages.
pub(super) struct FullReading {
    /// Where the next page begins.
    pub after: PullPosition,
    /// The transaction since which the next pull reads changes.
    pub changes_since: u64,
    /// What the pages and the pulls have read is at least as new as this.
    pub as_of: Timestamp,
}

/// One of the slots in which hosts of a large fleet may read everything.
pub(super) struct Slot {
    pub number: u64,
    pub until: Tick,
}

/// The state of pulling over one link.
pub(super) struct PullState {
    /// Between two pages: the number at which the pull began, and where the next page begins.
    pub position: Option<(u64, PullPosition)>,
    pub page_size: PageSize,
    /// The timeline of central that the position belongs to.
    pub timeline: String,
    /// When the current or the last pull began.
    pub began: Tick,
    /// The transactions that had ended when the current pull began.
    pub snapshot: Option<Transactions>,
    /// Those that had ended when the last complete pull began, and the number at which the next one begins.
    pub read: Option<(u64, Transactions)>,
    /// The oldest transaction that was running in central then, and since when it has been.
    pub oldest: Option<(u64, Timestamp)>,
    /// When everything is read again; none while central marks all changes, and has been read since it does.
    whole_due: Option<Tick>,
    /// Central marks all changes.
    all_marked: bool,
    /// When the triggers that mark changes were checked last.
    pub triggers_checked: Tick,
    /// When all hosts are read again.
    pub host_list_due: Tick,
    /// When hosts were read last, all or some.
    pub hosts_read: Tick,
    /// Heartbeats alone are marked as changes, as of that reading.
    pub heartbeats_marked: bool,
    /// The hosts that joined since.
    pub joined: Vec<Uuid>,
    /// How often hosts that joined were read since all were read.
    pub joined_readings: u32,
    /// The reading of everything, between two of its pages.
    pub full: Option<FullReading>,
    /// The size of its next page.
    pub full_page_size: PageSize,
    /// The slot in which this host may read everything.
    pub slot: Option<Slot>,
    /// How long central takes for the pages.
    pub answers: AnswerTimes,
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
            snapshot: None,
            read: None,
            oldest: None,
            whole_due: None,
            all_marked: true,
            triggers_checked: Tick::ZERO,
            host_list_due: Tick::ZERO,
            hosts_read: Tick::ZERO,
            heartbeats_marked: true,
            joined: Vec::new(),
            joined_readings: 0,
            full: None,
            full_page_size: PageSize::LARGEST.halved().halved(),
            slot: None,
            answers: AnswerTimes::default(),
            shared_limits: None,
        }
    }
}

impl PullState {
    /// A handshake was accepted: the list of hosts is due, and a pull on another timeline starts over.
    pub(super) fn follow_timeline(&mut self, timeline: String, now: Tick) {
        if self.timeline != timeline {
            (self.position, self.read, self.full, self.slot) = (None, None, None, None);
        }
        self.timeline = timeline;
        self.shared_limits = None;
        self.host_list_due = now;
    }

    /// Sets whether central marks all changes. From when it does not, everything is read at intervals; once it does again,
    /// everything is read for the last time.
    pub(super) fn set_changes_marked(&mut self, all_marked: bool, now: Tick) {
        if all_marked != self.all_marked {
            self.whole_due = Some(now);
        }
        self.all_marked = all_marked;
    }

    /// Whether the pull that begins now has to read everything.
    pub(super) fn begins_whole_pull(&mut self, now: Tick) -> bool {
        let is_due = self.whole_due.is_some_and(|due| due <= now);
        if is_due {
            self.whole_due = (!self.all_marked).then_some(now + WHOLE_INTERVAL);
        }
        is_due
    }

    /// Remembers hosts that joined; if none is named, all are read. Returns when they are due: not before `from`, and the later
    /// the more have joined, up to the `window` of the fleet.
    pub(super) fn remember_joined(&mut self, hosts: Vec<Uuid>, from: Tick, window: Duration) -> Tick {
        let gap = JOINED_GAP.saturating_mul(2_u32.saturating_pow(self.joined_readings)).min(window.max(JOINED_GAP));
        let due = from.max(self.hosts_read + gap);
        if hosts.is_empty() {
            self.host_list_due = self.host_list_due.min(due);
        }
        self.joined.extend(hosts);
        due
    }

    /// A pull is complete that began in `self.snapshot`; the next one begins at `next_since`. Returns the oldest transaction
    /// that was running, if it has been for long, and since when.
    pub(super) fn completed(&mut self, next_since: u64, now: Timestamp) -> Option<(u64, Timestamp)> {
        let snapshot = self.snapshot.take();
        let oldest = snapshot.as_ref().and_then(Transactions::oldest_running);
        let since = self.oldest.filter(|(known, _)| Some(*known) == oldest).map_or(now, |(_, since)| since);
        self.oldest = oldest.map(|oldest| (oldest, since));
        self.read = snapshot.map(|snapshot| (next_since, snapshot));
        self.oldest.filter(|(_, since)| now.since(*since) >= LONG_TRANSACTION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn read(state: &mut PullState, at: Tick) {
        state.hosts_read = at;
        state.joined_readings += 1;
    }

    #[test]
    fn host_that_joins_is_read_at_once_and_many_less_and_less_often_until_all_hosts_are_read() {
        let mut state = PullState { hosts_read: 10 * SECOND, ..PullState::default() };
        let window = 20 * SECOND;
        let mut at = 15 * SECOND;
        assert_eq!(state.remember_joined(vec![Uuid::from_u128(1)], at, window), at);
        for gap in [2, 4, 8, 16, 20, 20] {
            read(&mut state, at);
            let due = state.remember_joined(vec![Uuid::from_u128(2)], at, window);
            assert_eq!(due, at + gap * SECOND);
            at = due;
        }
        (state.hosts_read, state.joined_readings) = (at, 0);
        assert_eq!(state.remember_joined(vec![Uuid::from_u128(3)], at, window), at + SECOND);
    }

    #[test]
    fn hosts_of_a_small_fleet_are_read_within_a_second_however_many_join() {
        let mut state = PullState::default();
        (0..40).for_each(|_| read(&mut state, 10 * SECOND));
        assert_eq!(state.remember_joined(vec![Uuid::from_u128(1)], 10 * SECOND, Duration::ZERO), 11 * SECOND);
    }

    #[test]
    fn everything_is_read_at_intervals_while_changes_are_not_marked() {
        let mut state = PullState::default();
        let at = Tick::from_secs;
        assert!(!state.begins_whole_pull(at(1)));
        state.set_changes_marked(false, at(10));
        assert!(state.begins_whole_pull(at(10)));
        assert!(!state.begins_whole_pull(at(11)));
        assert!(!state.begins_whole_pull(at(9) + WHOLE_INTERVAL));
        assert!(state.begins_whole_pull(at(10) + WHOLE_INTERVAL));
        // What was changed without a mark since the last reading.
        state.set_changes_marked(true, at(1000));
        assert!(state.begins_whole_pull(at(1001)));
        assert!(!state.begins_whole_pull(at(5000)));
        state.set_changes_marked(true, at(5001));
        assert!(!state.begins_whole_pull(at(5002)));
    }
}
