//! How the hosts of a fleet share central's time. Pure.
//!
//! **Spreading**: what all hosts would do at the same time is spread over a window that grows with their number:
//! reconnecting after an outage, reading what was missed in it, and answering a notification. A fleet of at most
//! `SMALL_FLEET` hosts is not delayed, nor is a daemon that starts.
//!
//! **Answer times** show how busy central is. An answer that takes longer than usual makes the next pull later, up to a
//! bound. A reading of everything pauses after each page for a multiple of the time that central took.
//!
//! **History** of other hosts' sessions is read ahead up to a certain number of hosts, and on demand in a larger fleet:
//! there more than a thousand hosts would read each record, and hardly any of them would show it to a user.

use std::time::Duration;

use crate::domain::backoff::uniform;
use crate::domain::mirror::{HistoryReading, HostSeen};

/// The largest fleet whose hosts do not wait for one another.
const SMALL_FLEET: u32 = 20;

/// So many hosts reconnect in a second: each costs central a new server process and the plans of its statements.
const RECONNECTS_A_SECOND: u32 = 50;

/// The longest window in which hosts reconnect, so that all of them are back within a minute.
const LONGEST_WINDOW: Duration = Duration::from_secs(20);

/// After that they read what they missed within a window that is longer by this fraction, because those that are back push.
const READING_WINDOW: (u32, u32) = (5, 4);

/// While central stays away, a host of a large fleet waits at least this part of the longest backoff: if all waits from
/// zero on were as likely, most hosts would come back in the first seconds.
const LEAST_BACKOFF_PART: u32 = 3;

/// Notifications are answered within this part of the window: two and a half seconds at most. All hosts read at that
/// time, so a shorter window would make central's answers slow for all of them.
const NOTIFIED_PART: u32 = 8;

/// A host that has not been in contact for so long does not count.
const IN_CONTACT: Duration = Duration::from_secs(86_400);

/// The pause after a page of a reading of everything is this many times the time that central took for the page: in a
/// small fleet, and in a large one, where a few hosts read at a time.
const PAUSE_IN_SMALL_FLEET: u32 = 1;
const PAUSE_WITH_SLOT: u32 = 2;

/// The same for each host of a large fleet if all of them may read at the same time.
const PAUSE_OF_EACH_HOST: u32 = 2;

/// The longest pause after a page.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The shortest time between two attempts to take a slot, and the longest that is added to it.
const SLOT_WAIT: Duration = Duration::from_secs(1);
const LONGEST_SLOT_WAIT: Duration = Duration::from_secs(120);

/// In a second so many hosts of the fleet try to take a slot.
const SLOT_ATTEMPTS_A_SECOND: u32 = 10;

/// A fleet of more hosts than the first number stops reading the history of others' sessions ahead. It begins again with at
/// most the second number: then everything is read once more, which a fleet of about one size must not do again and again.
const READS_HISTORY_AHEAD: u32 = 1000;
const READS_HISTORY_AHEAD_AGAIN: u32 = 900;

/// The number of hosts that share one central.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fleet(u32);

impl Fleet {
    /// A fleet of so many hosts.
    pub const fn of_size(hosts: u32) -> Self {
        Self(hosts)
    }

    /// The hosts that were in contact in the day before the newest contact of all.
    pub fn of(hosts: &[HostSeen]) -> Self {
        let newest = hosts.iter().map(|host| host.last_seen).max();
        let is_counted = |host: &&HostSeen| newest.is_some_and(|newest| newest.since(host.last_seen) < IN_CONTACT);
        Self(u32::try_from(hosts.iter().filter(is_counted).count()).unwrap_or(u32::MAX))
    }

    /// Whether its hosts do not wait for one another.
    pub const fn is_small(self) -> bool {
        self.0 <= SMALL_FLEET
    }

    /// The time over which its hosts spread what all of them do after an outage. Zero for a small fleet.
    pub fn window(self) -> Duration {
        match self.is_small() {
            true => Duration::ZERO,
            false => (Duration::from_secs(1) * self.0 / RECONNECTS_A_SECOND).min(LONGEST_WINDOW),
        }
    }

    /// How long this host waits before it tries again to reach central, if `backoff` is the longest wait of one host alone.
    /// `random` is uniform over all of `u64`, as in the other methods.
    pub fn retry_wait(self, backoff: Duration, random: u64) -> Duration {
        let least = match self.is_small() {
            true => Duration::ZERO,
            false => backoff.saturating_sub(self.window()).min(backoff / LEAST_BACKOFF_PART),
        };
        least + uniform(backoff.max(self.window()) - least, random)
    }

