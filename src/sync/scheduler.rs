//! Decides what sync does next. Pure: time and randomness are arguments, and nothing here performs I/O.
//!
//! The worker asks for the [`SyncAction`] that is due, the driver performs it, and the driver reports the outcome by one
//! of the methods below ([`Scheduler::pushed`], [`Scheduler::failed`], ...). While disconnected there is one timer, for
//! the next handshake. While connected each activity has a timer of its own, and the first one that is due wins, in
//! the order refresh, push, check of the tables, hosts, pull, listen, sweep, page of everything.
//!
//! Urgent changes are pushed `PUSH_GAP` after the previous push. Heartbeats alone are not pushed until central's are too old,
//! because each pushed row costs central an update of five indexes: `HEARTBEAT_PUSHES` times per heartbeat interval the
//! sessions whose heartbeats are due become pending, and are pushed together. If nothing is pending, an empty push reports once per heartbeat interval that this host
//! lives.
//!
//! After a failure the connection counts as down. The next attempt follows after exponential backoff with full jitter;
//! what needs an operator is retried more slowly. [`Scheduler::run_now`] cuts any wait short. The hosts of a large fleet
//! (see `pacing`) wait longer, and read what they missed still later: their own changes are pushed first.

mod timers;

use std::ops::RangeInclusive;
use std::time::Duration;

use self::timers::Timers;
use super::pacing::Fleet;
use crate::domain::backoff::{CAP_FOR_OPERATOR, longest_wait, uniform};
use crate::store::BatchLimit;

/// A reading of a monotonic clock: the time since an arbitrary start.
pub type Tick = Duration;

/// How often sync does what while it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncIntervals {
    /// The longest time between two pushes. Each push reports to central that this host is alive.
    pub heartbeat_interval: Duration,
    /// How old the heartbeat of a live session in central may become before its row is pushed again.
    pub refresh_after: Duration,
    /// The time between two pulls if central sends no notification. Heartbeats are never notified.
    pub pull_interval: Duration,
    /// The time between two checks for vanished hosts.
    pub sweep_interval: Duration,
    /// The longest backoff after a transient failure.
    pub longest_wait: Duration,
}

/// How often to check whether a table that could not be used for records can be used now.
const TABLE_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The shortest time between two pushes, so that a busy host costs central one transaction per second.
const PUSH_GAP: Duration = Duration::from_secs(1);

/// The shortest time between two pulls, however often central notifies.
const PULL_GAP: Duration = Duration::from_millis(250);

/// The wait after a pull is at least this many times the duration of the pull. Otherwise a central that many hosts
/// read would be asked more and more often.
const PULL_WAIT_FACTOR: u32 = 10;

/// The wait after a slow pull is at most this many pull intervals.
const LONGEST_PULL_WAIT: u32 = 3;

/// A notification waits at most so long for the end of that wait, so that a change is seen within seconds; or as long as the
/// pull took, times how much slower than usual central is.
const LONGEST_NOTIFIED_WAIT: Duration = Duration::from_secs(3);

/// How long to wait before listening again at a central that has never supported it.
const LISTEN_RETRY_UNSUPPORTED: Duration = Duration::from_secs(300);

/// The same for a central that has supported it before.
const LISTEN_RETRY: Duration = Duration::from_secs(15);

/// The shortest time between two sweeps of one backlog, so that pushes and pulls get their turn.
const SWEEP_GAP: Duration = Duration::from_secs(1);

/// How long to wait after the local store failed.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Whether an action has done all there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remaining {
    /// It has.
    Nothing,
    /// Its limit was reached first.
    More,
}

impl Remaining {
    /// `More` if there is more to do.
    pub const fn of(more: bool) -> Self {
        if more { Self::More } else { Self::Nothing }
    }
}

/// Which of central's tables for records can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsableTables {
    /// All of them.
    All,
    /// Not all of them: some are checked again.
    Some,
}

/// How many times per heartbeat interval changes are pushed that are only heartbeats.
pub(super) const HEARTBEAT_PUSHES: u32 = 2;

/// The rows of one push: the smallest limit, for a slow central, and the largest, for a fast one.
pub const BATCH_ROWS: RangeInclusive<usize> = 50..=8000;

/// The bytes of one push. A line of 64 kbit/s carries the smallest limit in one second.
const BATCH_BYTES: RangeInclusive<usize> = 8 << 10..=1 << 20;

/// The first batch is this part of the largest.
const FIRST_BATCH_DIVISOR: usize = 8;

