//! The rows of one push, and how they are divided: by table, in halves, by session, one by one.
//!
//! A part also turns central's outcomes into the result that the store records.

use std::collections::{HashMap, HashSet};

use super::central::RowOutcome;
use crate::domain::{HistoryRecord, InstanceId, RecordKind, TimedSession};
use crate::store::{
    BatchResult, Pending, Record, RecordResult, SessionOutcome, SessionResult, UnsyncedWork, WITHOUT_SESSION,
};

/// The table in central that a row goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum TargetTable {
    Sessions,
    Records(RecordKind),
}

impl TargetTable {
    /// All of them, in the order in which they are pushed.
    pub(super) const ALL: [Self; 4] = [
        Self::Sessions,
        Self::Records(RecordKind::Event),
        Self::Records(RecordKind::Command),
        Self::Records(RecordKind::Checkpoint),
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "supervisor_sessions",
            Self::Records(kind) => kind.table(),
        }
    }

    /// The kind of records; `None` for sessions.
    pub(super) const fn kind(self) -> Option<RecordKind> {
        match self {
            Self::Sessions => None,
            Self::Records(kind) => Some(kind),
        }
    }
}

#[derive(Default)]
pub(super) struct BatchPart {
    pub sessions: Vec<TimedSession>,
    /// The version of each session, and that of its work if that is sent.
    versions: Vec<(i64, Option<i64>)>,
    pub records: Vec<HistoryRecord>,
}

impl BatchPart {
    /// Everything that is pending, in one part.
    pub(super) fn of(pending: Pending) -> Self {
        let mut unsynced: HashMap<_, _> = pending.work.into_iter().map(|w| (w.work.instance_id.clone(), w)).collect();
        let offer = |record: Record| {
            let times = record.offered_columns();
            let (work, work_version) = match unsynced.remove(&record.session.instance_id) {
                Some(UnsyncedWork { work, version }) => (Some(Box::new(work)), Some(version)),
                None => (None, None),
            };
            (TimedSession { session: record.session, times, work, vouched_by: None }, (record.version, work_version))
        };
        let (sessions, versions) = pending.sessions.into_iter().map(offer).unzip();
        Self { sessions, versions, records: pending.records }
    }

    /// How many sessions and records it has.
    pub(super) fn len(&self) -> usize {
        self.sessions.len() + self.records.len()
    }

    /// Names the row of a part that has one.
    pub(super) fn name(&self) -> String {
        let session = self.sessions.first().map(|session| session.instance_id.to_string());
        let record = self.records.first().map(|r| format!("{} {} of {}", r.kind.as_str(), r.record_id, r.instance_id));
        session.or(record).unwrap_or_default()
    }

    /// The table of all rows; `None` if there are several, or no rows.
    pub(super) fn table(&self) -> Option<TargetTable> {
        let tables = self.tables();
        if tables.len() == 1 { tables.into_iter().next() } else { None }
    }

    /// The tables that the part has rows for.
    pub(super) fn tables(&self) -> Vec<TargetTable> {
        let has = |table: &TargetTable| match table {
            TargetTable::Sessions => !self.sessions.is_empty(),
            TargetTable::Records(kind) => self.records.iter().any(|record| record.kind == *kind),
        };
        TargetTable::ALL.into_iter().filter(has).collect()
    }

    /// The ids of its sessions and of the sessions of its records, each once.
    pub(super) fn session_ids(&self) -> Vec<InstanceId> {
        let of_records = self.records.iter().map(|record| &record.instance_id);
        let ids: HashSet<_> = self.sessions.iter().map(|session| &session.instance_id).chain(of_records).collect();
        ids.into_iter().cloned().collect()
    }

    /// One part for each table, sessions first.
    pub(super) fn by_table(mut self) -> Vec<Self> {
        let mut parts = Vec::new();
        for kind in RecordKind::ALL {
            let records = self.records.extract_if(.., |record| record.kind == kind).collect();
            parts.push(Self { records, ..Self::default() });
        }
        parts.insert(0, self);
        parts.retain(|part| part.len() > 0);
        parts
    }

    /// Splits the rows of one table into two halves.
    pub(super) fn halves(mut self) -> (Self, Self) {
        let (sessions, records) = (self.sessions.len() / 2, self.records.len() / 2);
        let rest = Self {
            sessions: self.sessions.split_off(sessions),
            versions: self.versions.split_off(sessions),
            records: self.records.split_off(records),
        };
        (self, rest)
    }

    /// Removes the last session, or else the last record.
    pub(super) fn take_one(&mut self) -> Self {
        match (self.sessions.pop(), self.versions.pop()) {
            (Some(session), Some(version)) => {
                Self { sessions: vec![session], versions: vec![version], records: Vec::new() }
            }
            _ => Self { records: self.records.pop().into_iter().collect(), ..Self::default() },
        }
    }

    /// Splits off the rows of these sessions; returns them and the rest.
    pub(super) fn split_by_session(self, ids: &HashSet<InstanceId>) -> (Self, Self) {
        let (mut theirs, mut rest) = (Self::default(), Self::default());
        for (session, version) in self.sessions.into_iter().zip(self.versions) {
            let part = if ids.contains(&session.instance_id) { &mut theirs } else { &mut rest };
            part.sessions.push(session);
            part.versions.push(version);
        }
        (theirs.records, rest.records) = self.records.into_iter().partition(|record| ids.contains(&record.instance_id));
        (theirs, rest)
    }

    /// The result that the store records. `outcomes`: of each session in order, then of each record.
    pub(super) fn result(
        self,
        outcomes: Vec<RowOutcome>,
        settlement: impl Fn(RowOutcome) -> SessionOutcome,
    ) -> BatchResult {
        let mut outcomes = outcomes.into_iter();
        let sessions: Vec<SessionResult> = self
            .sessions
            .into_iter()
            .zip(self.versions)
            .zip(outcomes.by_ref())
            .map(|((session, (version, work_version)), outcome)| {
                let work_version = work_version.filter(|_| outcome.has_work());
                settled(session, (version, work_version), settlement(outcome))
            })
            .collect();
        let beside = |record: &HistoryRecord| sessions.iter().any(|s| s.instance_id == record.instance_id);
        let records = self.records.into_iter().zip(outcomes).filter_map(|(record, outcome)| match outcome {
            // Its session just got another id, or is parked; the record follows it.
            RowOutcome::SessionMissing if beside(&record) => None,
            RowOutcome::SessionMissing => Some(settled_record(&record, Some(WITHOUT_SESSION.to_owned()))),
            _ => Some(settled_record(&record, None)),
        });
        let records = records.collect();
        BatchResult { sessions, records, ..BatchResult::default() }
    }

    /// The result of a part of which central rejects every row.
    pub(super) fn rejected(self, error: &str) -> BatchResult {
        let rejected = SessionOutcome::Rejected { error: error.to_owned() };
        BatchResult {
            sessions: self
                .sessions
                .into_iter()
                .zip(self.versions)
                .map(|(session, (version, _))| settled(session, (version, None), rejected.clone()))
                .collect(),
            records: self.records.iter().map(|record| settled_record(record, Some(error.to_owned()))).collect(),
            ..BatchResult::default()
        }
    }
}

fn settled(session: TimedSession, (version, work_version): (i64, Option<i64>), how: SessionOutcome) -> SessionResult {
    let heartbeat = Some(session.session.last_heartbeat);
    SessionResult { instance_id: session.session.instance_id, version, heartbeat, work_version, how }
}

fn settled_record(record: &HistoryRecord, rejected: Option<String>) -> RecordResult {
    RecordResult { record_id: record.record_id, rejected }
}
