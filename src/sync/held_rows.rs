//! The rows that are kept out of the next pushes because central does not accept them at present. In memory only.
//!
//! Three things are held: sessions whose rows another transaction has locked; records of such sessions; and all rows of
//! a table that rejects most of what it receives, which is the fault of the table and not of the rows. None of these
//! rows is parked or lost: they count as backlog, and are pushed once central accepts them. Each is retried after a
//! time that doubles, and at once when the operator requests a push. A new connection starts with nothing held.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::batch::TargetTable;
use super::scheduler::Tick;
use crate::domain::InstanceId;
use crate::store::Skip;

/// Checking whether a row is still locked is cheap.
const FIRST_LOCK_CHECK: Duration = Duration::from_secs(1);
const LONGEST_LOCK_CHECK: Duration = Duration::from_secs(30);

/// A table that rejects its rows has to be repaired by an operator.
const FIRST_FAULT_RETRY: Duration = Duration::from_secs(5);
const LONGEST_FAULT_RETRY: Duration = Duration::from_secs(60);

/// When a held row or table is tried again, and how often it has failed in a row.
#[derive(Clone, Debug, Default)]
struct Retry {
    at: Tick,
    failures: u32,
}

impl Retry {
    fn failed(&mut self, now: Tick, first: Duration, longest: Duration) {
        self.at = now + first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures += 1;
    }
}

/// A table that accepts nothing at present.
#[derive(Clone, Debug)]
struct Fault {
    reason: String,
    retry: Retry,
}

#[derive(Clone, Debug, Default)]
pub(super) struct HeldRows {
    sessions: HashMap<InstanceId, Retry>,
    records_of: HashMap<InstanceId, Retry>,
    faults: BTreeMap<TargetTable, Fault>,
}

impl HeldRows {
    /// The rows that stay out of a push at `now`.
    pub(super) fn skip(&self, now: Tick) -> Skip {
        let waits = |rows: &HashMap<InstanceId, Retry>| {
            let mut ids: Vec<_> = rows.iter().filter(|(_, retry)| retry.at > now).map(|(id, _)| id.clone()).collect();
            ids.sort();
            ids
        };
        let faulty: Vec<_> = self.faults.iter().filter(|(_, fault)| fault.retry.at > now).map(|(s, _)| *s).collect();
        Skip {
            all_sessions: faulty.contains(&TargetTable::Sessions),
            kinds: faulty.iter().filter_map(|table| table.kind()).collect(),
            sessions: waits(&self.sessions),
            records_of: waits(&self.records_of),
        }
    }

    /// When the next retry is due.
    pub(super) fn next_retry(&self) -> Option<Tick> {
        let rows = self.sessions.values().chain(self.records_of.values());
        rows.chain(self.faults.values().map(|fault| &fault.retry)).map(|retry| retry.at).min()
    }

    /// Makes everything due at once.
    pub(super) fn retry_now(&mut self) {
        let rows = self.sessions.values_mut().chain(self.records_of.values_mut());
        rows.chain(self.faults.values_mut().map(|fault| &mut fault.retry)).for_each(|retry| retry.at = Tick::ZERO);
    }

    /// Holds a session, or its records, because a row of `table` is locked.
    pub(super) fn lock(&mut self, id: InstanceId, table: TargetTable, now: Tick) {
        let rows = if table == TargetTable::Sessions { &mut self.sessions } else { &mut self.records_of };
        rows.entry(id).or_default().failed(now, FIRST_LOCK_CHECK, LONGEST_LOCK_CHECK);
    }

    /// The sessions with locked rows that are due to be tried again.
    pub(super) fn due_locks(&self, now: Tick) -> Vec<InstanceId> {
        let rows = self.sessions.iter().chain(&self.records_of);
        rows.filter(|(_, retry)| retry.at <= now).map(|(id, _)| id.clone()).collect()
    }

    /// A check found the rows of this session still locked.
    pub(super) fn still_locked(&mut self, id: &InstanceId, now: Tick) {
        for rows in [&mut self.sessions, &mut self.records_of] {
            if let Some(retry) = rows.get_mut(id) {
                retry.failed(now, FIRST_LOCK_CHECK, LONGEST_LOCK_CHECK);
            }
        }
    }

    /// Central accepted a row of this session in `table`.
    pub(super) fn accepted(&mut self, id: &InstanceId, table: TargetTable) {
        let rows = if table == TargetTable::Sessions { &mut self.sessions } else { &mut self.records_of };
        rows.remove(id);
    }

    /// Holds all rows of a table that is at fault.
    pub(super) fn fail(&mut self, table: TargetTable, reason: String, now: Tick) {
        let mut retry = self.faults.remove(&table).map(|fault| fault.retry).unwrap_or_default();
        retry.failed(now, FIRST_FAULT_RETRY, LONGEST_FAULT_RETRY);
        self.faults.insert(table, Fault { reason, retry });
    }

    /// Ends the fault of a table. Returns whether it had one.
    pub(super) fn clear(&mut self, table: TargetTable) -> bool {
        self.faults.remove(&table).is_some()
    }

    /// Why the table is at fault, if it is.
    pub(super) fn fault(&self, table: TargetTable) -> Option<&str> {
        self.faults.get(&table).map(|fault| fault.reason.as_str())
    }

    /// A message for the operator about the locked rows, if there are any.
    pub(super) fn locks(&self) -> Option<String> {
        let count = self.sessions.len() + self.records_of.keys().filter(|id| !self.sessions.contains_key(*id)).count();
        let first = self.sessions.keys().chain(self.records_of.keys()).min()?;
        let others = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        Some(format!(
            "another transaction in central holds a lock on the row of session {first}{others}, which waits; the other \
             rows are pushed; end that transaction (pg_stat_activity: idle in transaction)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RecordKind;

    fn at(seconds: u64) -> Tick {
        Duration::from_secs(seconds)
    }

    #[test]
    fn held_rows_are_skipped_until_their_retry() {
        let mut held = HeldRows::default();
        let id = InstanceId::parse("odin-PS-000001").unwrap();
        held.lock(id.clone(), TargetTable::Sessions, at(10));
        held.fail(TargetTable::Records(RecordKind::Event), "no".into(), at(10));
        let skip = held.skip(at(10));
        assert_eq!((skip.sessions, skip.kinds, skip.all_sessions), (vec![id.clone()], vec![RecordKind::Event], false));
        assert_eq!(held.next_retry(), Some(at(11)));
        assert_eq!(held.skip(at(11)).sessions, []);
        held.still_locked(&id, at(11));
        assert_eq!(held.next_retry(), Some(at(13)), "after twice as long");
        held.accepted(&id, TargetTable::Sessions);
        assert_eq!(held.skip(at(15)), Skip::default());
        assert!(held.clear(TargetTable::Records(RecordKind::Event)));
        assert!(held.next_retry().is_none() && held.locks().is_none());
    }

    #[test]
    fn table_at_fault_is_retried_with_backoff_and_at_once_on_request() {
        let mut held = HeldRows::default();
        for _ in 0..20 {
            held.fail(TargetTable::Sessions, "no".into(), at(100));
        }
        assert_eq!(held.next_retry(), Some(at(160)));
        held.retry_now();
        assert_eq!(held.skip(at(100)), Skip::default());
        assert_eq!(held.fault(TargetTable::Sessions), Some("no"));
    }
}
