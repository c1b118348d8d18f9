//! Reports the state of the link to central: to `status` and metrics, and in the log.
//!
//! The state is logged once when it changes, not for each attempt. While the link is up, `last_error` names
//! what is held back, in this order: locked rows, blocked tables, a failed sweep.

use std::time::Duration;

use tokio::sync::watch;

use super::batch::TargetTable;
use super::central::CentralError;
use super::held_rows::HeldRows;
use super::pull_state::WHOLE_INTERVAL;
use crate::clock::Clock;
use crate::domain::{BlockedKind, HistoryTables, LinkState, LinkStatus, RecordKind, Timestamp, link::clock_advice};
use crate::store::StoreError;

/// Smaller differences of clocks are not reported, in microseconds.
const CLOCK_TOLERANCE: i64 = 2_000_000;

pub(super) struct LinkReporter {
    link: watch::Sender<LinkStatus>,
    clock: Clock,
    /// Why the last sweep failed.
    sweep_error: Option<String>,
    /// The triggers that central lacks, in one line.
    missing_triggers: Option<String>,
}

impl LinkReporter {
    pub(super) fn new(link: watch::Sender<LinkStatus>, clock: Clock) -> Self {
        Self { link, clock, sweep_error: None, missing_triggers: None }
    }

    /// A push succeeded that was sent at `asked` and took `took`. `central_time`: central's clock meanwhile.
    pub(super) fn pushed(&self, took: Duration, asked: Timestamp, central_time: Option<Timestamp>) {
        let now = (self.clock)();
        let ahead = central_time.map(|there| clock_ahead(asked, there, now));
        self.link.send_modify(|link| {
            link.last_sync_at = Some(now);
            link.round_trip = Some(took);
            link.push_durations.observe(took);
            if let Some(ahead) = ahead {
                log_clock(link.clock_ahead, ahead);
                link.clock_ahead = ahead;
            }
        });
    }

    /// Central answered: the link is connected, or refused while central accepts no sessions.
    pub(super) fn answered(&self, held: &HeldRows, tables: &HistoryTables) {
        let blocked = blocked_kinds(held, tables);
        let session_fault = held.fault(TargetTable::Sessions);
        match session_fault {
            Some(why) => self.lost(&CentralError::refused(format!(
                "central takes no sessions: {why}; nothing is parked, all of them wait and are tried again"
            ))),
            None => self.connected(),
        }
        let error = session_fault.is_none().then(|| {
            let records = blocked.first().map(|first| format!("records wait: {}", first.reason));
            held.locks().or(records).or_else(|| self.sweep_error.clone())
        });
        let outdated: Vec<_> = tables.outdated().into_iter().chain(self.missing_triggers.clone()).collect();
        let outdated = (!outdated.is_empty()).then(|| outdated.join("; "));
        self.link.send_if_modified(|link| {
            let before = (link.blocked.clone(), link.last_error.clone(), link.outdated.clone());
            link.blocked = blocked;
            link.outdated = outdated;
            if let Some(error) = error {
                link.last_error = error;
            }
            before != (link.blocked.clone(), link.last_error.clone(), link.outdated.clone())
        });
    }

    /// Sets or clears the error of the sweep. Returns whether it changed.
    pub(super) fn set_sweep_error(&mut self, error: Option<String>) -> bool {
        if self.sweep_error == error {
            return false;
        }
        if let Some(error) = &error {
            tracing::warn!("{error}; changes are pushed all the same");
        }
        self.sweep_error = error;
        true
    }

    /// Sets the triggers that central lacks.
    pub(super) fn set_missing_triggers(&mut self, triggers: Vec<String>) {
        let text = (!triggers.is_empty()).then(|| {
            format!(
                "central lacks {}: what others change is read with everything else, every {}; run `sessiond migrate`, and \
                 enable what is disabled by ALTER TABLE ... ENABLE TRIGGER",
                triggers.join(", "),
                humantime::format_duration(WHOLE_INTERVAL)
            )
        });
        if let Some(text) = text.as_ref().filter(|_| self.missing_triggers != text) {
            tracing::warn!("{text}");
        }
        self.missing_triggers = text;
    }

    /// The local store failed. Logged once until [`Self::store_works`].
    pub(super) fn store_failed(&self, error: &StoreError) {
        let now = (self.clock)();
        self.link.send_modify(|link| {
            if link.store_error.is_none() {
                tracing::error!(%error, "sync cannot use the local store; it is retried automatically");
            }
            let since = link.store_error.as_ref().map_or(now, |(since, _)| *since);
            link.store_error = Some((since, error.to_string()));
        });
    }

    /// An action that writes the local store succeeded.
    pub(super) fn store_works(&self) {
        self.link.send_if_modified(|link| link.store_error.take().is_some());
    }

