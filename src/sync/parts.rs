//! What is pushed, in parts: a batch that central does not take is divided until what is at fault stands alone.

use std::collections::HashSet;

use super::central::Applied;
use crate::domain::{HistoryRecord, InstanceId, Kind, TimedSession};
use crate::store::{BatchResult, Pending, Record, RecordResult, SessionOutcome, SessionResult, WITHOUT_SESSION};

/// What a part is made of, if it is of one sort: each goes into a table of its own in central.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Subject {
    Sessions,
    Records(Kind),
}

impl Subject {
    pub const ALL: [Self; 4] =
        [Self::Sessions, Self::Records(Kind::Event), Self::Records(Kind::Command), Self::Records(Kind::Checkpoint)];

    /// Central's table for it.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Sessions => "supervisor_sessions",
            Self::Records(kind) => kind.table(),
        }
    }

    pub const fn kind(self) -> Option<Kind> {
        match self {
            Self::Sessions => None,
            Self::Records(kind) => Some(kind),
        }
    }
}

#[derive(Default)]
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

    /// What it is made of: none if of nothing, or of several.
    pub fn subject(&self) -> Option<Subject> {
        let subjects = self.subjects();
        if subjects.len() == 1 { subjects.into_iter().next() } else { None }
    }

    /// All that it is made of.
    pub fn subjects(&self) -> Vec<Subject> {
        let has = |subject: &Subject| match subject {
            Subject::Sessions => !self.sessions.is_empty(),
            Subject::Records(kind) => self.records.iter().any(|record| record.kind == *kind),
        };
        Subject::ALL.into_iter().filter(has).collect()
    }

    /// The sessions that it is about.
    pub fn session_ids(&self) -> Vec<InstanceId> {
        let of_records = self.records.iter().map(|record| &record.instance_id);
        let ids: HashSet<_> = self.sessions.iter().map(|session| &session.instance_id).chain(of_records).collect();
        ids.into_iter().cloned().collect()
    }

    /// One part for each thing that it is made of, the sessions first.
    pub fn by_subject(mut self) -> Vec<Self> {
        let mut parts = Vec::new();
        for kind in Kind::ALL {
            let records = self.records.extract_if(.., |record| record.kind == kind).collect();
            parts.push(Self { records, ..Self::default() });
        }
        parts.insert(0, self);
        parts.retain(|part| part.len() > 0);
        parts
    }

    /// Two parts of one that is made of one thing.
    pub fn halves(mut self) -> (Self, Self) {
        let (sessions, records) = (self.sessions.len() / 2, self.records.len() / 2);
        let rest = Self {
            sessions: self.sessions.split_off(sessions),
            versions: self.versions.split_off(sessions),
            records: self.records.split_off(records),
        };
        (self, rest)
    }

    /// Takes one row out, the last session or else the last record.
    pub fn take_one(&mut self) -> Self {
        match (self.sessions.pop(), self.versions.pop()) {
            (Some(session), Some(version)) => {
                Self { sessions: vec![session], versions: vec![version], records: Vec::new() }
            }
            _ => Self { records: self.records.pop().into_iter().collect(), ..Self::default() },
        }
    }

    /// What is about these sessions, and the rest.
    pub fn split_by_session(self, ids: &HashSet<InstanceId>) -> (Self, Self) {
        let (mut theirs, mut rest) = (Self::default(), Self::default());
        for (session, version) in self.sessions.into_iter().zip(self.versions) {
            let part = if ids.contains(&session.instance_id) { &mut theirs } else { &mut rest };
            part.sessions.push(session);
            part.versions.push(version);
        }
        (theirs.records, rest.records) = self.records.into_iter().partition(|record| ids.contains(&record.instance_id));
        (theirs, rest)
    }

    /// What the store is to make of central's answer.
    pub fn settling(self, applied: Vec<Applied>, settlement: impl Fn(Applied) -> SessionOutcome) -> BatchResult {
        let mut applied = applied.into_iter();
        let sessions: Vec<SessionResult> = self
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
        BatchResult { sessions, records, ..BatchResult::default() }
    }

    /// Central does not take any of it as it is.
    pub fn rejected(self, error: &str) -> BatchResult {
        let rejected = SessionOutcome::Rejected { error: error.to_owned() };
        BatchResult {
            sessions: self
                .sessions
                .into_iter()
                .zip(self.versions)
                .map(|(session, version)| settled(session, version, rejected.clone()))
                .collect(),
            records: self.records.iter().map(|record| settled_record(record, Some(error.to_owned()))).collect(),
            ..BatchResult::default()
        }
    }
}

fn settled(session: TimedSession, version: i64, how: SessionOutcome) -> SessionResult {
    SessionResult { instance_id: session.session.instance_id, version, how }
}

fn settled_record(record: &HistoryRecord, rejected: Option<String>) -> RecordResult {
    RecordResult { record_id: record.record_id, rejected }
}