/// Batches that take longer than this are not made larger: the round trip is a small part of it by then.
const SLOW_BATCH: Duration = Duration::from_secs(1);

/// How many attempts of backoff a failure that needs an operator skips: no operator repairs it within a second.
const OPERATOR_ATTEMPTS_AHEAD: u32 = 4;

/// What the driver has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncAction {
    /// Connect and register this host.
    Handshake,
    /// Make those live sessions pending whose heartbeats in central are too old.
    Refresh,
    /// Push what is pending, up to the limit; with nothing pending, an empty batch.
    Push {
        /// The largest batch.
        limit: BatchLimit,
    },
    /// Check whether the tables for records can be used.
    CheckTables,
    /// Read when the other hosts were last in contact.
    ReadHosts,
    /// Read what changed in central.
    Pull,
    /// Subscribe to notifications.
    Listen,
    /// Turn the sessions of vanished hosts stale.
    Sweep,
    /// Read a page of everything that central has.
    ReadAll,
    /// Nothing until then, unless an event comes first.
    Wait {
        /// When the next action is due, unless something happens before.
        until: Tick,
    },
}

/// What is unsynced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// Central has everything.
    Nothing,
    /// Only heartbeats wait, which are pushed twice in each heartbeat_interval.
    HeartbeatsOnly,
    /// Something else waits, which is pushed within a second.
    Urgent,
}

/// What kind of failure ended an action. It decides how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// A new attempt may succeed.
    Transient,
    /// An operator has to act.
    NeedsOperator,
    /// Central's ledger is not where it was expected; a new handshake resolves that.
    OutOfStep,
    /// The local store failed, not central.
    LocalStore,
}

#[derive(Clone, Debug)]
enum Connection {
    Down { retry_at: Tick },
    Up(Timers),
}

/// Decides what to do next; see the module.
#[derive(Clone, Debug)]
pub struct Scheduler {
    intervals: SyncIntervals,
    connection: Connection,
    /// Failures since the last successful push.
    failures: u32,
    limit: BatchLimit,
    batch_rows: RangeInclusive<usize>,
    /// Central has accepted a subscription at some time.
    listened_once: bool,
    fleet: Fleet,
    /// An action failed since the last handshake, perhaps for all hosts.
    central_was_lost: bool,
}

impl Scheduler {
    /// Starts disconnected, with a handshake due at once. `batch_rows`: the smallest and the largest limit of rows.
    pub fn new(intervals: SyncIntervals, batch_rows: RangeInclusive<usize>) -> Self {
        let rows = (batch_rows.end() / FIRST_BATCH_DIVISOR).max(*batch_rows.start());
        let limit = BatchLimit { rows, bytes: BATCH_BYTES.end() / FIRST_BATCH_DIVISOR };
        let connection = Connection::Down { retry_at: Tick::ZERO };
        let fleet = Fleet::default();
        Self {
            intervals,
            connection,
            failures: 0,
            limit,
            batch_rows,
            listened_once: false,
            fleet,
            central_was_lost: false,
        }
    }

    /// The hosts that share central, as of the last time they were read.
    pub fn fleet(&self) -> Fleet {
        self.fleet
    }

    /// So many hosts share central.
    pub fn set_fleet(&mut self, fleet: Fleet) {
        self.fleet = fleet;
    }

    /// The limit of the next push.
    pub fn batch_limit(&self) -> BatchLimit {
        self.limit
    }

    /// Whether the last handshake was accepted and nothing has failed since.
    pub fn is_up(&self) -> bool {
        matches!(self.connection, Connection::Up(_))
    }

    /// The action that is due at `now`, given what is unsynced.
    pub fn next_action(&self, now: Tick, unsynced: Unsynced) -> SyncAction {
        let timers = match &self.connection {
            Connection::Down { retry_at } if *retry_at <= now => return SyncAction::Handshake,
            Connection::Down { retry_at } => return SyncAction::Wait { until: *retry_at },
            Connection::Up(timers) => timers,
        };
        let in_order = [
            (timers.refresh_at, SyncAction::Refresh),
            (timers.push_at(unsynced), SyncAction::Push { limit: self.limit }),
            (timers.table_check_at, SyncAction::CheckTables),
            (timers.hosts_at, SyncAction::ReadHosts),
            (timers.pull_at, SyncAction::Pull),
            (timers.listen_at, SyncAction::Listen),
            (timers.sweep_at, SyncAction::Sweep),
            (timers.read_all_at, SyncAction::ReadAll),
        ];
        let until = in_order.iter().map(|(at, _)| *at).min().unwrap_or(now);
        let due = in_order.into_iter().find(|(at, _)| *at <= now);
        due.map_or(SyncAction::Wait { until }, |(_, action)| action)
    }

