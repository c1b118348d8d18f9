//! The table `records`: events, commands and checkpoints.
//!
//! `unsynced` is 1 until central has the record, 0 afterwards, and NULL for records that were read from central.

use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use crate::domain::{HistoryRecord, InstanceId, RecordKind, Timestamp};
use crate::store::error::StoreError;
use crate::store::tables::sessions;

/// A record and how it stands with central.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecord {
    pub record: HistoryRecord,
    pub synced: bool,
    /// Why central will never take it as it is.
    pub parked: Option<String>,
}

pub(in crate::store) const COLUMNS: &str = "record_id, instance_id, kind, type, at, body, unsynced, parked_error";

/// The record with this id.
pub(in crate::store) fn by_id(db: &Connection, id: Uuid) -> Result<Option<StoredRecord>, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM records WHERE record_id = ?1"))?;
    Ok(statement.query_row([id.as_bytes()], read_stored).optional()?)
}

pub(in crate::store) fn read_stored(row: &Row<'_>) -> rusqlite::Result<StoredRecord> {
    Ok(StoredRecord { record: read(row)?, synced: row.get::<_, Option<i64>>(6)? != Some(1), parked: row.get(7)? })
}

/// The first six of [`COLUMNS`].
pub(in crate::store) fn read(row: &Row<'_>) -> rusqlite::Result<HistoryRecord> {
    Ok(HistoryRecord {
        record_id: Uuid::from_bytes(row.get(0)?),
        instance_id: sessions::parsed(row, 1, InstanceId::parse)?,
        kind: sessions::parsed(row, 2, |kind| RecordKind::parse(kind).ok_or(Unreadable("kind")))?,
        record_type: row.get(3)?,
        at: Timestamp::from_micros(row.get(4)?),
        body: sessions::parsed(row, 5, |body| serde_json::from_str(body))?,
    })
}

/// What this binary would never have written.
#[derive(Debug, thiserror::Error)]
#[error("not a known {0}")]
struct Unreadable(&'static str);
