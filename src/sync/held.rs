//! What is kept out of the next pushes because central does not take it at present, in memory only.
//!
//! Three things are held: single sessions whose rows are locked by another transaction; records of such sessions; and
//! everything of one table that refuses most of what it is given, which is the fault of the table and not of the
//! rows. Nothing of it is parked or lost: it counts as backlog, and goes when central takes it. Each is tried again
//! after a time that doubles, and at once when the operator asks for a push. A new connection starts with nothing held.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::engine::Tick;
use super::parts::Subject;
use crate::domain::InstanceId;
use crate::store::Skip;

/// Whether a row is still locked is cheap to ask.
const FIRST_LOCK_CHECK: Duration = Duration::from_secs(1);
const LONGEST_LOCK_CHECK: Duration = Duration::from_secs(30);

/// A table that refuses its rows is repaired by a person.
const FIRST_FAULT_RETRY: Duration = Duration::from_secs(5);
const LONGEST_FAULT_RETRY: Duration = Duration::from_secs(60);

/// When something held is tried again, and how often it failed in a row.
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

/// A table that takes nothing at present.
#[derive(Clone, Debug)]
struct Fault {
    reason: String,
    retry: Retry,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    sessions: HashMap<InstanceId, Retry>,
    records_of: HashMap<InstanceId, Retry>,
    faults: BTreeMap<Subject, Fault>,
}

impl Held {
    /// What stays out of a push now.
    pub fn skip(&self, now: Tick) -> Skip {
        let waits = |rows: &HashMap<InstanceId, Retry>| {
            let mut ids: Vec<_> = rows.iter().filter(|(_, retry)| retry.at > now).map(|(id, _)| id.clone()).collect();
            ids.sort();
            ids
        };
        let faulty: Vec<_> = self.faults.iter().filter(|(_, fault)| fault.retry.at > now).map(|(s, _)| *s).collect();
        Skip {
            all_sessions: faulty.contains(&Subject::Sessions),
            kinds: faulty.iter().filter_map(|subject| subject.kind()).collect(),
            sessions: waits(&self.sessions),
            records_of: waits(&self.records_of),
        }
    }

    /// When something is to be tried again next.
    pub fn next_retry(&self) -> Option<Tick> {
        let rows = self.sessions.values().chain(self.records_of.values());
        rows.chain(self.faults.values().map(|fault| &fault.retry)).map(|retry| retry.at).min()
    }

    /// Everything is tried again at once.
    pub fn retry_now(&mut self) {
        let rows = self.sessions.values_mut().chain(self.records_of.values_mut());
        rows.chain(self.faults.values_mut().map(|fault| &mut fault.retry)).for_each(|retry| retry.at = Tick::ZERO);
    }

    /// A row of this session is locked. `subject`: of what.
    pub fn lock(&mut self, id: InstanceId, subject: Subject, now: Tick) {
        let rows = if subject == Subject::Sessions { &mut self.sessions } else { &mut self.records_of };
        rows.entry(id).or_default().failed(now, FIRST_LOCK_CHECK, LONGEST_LOCK_CHECK);
    }

    /// The sessions with locked rows that are due to be tried again.
    pub fn due_locks(&self, now: Tick) -> Vec<InstanceId> {
        let rows = self.sessions.iter().chain(&self.records_of);
        rows.filter(|(_, retry)| retry.at <= now).map(|(id, _)| id.clone()).collect()
    }

    /// It is still locked, or not.
    pub fn lock_checked(&mut self, id: &InstanceId, is_locked: bool, now: Tick) {
        for rows in [&mut self.sessions, &mut self.records_of] {
            if let Some(retry) = rows.get_mut(id)
                && is_locked
            {
                retry.failed(now, FIRST_LOCK_CHECK, LONGEST_LOCK_CHECK);
            }
        }
    }

    /// Central took something about this session.
    pub fn taken(&mut self, id: &InstanceId, subject: Subject) {
        let rows = if subject == Subject::Sessions { &mut self.sessions } else { &mut self.records_of };
        rows.remove(id);
    }

    pub fn fail(&mut self, subject: Subject, reason: String, now: Tick) {
        let mut retry = self.faults.remove(&subject).map(|fault| fault.retry).unwrap_or_default();
        retry.failed(now, FIRST_FAULT_RETRY, LONGEST_FAULT_RETRY);
        self.faults.insert(subject, Fault { reason, retry });
    }

    /// Says whether it had been at fault.
    pub fn clear(&mut self, subject: Subject) -> bool {
        self.faults.remove(&subject).is_some()
    }

    pub fn fault(&self, subject: Subject) -> Option<&str> {
        self.faults.get(&subject).map(|fault| fault.reason.as_str())
    }

    /// What is locked, for the operator.
    pub fn locks(&self) -> Option<String> {
        let count = self.sessions.len() + self.records_of.keys().filter(|id| !self.sessions.contains_key(*id)).count();
        let first = self.sessions.keys().chain(self.records_of.keys()).min()?;
        let others = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        Some(format!(
            "another transaction in central holds a lock on the row of session {first}{others}, which waits; the rest \
             goes on; end that transaction (pg_stat_activity: idle in transaction)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Kind;

    fn at(seconds: u64) -> Tick {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_held_is_skipped_until_it_is_tried_again() {
        let mut held = Held::default();
        let id = InstanceId::parse("odin-PS-000001").unwrap();
        held.lock(id.clone(), Subject::Sessions, at(10));
        held.fail(Subject::Records(Kind::Event), "no".into(), at(10));
        let skip = held.skip(at(10));
        assert_eq!((skip.sessions, skip.kinds, skip.all_sessions), (vec![id.clone()], vec![Kind::Event], false));
        assert_eq!(held.next_retry(), Some(at(11)));
        assert_eq!(held.skip(at(11)).sessions, []);
        held.lock_checked(&id, true, at(11));
        assert_eq!(held.next_retry(), Some(at(13)), "after twice as long");
        held.taken(&id, Subject::Sessions);
        assert_eq!(held.skip(at(15)), Skip::default());
        assert!(held.clear(Subject::Records(Kind::Event)));
        assert!(held.next_retry().is_none() && held.locks().is_none());
    }

    #[test]
    fn a_faulty_table_is_tried_more_and_more_rarely_and_at_once_when_asked() {
        let mut held = Held::default();
        for _ in 0..20 {
            held.fail(Subject::Sessions, "no".into(), at(100));
        }
        assert_eq!(held.next_retry(), Some(at(160)));
        held.retry_now();
        assert_eq!(held.skip(at(100)), Skip::default());
        assert_eq!(held.fault(Subject::Sessions), Some("no"));
    }
}