    fn timers(&mut self) -> Option<&mut Timers> {
        match &mut self.connection {
            Connection::Up(timers) => Some(timers),
            Connection::Down { .. } => None,
        }
    }

    /// Central accepted the handshake. `random` is uniform over all of `u64`.
    pub fn handshake_accepted(&mut self, now: Tick, random: u64) {
        let mut timers = Timers::all_due(now);
        if std::mem::take(&mut self.central_was_lost) && !self.fleet.is_small() {
            timers.read_later(now + self.fleet.reading_wait(random), self.fleet);
        }
        self.connection = Connection::Up(timers);
    }

    /// The live sessions were checked. If some became pending, they are pushed now.
    pub fn refreshed(&mut self, is_any_pending: bool, now: Tick) {
        let interval = self.intervals.heartbeat_interval;
        if let Some(timers) = self.timers() {
            timers.refresh_at = now + interval / HEARTBEAT_PUSHES;
            if is_any_pending {
                timers.heartbeat_push_at = timers.heartbeat_push_at.min(now);
            }
        }
    }

    /// A push that began at `began` succeeded. If more is pending the next one follows at once.
    pub fn pushed(&mut self, remaining: Remaining, began: Tick, now: Tick) {
        let more = remaining == Remaining::More;
        self.failures = 0;
        if more && now.saturating_sub(began) < SLOW_BATCH {
            self.limit.rows = (self.limit.rows * 2).min(*self.batch_rows.end());
            self.limit.bytes = (self.limit.bytes * 2).min(*BATCH_BYTES.end());
        }
        let interval = self.intervals.heartbeat_interval;
        if let Some(timers) = self.timers() {
            timers.urgent_push_at = if more { now } else { now + PUSH_GAP };
            timers.heartbeat_push_at = if more { now } else { now + interval / HEARTBEAT_PUSHES };
            timers.empty_push_at = now + interval;
        }
    }

    /// Rows that central did not accept are pushed again at `at`, but not before the usual gap.
    pub fn retry_held_at(&mut self, at: Option<Tick>) {
        if let Some(timers) = self.timers() {
            timers.held_push_at = at.unwrap_or(Tick::MAX);
        }
    }

    /// The tables for records were checked.
    pub fn tables_checked(&mut self, tables: UsableTables, now: Tick) {
        if let Some(timers) = self.timers() {
            timers.table_check_at = match tables {
                UsableTables::All => Tick::MAX,
                UsableTables::Some => now + TABLE_CHECK_INTERVAL,
            };
        }
    }

    /// A table for records can be used that could not be before: its records are pushed now.
    pub fn table_freed(&mut self, now: Tick) {
        if let Some(timers) = self.timers() {
            (timers.urgent_push_at, timers.heartbeat_push_at) = (now, now);
        }
    }

    /// The hosts were read. They are read again at `next`.
    pub fn hosts_read(&mut self, next: Tick) {
        if let Some(timers) = self.timers() {
            timers.hosts_at = next;
        }
    }

    /// Other hosts joined: they are read at `at`.
    pub fn hosts_joined(&mut self, at: Tick) {
        if let Some(timers) = self.timers() {
            timers.hosts_at = timers.hosts_at.min(at);
        }
    }

    /// A page was read, by a pull that began at `began`, while central was `slowness` times slower than usual. If there is
    /// more to read the next page follows at once.
    pub fn pulled(&mut self, remaining: Remaining, (began, now): (Tick, Tick), slowness: u32) {
        let interval = self.intervals.pull_interval;
        let took = now.saturating_sub(began);
        let wait = took.saturating_mul(PULL_WAIT_FACTOR.saturating_mul(slowness));
        if let Some(timers) = self.timers() {
            timers.pull_at = match remaining {
                Remaining::More => now,
                Remaining::Nothing => now + wait.max(interval * slowness).min(LONGEST_PULL_WAIT * interval),
            };
            let notified = wait.min(LONGEST_NOTIFIED_WAIT.max(took * slowness)).min(interval);
            timers.notified_pull_at = now + PULL_GAP.max(notified);
        }
    }

