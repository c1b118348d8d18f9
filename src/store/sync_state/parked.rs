//! Parked rows: sessions and records that central rejected, and when each is tried again.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, params};
use uuid::Uuid;

use crate::domain::{InstanceId, RecordKind, Timestamp};
use crate::store::error::StoreError;
use crate::store::sqlite::turns::ROWS;
use crate::store::tables::sessions;

/// What becomes of parked rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Unpark {
    /// They are pushed again.
    Retry,
    /// They are never pushed as they are.
    Drop,
}

/// Lets a parked record be pushed again, or gives it up.
pub(in crate::store) fn unpark_record(db: &Connection, record_id: Uuid, how: Unpark) -> Result<usize, StoreError> {
    Ok(db
        .prepare_cached(
            "UPDATE records SET parked_at = NULL, parked_error = NULL, retry_at = NULL, park_count = 0, \
                 unsynced = CASE WHEN ?2 THEN 0 ELSE unsynced END WHERE record_id = ?1 AND parked_at IS NOT NULL",
        )?
        .execute(params![record_id.as_bytes(), how == Unpark::Drop])?)
}

/// A session, or a record of one, that central will never take as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    pub(crate) instance_id: InstanceId,
    pub(crate) record: Option<ParkedRecord>,
    pub(crate) error: String,
    pub(crate) parked_at: Timestamp,
}

/// Which record is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedRecord {
    pub(crate) record_id: Uuid,
    pub(crate) kind: RecordKind,
    pub(crate) record_type: String,
}

/// The key of a parked row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum ParkedRow {
    Session(InstanceId),
    Record(Uuid),
}

impl Parked {
    /// By what it is retried or dropped: the record's id, or else the session's.
    pub fn id(&self) -> String {
        self.record.as_ref().map_or_else(|| self.instance_id.to_string(), |record| record.record_id.to_string())
    }
}

/// Parked rows are tried again after this long, and after twice as long each time that they are parked again.
const FIRST_RETRY: Duration = Duration::from_secs(60);

const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// When what was parked so often in a row is tried again.
pub(in crate::store) fn retry_at(park_count: i64, at: Timestamp) -> Timestamp {
    let doublings = u32::try_from(park_count.clamp(0, 16)).unwrap_or(0);
    at.plus(FIRST_RETRY.saturating_mul(1 << doublings).min(LONGEST_RETRY))
}

/// Condition on a parked row that it is due at ?1. One that is due later than can be was parked by a clock that was
/// wrong.
pub(in crate::store) const IS_DUE: &str = "parked_at IS NOT NULL AND (retry_at <= ?1 OR retry_at > ?2)";

/// The parameters of [`IS_DUE`].
pub(in crate::store) fn due(at: Timestamp) -> [i64; 2] {
    [at.micros(), at.plus(LONGEST_RETRY).micros()]
}

/// Is anything parked that is due to be tried again?
pub(in crate::store) fn is_parked_due(db: &Connection, at: Timestamp) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM sessions WHERE {IS_DUE}) OR EXISTS (SELECT 1 FROM records WHERE {IS_DUE})"
        ))?
        .query_row(due(at), |row| row.get(0))?)
}

/// Lets what is parked and due be pushed again, at most [`ROWS`] rows a turn. Returns how many; fewer than that: no
/// more are due.
pub(in crate::store) fn release_parked(db: &Connection, at: Timestamp) -> Result<usize, StoreError> {
    let [now, latest] = due(at);
    let mut count = 0;
    for table in ["sessions", "records"] {
        let free = format!(
            "UPDATE {table} SET parked_at = NULL, parked_error = NULL, retry_at = NULL \
                 WHERE rowid IN (SELECT rowid FROM {table} WHERE {IS_DUE} LIMIT ?3)"
        );
        count += db.prepare_cached(&free)?.execute([now, latest, (ROWS - count) as i64])?;
    }
    Ok(count)
}

pub(in crate::store) fn list_parked(db: &Connection) -> Result<Vec<Parked>, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT instance_id, parked_error, parked_at, NULL AS record_id, NULL AS kind, NULL AS type \
                 FROM sessions WHERE parked_at IS NOT NULL \
             UNION ALL \
             SELECT instance_id, parked_error, parked_at, record_id, kind, type FROM records \
                 WHERE parked_at IS NOT NULL ORDER BY parked_at",
        )?
        .query_map([], |row| {
            let record_id = row.get::<_, Option<[u8; 16]>>("record_id")?.map(Uuid::from_bytes);
            let kind = row.get::<_, Option<String>>("kind")?.and_then(|kind| RecordKind::parse(&kind));
            let record_type = row.get::<_, Option<String>>("type")?.unwrap_or_default();
            Ok(Parked {
                instance_id: sessions::parsed(row, 0, InstanceId::parse)?,
                record: record_id.zip(kind).map(|(record_id, kind)| ParkedRecord { record_id, kind, record_type }),
                error: row.get::<_, Option<String>>("parked_error")?.unwrap_or_default(),
                parked_at: Timestamp::from_micros(row.get("parked_at")?),
            })
        })?
        .collect::<Result<Vec<_>, _>>()?)
}

/// The parked rows of these ids, or all of them if there are no ids.
///
/// # Errors
/// `NotParked` if one of the ids is not parked.
pub(in crate::store) fn parked_rows(db: &Connection, ids: &[String]) -> Result<Vec<ParkedRow>, StoreError> {
    let mut wanted: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let mut rows = Vec::new();
    for parked in list_parked(db)? {
        if ids.is_empty() || wanted.remove(parked.id().as_str()) {
            rows.push(match parked.record {
                Some(record) => ParkedRow::Record(record.record_id),
                None => ParkedRow::Session(parked.instance_id),
            });
        }
    }
    match ids.iter().find(|id| wanted.contains(id.as_str())) {
        Some(unknown) => Err(StoreError::NotParked(unknown.clone())),
        None => Ok(rows),
    }
}

/// Lets these rows be pushed again, or gives up pushing them as they are. Returns how many were still parked.
pub(in crate::store) fn unpark(db: &Connection, rows: &[ParkedRow], how: Unpark) -> Result<usize, StoreError> {
    let unpark = |row: &ParkedRow| match row {
        ParkedRow::Record(record_id) => unpark_record(db, *record_id, how),
        ParkedRow::Session(id) => unpark_session(db, id, how),
    };
    rows.iter().map(unpark).sum()
}

fn unpark_session(db: &Connection, id: &InstanceId, how: Unpark) -> Result<usize, StoreError> {
    Ok(db
        .prepare_cached(
            "UPDATE sessions SET parked_at = NULL, parked_error = NULL, retry_at = NULL, park_count = 0, \
                 unsynced_since = CASE WHEN ?2 THEN NULL ELSE unsynced_since END, \
                 synced_heartbeat = CASE WHEN ?2 THEN last_heartbeat ELSE synced_heartbeat END \
             WHERE instance_id = ?1 AND parked_at IS NOT NULL",
        )?
        .execute(params![id.as_str(), how == Unpark::Drop])?)
}
