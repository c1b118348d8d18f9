//! Which version of a session changed each of its shared columns last, and when.
//!
//! A column waits for central while the version that changed it is newer than the newest that central acknowledged
//! (`synced_version`). So an acknowledgement, which names the version that was pushed, leaves waiting what was changed while
//! the push was under way, and nothing has to be cleared. A `synced_version` of 0 offers every column: the session is
//! new, or central lost it.
//!
//! Stored as a blob of 16 bytes for each column, in the order of [`Column::ALL`]: version and time as little-endian
//! integers. A shorter blob is one of a store from before the missing columns were merged.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use crate::domain::Timestamp;
use crate::domain::columns::COLUMNS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Change {
    /// 0: it was changed by another client, and central has it.
    pub(in crate::store) version: i64,
    pub(in crate::store) at: Timestamp,
}

/// When each shared column was changed last, and by which version of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnChanges(pub(in crate::store) [Change; COLUMNS]);

const CHANGE: usize = 16;

impl ColumnChanges {
    /// All columns were changed by the first version.
    pub const fn begun(at: Timestamp) -> Self {
        Self([Change { version: 1, at }; COLUMNS])
    }

    /// Reads a stored blob. Columns that it lacks were changed at `otherwise` at the latest.
    pub(in crate::store) fn read(blob: Option<&[u8]>, otherwise: Timestamp) -> Self {
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
pub(in crate::store) fn read(value: ValueRef<'_>, otherwise: Timestamp) -> ColumnChanges {
    ColumnChanges::read(value.as_blob_or_null().ok().flatten(), otherwise)
}
