//! The table `records`: events, commands and checkpoints.
//!
//! `unsynced` is 1 until central has the record, 0 afterwards, and NULL for records that were read from central.

use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use crate::domain::{HistoryRecord, InstanceId, RecordKind, Timestamp};
use crate::store::error::StoreError;
use crate::store::tables::columns::columns;
use crate::store::tables::sessions;

/// A record and how it stands with central.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecord {
    pub(crate) record: HistoryRecord,
    pub(crate) synced: bool,
    /// Why central will never take it as it is.
    pub parked: Option<String>,
}

columns! {
    /// What is read of a record.
    Column of "" {
        RecordId = "record_id",
        InstanceId = "instance_id",
        Kind = "kind",
        Type = "type",
        At = "at",
        Body = "body",
        Unsynced = "unsynced",
        ParkedError = "parked_error",
    }
}

pub(in crate::store) const COLUMNS: &str = Column::LIST;

/// The record with this id.
pub(in crate::store) fn by_id(db: &Connection, id: Uuid) -> Result<Option<StoredRecord>, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM records WHERE record_id = ?1"))?;
    Ok(statement.query_row([id.as_bytes()], read_stored).optional()?)
}

pub(in crate::store) fn read_stored(row: &Row<'_>) -> rusqlite::Result<StoredRecord> {
    Ok(StoredRecord {
        record: read(row)?,
        synced: row.get::<_, Option<i64>>(Column::Unsynced.at())? != Some(1),
        parked: row.get(Column::ParkedError.at())?,
    })
}

/// Reads the record itself from [`COLUMNS`].
pub(in crate::store) fn read(row: &Row<'_>) -> rusqlite::Result<HistoryRecord> {
    Ok(HistoryRecord {
        record_id: Uuid::from_bytes(row.get(Column::RecordId.at())?),
        instance_id: sessions::parsed(row, Column::InstanceId.at(), InstanceId::parse)?,
        kind: sessions::parsed(row, Column::Kind.at(), |kind| RecordKind::parse(kind).ok_or(Unreadable("kind")))?,
        record_type: row.get(Column::Type.at())?,
        at: Timestamp::from_micros(row.get(Column::At.at())?),
        body: sessions::parsed(row, Column::Body.at(), |body| serde_json::from_str(body))?,
    })
}

/// The length of the body of the record in this row, in bytes.
pub(in crate::store) fn body_length(row: &Row<'_>) -> rusqlite::Result<usize> {
    Ok(row.get_ref(Column::Body.at())?.as_str().map_or(0, str::len))
}

/// What this binary would never have written.
#[derive(Debug, thiserror::Error)]
#[error("not a known {0}")]
struct Unreadable(&'static str);
