//! What is pushed, in parts: a batch that central rejects is halved until the row at fault stands alone.

use super::central::Applied;
use crate::domain::{HistoryRecord, TimedSession};
use crate::store::{Pending, Record, Settled, SettledRecord, Settlement, Settling};

const WITHOUT_SESSION: &str = "its session is not in central, although it was; somebody deleted it there";

pub(super) struct Part {
    pub sessions: Vec<TimedSession>,
    /// Of each session.
    versions: Vec<i64>,
    pub records: Vec<HistoryRecord>,
}

impl Part {
    pub fn of(pending: Pending) -> Self {
        let offer = |record: Record| {
            let times = record.offered_columns();
            (TimedSession { session: record.session, times }, record.version)
        };
        let (sessions, versions) = pending.sessions.into_iter().map(offer).unzip();
        Self { sessions, versions, records: pending.records }
    }

    pub fn len(&self) -> usize {
        self.sessions.len() + self.records.len()
    }

    /// What it is, if it is one thing.
    pub fn name(&self) -> String {
        let session = self.sessions.first().map(|session| session.instance_id.to_string());
        let record = self.records.first().map(|r| format!("{} {} of {}", r.kind.as_str(), r.record_id, r.instance_id));
        session.or(record).unwrap_or_default()
    }

    /// Two parts, the first to go first: records follow the sessions.
    pub fn halves(mut self) -> (Self, Self) {
        let (sessions, records) = match (self.sessions.len(), self.records.len()) {
            (0, records) => (0, records / 2),
            (sessions, 0) => (sessions / 2, 0),
            (sessions, _) => (sessions, 0),
        };
        let rest = Self {
            sessions: self.sessions.split_off(sessions),
            versions: self.versions.split_off(sessions),
            records: self.records.split_off(records),
        };
        (self, rest)
    }

    /// What the store is to make of central's answer.
    pub fn settling(self, applied: Vec<Applied>, settlement: impl Fn(Applied) -> Settlement) -> Settling {
        let mut applied = applied.into_iter();
        let sessions: Vec<Settled> = self
            .sessions
            .into_iter()
            .zip(self.versions)
            .zip(applied.by_ref())
            .map(|((session, version), applied)| settled(session, version, settlement(applied)))
            .collect();
        let beside = |record: &HistoryRecord| sessions.iter().any(|s| s.instance_id == record.instance_id);
        let records = self.records.into_iter().zip(applied).filter_map(|(record, applied)| match applied {
            // Its session just got another id, or is parked; the record goes with it.
            Applied::WithoutSession if beside(&record) => None,
            Applied::WithoutSession => Some(settled_record(&record, Some(WITHOUT_SESSION.to_owned()))),
            _ => Some(settled_record(&record, None)),
        });
        let records = records.collect();
        Settling { sessions, records, ..Settling::default() }
    }

    /// Central will never take any of it.
    pub fn rejected(self, error: String) -> Settling {
        let rejected = Settlement::Rejected { error: error.clone() };
        Settling {
            sessions: self
                .sessions
                .into_iter()
                .zip(self.versions)
                .map(|(session, version)| settled(session, version, rejected.clone()))
                .collect(),
            records: self.records.iter().map(|record| settled_record(record, Some(error.clone()))).collect(),
            ..Settling::default()
        }
    }
}

fn settled(session: TimedSession, version: i64, how: Settlement) -> Settled {
    Settled { instance_id: session.session.instance_id, version, how }
}

fn settled_record(record: &HistoryRecord, rejected: Option<String>) -> SettledRecord {
    SettledRecord { record_id: record.record_id, rejected }
}
