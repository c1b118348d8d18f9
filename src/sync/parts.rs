//! What is pushed, in parts: a batch that central rejects is halved until the row at fault stands alone.

use super::central::Applied;
use crate::domain::HistoryRecord;
use crate::store::{Pending, Record, Settled, SettledRecord, Settlement, Settling};

const WITHOUT_SESSION: &str = "its session is not in central, although it was; somebody deleted it there";

pub(super) struct Part {
    pub sessions: Vec<Record>,
    pub records: Vec<HistoryRecord>,
}

impl Part {
    pub fn of(pending: Pending) -> Self {
        Self { sessions: pending.sessions, records: pending.records }
    }

    pub fn len(&self) -> usize {
        self.sessions.len() + self.records.len()
    }

    /// What it is, if it is one thing.
    pub fn name(&self) -> String {
        let session = self.sessions.first().map(|record| record.session.instance_id.to_string());
        let record = self.records.first().map(|r| format!("{} {} of {}", r.kind.as_str(), r.record_id, r.instance_id));
        session.or(record).unwrap_or_default()
    }

    /// Two parts, the first to go first: records follow the sessions.
    pub fn halves(mut self) -> (Self, Self) {
        let (sessions, records) = match (self.sessions.is_empty(), self.records.is_empty()) {
            (false, false) => (Vec::new(), std::mem::take(&mut self.records)),
            (false, true) => (self.sessions.split_off(self.sessions.len() / 2), Vec::new()),
            (true, _) => (Vec::new(), self.records.split_off(self.records.len() / 2)),
        };
        (self, Self { sessions, records })
    }

    /// What the store is to make of central's answer.
    pub fn settling(self, applied: Vec<Applied>, settlement: impl Fn(Applied) -> Settlement) -> Settling {
        let mut applied = applied.into_iter();
        let sessions: Vec<Settled> = self
            .sessions
            .into_iter()
            .zip(applied.by_ref())
            .map(|(record, applied)| settled(record, settlement(applied)))
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
            sessions: self.sessions.into_iter().map(|record| settled(record, rejected.clone())).collect(),
            records: self.records.iter().map(|record| settled_record(record, Some(error.clone()))).collect(),
            ..Settling::default()
        }
    }
}

fn settled(record: Record, how: Settlement) -> Settled {
    Settled { instance_id: record.session.instance_id, version: record.version, how }
}

fn settled_record(record: &HistoryRecord, rejected: Option<String>) -> SettledRecord {
    SettledRecord { record_id: record.record_id, rejected }
}