    /// Reports whether central sends notifications of changes.
    pub(super) fn set_listening(&self, is_listening: bool) {
        self.link.send_modify(|link| link.listening = is_listening);
    }

    /// Counts rows of other clients that a pull could not read.
    pub(super) fn unreadable_rows(&self, rows: u64) {
        if rows > 0 {
            self.link.send_modify(|link| link.unreadable_rows += rows);
        }
    }

    /// Sets or clears the transaction in central that has been running for long, and since when.
    pub(super) fn set_long_transaction(&self, oldest: Option<(u64, Timestamp)>) {
        let text = oldest.map(|(transaction, since)| long_transaction(transaction, since));
        self.link.send_if_modified(|link| {
            let is_new = link.long_transaction != text;
            if let Some(text) = text.as_ref().filter(|_| is_new) {
                tracing::warn!("{text}");
            }
            link.long_transaction = text;
            is_new
        });
    }

    fn connected(&self) {
        let now = (self.clock)();
        self.link.send_if_modified(|link| {
            let is_new = link.state != LinkState::Connected;
            if is_new {
                tracing::info!("connected to central");
                (link.state, link.since) = (LinkState::Connected, now);
                (link.last_error, link.conflict) = (self.sweep_error.clone(), None);
            }
            is_new
        });
    }

    /// The link is down. Logged once for each new state.
    pub(super) fn lost(&self, error: &CentralError) {
        let state = match error {
            CentralError::Retry(_) | CentralError::Locked(_) => LinkState::Unreachable,
            CentralError::Refused(_) | CentralError::Reject(_) => LinkState::Refused,
            CentralError::SchemaMissing(_) => LinkState::SchemaMissing,
            CentralError::Conflict(_) => LinkState::IdentityConflict,
            CentralError::OutOfStep => return tracing::info!("{error}; repeating the handshake"),
        };
        let now = (self.clock)();
        self.link.send_modify(|link| {
            if link.state != state {
                tracing::warn!(state = state.as_str(), "no link to central, changes wait in the store: {error}");
                link.state = state;
                link.since = now;
            }
            link.last_error = Some(error.to_string());
            link.round_trip = None;
            link.listening = false;
            link.conflict = match error {
                CentralError::Conflict(conflict) => Some(conflict.clone()),
                _ => None,
            };
        });
    }
}

fn long_transaction(transaction: u64, since: Timestamp) -> String {
    format!(
        "transaction {transaction} in central has been open since {since} or longer: what changes meanwhile is searched again \
         by every host, and cannot be vacuumed; end it (pg_stat_activity, backend_xid = {})",
        transaction & u64::from(u32::MAX)
    )
}

/// The kinds of records that cannot be pushed: central has no usable table for them, or the table is at fault.
fn blocked_kinds(held: &HeldRows, tables: &HistoryTables) -> Vec<BlockedKind> {
    let reason = |kind: RecordKind| {
        let fault = held.fault(TargetTable::Records(kind));
        tables.blocked(kind).or(fault.map(|why| format!("{} takes nothing: {why}", kind.table())))
    };
    RecordKind::ALL.into_iter().filter_map(|kind| Some(BlockedKind { kind, reason: reason(kind)? })).collect()
}

/// How far the local clock is certainly ahead of central's, in microseconds; `None` within the tolerance. Central's
/// clock was read between `before` and `after` of the local one.
fn clock_ahead(before: Timestamp, there: Timestamp, after: Timestamp) -> Option<i64> {
    let (before, there, after) = (before.micros(), there.micros(), after.micros());
    let ahead = if there < before { before - there } else { (after - there).min(0) };
    (ahead.abs() > CLOCK_TOLERANCE).then_some(ahead)
}

/// Logs when the clocks begin or cease to differ.
fn log_clock(was: Option<i64>, ahead: Option<i64>) {
    match (was, ahead) {
        (None, Some(ahead)) => tracing::warn!("{}", clock_advice(ahead)),
        (Some(_), None) => tracing::info!("this machine's clock and central's agree"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_differs_only_if_the_round_trip_does_not_explain_it() {
        let at = Timestamp::from_micros;
        let second = 1_000_000;
        assert_eq!(clock_ahead(at(0), at(5 * second), at(10 * second)), None);
        assert_eq!(clock_ahead(at(0), at(2 * second), at(second)), None, "within the tolerance");
        assert_eq!(clock_ahead(at(0), at(9 * second), at(second)), Some(-8 * second));
        assert_eq!(clock_ahead(at(9 * second), at(0), at(10 * second)), Some(9 * second));
        assert!(clock_advice(-8 * second).contains("8s behind central's"));
    }
}