    /// Central notified all hosts that something changes at `at`, or changed before. `random` is uniform over all of `u64`.
    pub fn change_notified(&mut self, at: Tick, random: u64) {
        let at = at + self.fleet.notified_wait(random);
        if let Some(timers) = self.timers() {
            timers.pull_at = timers.pull_at.min(at.max(timers.notified_pull_at));
        }
    }

    /// Everything has to be read, from now on if no page of it is due at a later time.
    pub fn read_all(&mut self, now: Tick) {
        if let Some(timers) = self.timers().filter(|timers| timers.read_all_at == Tick::MAX) {
            timers.read_all_at = now;
        }
    }

    /// The next page of everything is read at `next`; none: it is read to its end.
    pub fn page_read(&mut self, next: Option<Tick>) {
        if let Some(timers) = self.timers() {
            timers.read_all_at = next.unwrap_or(Tick::MAX);
        }
    }

    /// A subscription succeeded: what changed before it is read at once.
    pub fn listen_succeeded(&mut self, now: Tick) {
        if let Some(timers) = self.timers() {
            (timers.listen_at, timers.pull_at) = (Tick::MAX, now);
            self.listened_once = true;
        }
    }

    /// A subscription failed.
    pub fn listen_failed(&mut self, now: Tick) {
        let retry = if self.listened_once { LISTEN_RETRY } else { LISTEN_RETRY_UNSUPPORTED };
        if let Some(timers) = self.timers() {
            timers.listen_at = now + retry;
        }
    }

    /// The connection that listened is lost: what it missed is read, and another one opened. `random` is uniform over all
    /// of `u64`.
    pub fn listener_lost(&mut self, now: Tick, random: u64) {
        let listen_at = now + self.fleet.reading_wait(random);
        if let Some(timers) = self.timers() {
            timers.listen_at = listen_at;
        }
        self.change_notified(now, random);
    }

    /// A sweep ended, with or without success. If sessions are left the next one follows soon.
    pub fn swept(&mut self, remaining: Remaining, now: Tick) {
        let interval = self.intervals.sweep_interval;
        if let Some(timers) = self.timers() {
            timers.sweep_at = match remaining {
                Remaining::More => now + SWEEP_GAP.min(interval),
                Remaining::Nothing => now + interval,
            };
        }
    }

    /// An action failed, and with it the connection. `random` is uniform over all of `u64`.
    pub fn failed(&mut self, kind: FailureKind, now: Tick, random: u64) {
        let ahead = if kind == FailureKind::NeedsOperator { OPERATOR_ATTEMPTS_AHEAD } else { 0 };
        let cap = if kind == FailureKind::NeedsOperator { CAP_FOR_OPERATOR } else { self.intervals.longest_wait };
        let backoff = longest_wait(self.failures.saturating_add(ahead), cap);
        let wait = match kind {
            FailureKind::OutOfStep if self.failures == 0 => Duration::ZERO,
            FailureKind::LocalStore => STORE_RETRY,
            FailureKind::OutOfStep => uniform(backoff, random),
            // It may have failed for all hosts at the same time.
            FailureKind::Transient | FailureKind::NeedsOperator => self.fleet.retry_wait(backoff, random),
        };
        self.central_was_lost |= matches!(kind, FailureKind::Transient | FailureKind::NeedsOperator);
        self.failures = self.failures.saturating_add(1);
        if kind == FailureKind::Transient {
            self.limit.rows = (self.limit.rows / 2).max(*self.batch_rows.start());
            self.limit.bytes = (self.limit.bytes / 2).max(*BATCH_BYTES.start());
        }
        self.connection = Connection::Down { retry_at: now + wait };
    }

    /// Ends the current wait: the operator asked for a sync, or the network came back.
    pub fn run_now(&mut self, now: Tick) {
        match &mut self.connection {
            Connection::Down { retry_at } => *retry_at = (*retry_at).min(now),
            Connection::Up(timers) => {
                if timers.table_check_at != Tick::MAX {
                    timers.table_check_at = timers.table_check_at.min(now);
                }
                timers.urgent_push_at = timers.urgent_push_at.min(now);
                timers.empty_push_at = timers.empty_push_at.min(now);
            }
        }
    }

    /// The settings or the identity changed: a new handshake is due at once.
    pub fn reconnect(&mut self, intervals: SyncIntervals, now: Tick) {
        self.intervals = intervals;
        self.failures = 0;
        self.connection = Connection::Down { retry_at: now };
    }
}

#[cfg(test)]
mod tests;
