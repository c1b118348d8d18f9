//! What is left of a session: its newest checkpoint, and the last of its events and commands.

use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use crate::domain::{HistoryRecord, InstanceId, RecordKind, SessionHistory, Timestamp};
use crate::store::error::StoreError;
use crate::store::tables::{session_work, sessions};

/// No body of a record that is larger, in bytes, is read: a mirrored one may have any size.
const LARGEST: i64 = 256 << 10;

pub(in crate::store) fn query(db: &Connection, session: &InstanceId) -> Result<SessionHistory, StoreError> {
    Ok(SessionHistory {
        checkpoint: newest(db, session, RecordKind::Checkpoint, 1)?.pop(),
        events: newest(db, session, RecordKind::Event, SessionHistory::EVENTS)?,
        commands: newest(db, session, RecordKind::Command, SessionHistory::COMMANDS)?,
        work: session_work::shared(db, session)?.map(|(work, _)| work),
    })
}

pub(in crate::store) const NEWEST: &str = "SELECT record_id, instance_id, kind, type, at, \
     iif(octet_length(body) <= ?4, body, '{}') AS body FROM records WHERE instance_id = ?1 AND kind = ?2 \
     ORDER BY at DESC, seq DESC LIMIT ?3";

/// The newest records of one kind, newest first.
fn newest(
    db: &Connection,
    session: &InstanceId,
    kind: RecordKind,
    most: usize,
) -> Result<Vec<HistoryRecord>, StoreError> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    Ok(db
        .prepare_cached(NEWEST)?
        .query_map(params![session.as_str(), kind.as_str(), most, LARGEST], record)?
        .collect::<Result<Vec<_>, _>>()?)
}

fn record(row: &Row<'_>) -> rusqlite::Result<HistoryRecord> {
    Ok(HistoryRecord {
        record_id: Uuid::from_slice(row.get_ref("record_id")?.as_blob()?).unwrap_or_default(),
        instance_id: sessions::parsed(row, 1, InstanceId::parse)?,
        kind: RecordKind::parse(row.get_ref("kind")?.as_str()?).unwrap_or(RecordKind::Event),
        record_type: row.get("type")?,
        at: Timestamp::from_micros(row.get("at")?),
        // A body that cannot be read is left out; the record still shows that something happened.
        body: serde_json::from_str(row.get_ref("body")?.as_str()?).unwrap_or_default(),
    })
}
