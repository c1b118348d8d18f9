//! The events, commands and checkpoints of the fake central.

use std::collections::{BTreeMap, HashSet};

use crate::domain::{HistoryRecord, HistoryTables, RecordKind, TableState, Timestamp};
use crate::sync::central::{CentralError, Rejection, RowOutcome};
use uuid::Uuid;

/// A row of one of the three tables.
#[derive(Clone, Debug, PartialEq)]
pub struct FakeRow {
    /// Commands have none; they are in the order of their ids.
    pub sequence: i64,
    /// The record as it was pushed.
    pub record: HistoryRecord,
}

/// The tables of records.
#[derive(Clone, Debug)]
pub struct FakeHistory {
    /// Which of them exist and can be used.
    pub tables: HistoryTables,
    rows: BTreeMap<(RecordKind, String), Vec<FakeRow>>,
}

impl Default for FakeHistory {
    fn default() -> Self {
        Self { tables: HistoryTables::ALL, rows: BTreeMap::new() }
    }
}

impl FakeHistory {
    /// Writes the records of sessions that are `present`, all or none.
    pub fn apply(
        &mut self,
        records: &[HistoryRecord],
        present: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> Result<Vec<RowOutcome>, CentralError> {
        let mut applied = Vec::with_capacity(records.len());
        for record in records {
            if !present(record.instance_id.as_str()) {
                applied.push(RowOutcome::SessionMissing);
                continue;
            }
            if record.kind == RecordKind::Event && !self.tables.accepts(&record.record_type) {
                return Err(CentralError::Reject(Rejection {
                    code: "23514".to_owned(),
                    message: format!("{} is no type of event here (23514)", record.record_type),
                }));
            }
            match self.tables.state(record.kind) {
                TableState::Usable => {}
                TableState::Absent => {
                    return Err(CentralError::schema_missing(format!("no {} (42P01)", record.kind.table())));
                }
                _ => return Err(CentralError::refused(format!("no right on {} (42501)", record.kind.table()))),
            }
            if !self.ids(record.kind).contains(&record.record_id) {
                let at = record.at.min(now);
                self.add(HistoryRecord { at, ..record.clone() });
            }
            applied.push(RowOutcome::Stored);
        }
        Ok(applied)
    }

    fn ids(&self, kind: RecordKind) -> HashSet<Uuid> {
        let records = self.all().flat_map(|(_, rows)| rows).map(|row| &row.record);
        records.filter(|record| record.kind == kind).map(|record| record.record_id).collect()
    }

    /// Appends a row to its session, as any client would.
    pub fn add(&mut self, record: HistoryRecord) {
        let rows = self.rows.entry((record.kind, record.instance_id.to_string())).or_default();
        let sequence = rows.last().map_or(0, |row| row.sequence) + 1;
        rows.push(FakeRow { sequence, record });
    }

    /// The records of a session, by kind and in order.
    pub fn of(&self, id: &str) -> Vec<FakeRow> {
        RecordKind::ALL.iter().filter_map(|kind| self.rows.get(&(*kind, id.to_owned()))).flatten().cloned().collect()
    }

    /// The records of all sessions.
    pub fn all(&self) -> impl Iterator<Item = (&str, &[FakeRow])> {
        self.rows.iter().map(|((_, id), rows)| (id.as_str(), rows.as_slice()))
    }

    /// Deletes the records of a session, as a foreign key with ON DELETE CASCADE does.
    pub fn forget(&mut self, id: &str) {
        self.rows.retain(|(_, of), _| of != id);
    }
}