    /// The time over which its hosts read what they missed in an outage.
    pub fn reading_window(self) -> Duration {
        self.window() * READING_WINDOW.0 / READING_WINDOW.1
    }

    /// How long this host waits before it reads what it missed.
    pub fn reading_wait(self, random: u64) -> Duration {
        uniform(self.reading_window(), random)
    }

    /// How long this host waits before it reads what was notified to all.
    pub fn notified_wait(self, random: u64) -> Duration {
        uniform(self.window() / NOTIFIED_PART, random)
    }

    /// When its hosts read the history of others' sessions, if they did so `before`.
    pub fn history_reading(self, before: HistoryReading) -> HistoryReading {
        match before {
            HistoryReading::Ahead if self.0 > READS_HISTORY_AHEAD => HistoryReading::OnDemand,
            HistoryReading::OnDemand if self.0 <= READS_HISTORY_AHEAD_AGAIN => HistoryReading::Ahead,
            unchanged => unchanged,
        }
    }

    /// How long this host waits before it tries again to take a slot in which it may read everything.
    pub fn slot_wait(self, random: u64) -> Duration {
        let added = Duration::from_secs(1) * self.0 / SLOT_ATTEMPTS_A_SECOND;
        SLOT_WAIT + uniform(added.min(LONGEST_SLOT_WAIT), random)
    }
}

/// How much of central's time a reading of everything may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadingShare {
    /// The fleet is small.
    SmallFleet,
    /// This host has one of the few slots of a large fleet.
    Slot,
    /// Every host of a large fleet may read at the same time: central has no slots.
    AllHosts(Fleet),
}

impl ReadingShare {
    /// How long to pause after a page for which central took `took`, while it is `slowness` times slower than usual.
    pub fn pause(self, took: Duration, slowness: u32) -> Duration {
        let factor = match self {
            Self::SmallFleet => PAUSE_IN_SMALL_FLEET,
            Self::Slot => PAUSE_WITH_SLOT,
            Self::AllHosts(fleet) => PAUSE_WITH_SLOT.max(fleet.0.saturating_mul(PAUSE_OF_EACH_HOST)),
        };
        took.saturating_mul(factor.saturating_mul(slowness)).min(LONGEST_PAUSE)
    }
}

/// Answers that take less are never slow.
const FAST_ANSWER: Duration = Duration::from_millis(50);

/// An answer of so many rows takes about twice as long as one of none.
const ROWS_OF_ONE_ANSWER: usize = 100;

/// A faster answer moves the usual time by this part of the difference, and a slower one by the other.
const FASTER: u32 = 4;
const SLOWER: u32 = 64;

/// How many times slower than usual an answer counts at most.
pub const MAX_SLOWNESS: u32 = 4;

/// The time that central usually takes for an answer, and its last one compared with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnswerTimes {
    /// The usual time of an answer without rows; none before the first.
    usual: Option<Duration>,
    last: Duration,
    /// Zero before the first answer.
    slowness: u32,
}

impl AnswerTimes {
    /// Records an answer of so many rows.
    pub fn record(&mut self, took: Duration, rows: usize) {
        let answers = u32::try_from(1 + rows / ROWS_OF_ONE_ANSWER).unwrap_or(u32::MAX);
        let cost = took / answers;
        let usual = self.usual.unwrap_or(cost);
        let ratio = cost.as_micros() / usual.max(FAST_ANSWER).as_micros();
        self.slowness = u32::try_from(ratio).unwrap_or(u32::MAX).clamp(1, MAX_SLOWNESS);
        self.last = took;
        self.usual = Some(match cost < usual {
            true => usual - (usual - cost) / FASTER,
            // However slow a single answer is. A central that stays slower is usual in the end.
            false => usual + (cost - usual).min(usual.max(FAST_ANSWER)) / SLOWER,
        });
    }

    /// How long the last answer took.
    pub const fn last(&self) -> Duration {
        self.last
    }

    /// How many times slower than usual the last answer was: from 1 to [`MAX_SLOWNESS`].
    pub const fn slowness(&self) -> u32 {
        if self.slowness == 0 { 1 } else { self.slowness }
    }
}

#[cfg(test)]
mod tests;
