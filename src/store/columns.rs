//! Which version of a session changed each of its shared columns last, and when.
//!
//! A column waits for central while the version that changed it is newer than the newest that central acknowledged
//! (`synced_version`). So an acknowledgement, which names the version that was pushed, leaves waiting what was changed while
//! the push was under way, and nothing has to be cleared. A `synced_version` of 0 offers every column: the session is
//! new, or central lost it.
//!
//! Stored as a blob of 16 bytes for each column, in the order of [`Column::ALL`]: version and time as little-endian
//! integers. A shorter blob is one of a store from before the missing columns were merged.

use std::time::Duration;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use super::sessions::Record;
use crate::domain::columns::COLUMNS;
use crate::domain::session::fresh;
use crate::domain::{Column, ColumnTimes, Session, Status, TimedSession, Timestamp};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    /// 0: it was changed by another client, and central has it.
    version: i64,
    at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnChanges([Change; COLUMNS]);

const CHANGE: usize = 16;

impl ColumnChanges {
    /// All columns were changed by the first version.
    pub const fn begun(at: Timestamp) -> Self {
        Self([Change { version: 1, at }; COLUMNS])
    }

    /// Reads a stored blob. Columns that it lacks were changed at `otherwise` at the latest.
    pub(super) fn read(blob: Option<&[u8]>, otherwise: Timestamp) -> Self {
        let mut changes = Self([Change { version: 0, at: otherwise }; COLUMNS]);
        for (change, bytes) in changes.0.iter_mut().zip(blob.unwrap_or_default().as_chunks::<CHANGE>().0) {
            let (version, at) = bytes.split_at(CHANGE / 2);
            *change = Change { version: integer(version), at: Timestamp::from_micros(integer(at)) };
        }
        changes
    }
}

fn integer(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_le_bytes)
}

impl ToSql for ColumnChanges {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let mut blob = Vec::with_capacity(CHANGE * COLUMNS);
        for change in &self.0 {
            blob.extend_from_slice(&change.version.to_le_bytes());
            blob.extend_from_slice(&change.at.micros().to_le_bytes());
        }
        Ok(ToSqlOutput::from(blob))
    }
}

/// Reads a blob from a row.
pub(super) fn read(value: ValueRef<'_>, otherwise: Timestamp) -> ColumnChanges {
    ColumnChanges::read(value.as_blob_or_null().ok().flatten(), otherwise)
}

impl Record {
    /// The next version, which is about to be saved, changes this column. It is later than what was changed before, even
    /// where the clock was set back.
    pub(super) fn change_column(&mut self, column: Column, at: Timestamp) {
        let version = self.version + 1;
        let change = &mut self.columns.0[column as usize];
        let after_the_last = Timestamp::from_micros(change.at.micros().saturating_add(1));
        *change = Change { version, at: at.max(after_the_last) };
    }

    /// The next version changes the columns whose values differ from before.
    pub(super) fn change_columns_since(&mut self, before: &Session, at: Timestamp) {
        for column in Column::ALL {
            if column.differs(before, &self.session) {
                self.change_column(*column, at);
            }
        }
    }

    fn waits(&self, column: Column) -> bool {
        self.synced_version == 0 || self.columns.0[column as usize].version > self.synced_version
    }

    /// The columns that central lacks, and when they were changed.
    pub fn offered_columns(&self) -> ColumnTimes {
        let offered = Column::ALL.iter().filter(|column| self.waits(**column));
        offered.map(|column| (*column, self.columns.0[*column as usize].at)).collect()
    }

    /// Applies the columns that other clients changed in central. Says whether central lost some that it once acknowledged.
    ///
    /// A column that waits here is replaced by a later change only. Of one that does not wait, central's value counts; but
    /// when everything is read (`whole`), which may bring the past, again only a later one.
    pub(super) fn merge_columns(&mut self, central: &TimedSession, whole: bool) -> bool {
        let mut lost = false;
        for column in Column::ALL {
            if !column.differs(&self.session, central) {
                continue;
            }
            let waits = self.waits(*column);
            let known = &mut self.columns.0[*column as usize];
            let at = central.times.get(*column).unwrap_or(Timestamp::from_micros(i64::MIN));
            if at > known.at || !(waits || whole) {
                column.copy(central, &mut self.session);
                *known = Change { version: 0, at: at.max(known.at) };
            } else {
                lost |= !waits && at < known.at;
            }
        }
        lost
    }

    /// Applies a later heartbeat that another client sent to central, unless it is from before a process died here.
    pub(super) fn merge_heartbeat(&mut self, central: &Session, now: Timestamp, stale_after: Duration) {
        let died = self.unsynced_since.is_some() && self.session.status == Status::Stale;
        let later = central.last_heartbeat > self.session.last_heartbeat;
        if later && !died && fresh(central.last_heartbeat, now, stale_after) {
            self.session.last_heartbeat = central.last_heartbeat;
            self.session.status = central.status;
        }
    }
}
