//! Appending and querying what happened in sessions.

use rusqlite::{Connection, params};
use serde_json::Value;
use uuid::Uuid;

use crate::domain::{InstanceId, NewRecord, RecordKind, Timestamp};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::ops::lifecycle;
use crate::store::sync_state::record_outbox;
use crate::store::sync_state::record_outbox::UNKNOWN_TYPE;
use crate::store::tables::records::{COLUMNS, StoredRecord};
use crate::store::tables::{checkpoints_due, records};

/// Which records of a session are asked for; everything that is `None` does not filter.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    pub(crate) kind: RecordKind,
    pub(crate) record_type: Option<String>,
    /// From this moment on.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// Somewhere in its type or body, in any letter case of ASCII.
    pub contains: Option<String>,
    pub(crate) limit: usize,
    pub(crate) offset: usize,
    /// Only those older than this record.
    pub after: Option<Uuid>,
}

/// Records of a session, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub(crate) records: Vec<StoredRecord>,
    /// Whether there are older ones.
    pub more: bool,
}

/// No answer holds more, in bytes of the records' bodies, unless one alone has more.
const ANSWER_BYTES: usize = 4 << 20;

/// A record to be appended to the history of a session.
#[derive(Clone, Debug)]
pub struct Append {
    /// Of the session, which may be closed.
    pub id: String,
    pub(crate) what: NewRecord,
    /// Random.
    pub record_id: Uuid,
}

/// Appends a record to the history of a session.
pub(in crate::store) fn append(op: &Op<'_>, new: Append) -> Result<StoredRecord, StoreError> {
    let Append { id, what, record_id } = new;
    let session = lifecycle::owned(op, &id)?.session;
    let unknown = what.kind() == RecordKind::Event
        && record_outbox::tables(op.db)?
            .is_some_and(|there| !there.is_absent(RecordKind::Event) && !there.accepts(what.record_type()));
    if what.kind() == RecordKind::Checkpoint {
        checkpoints_due::remove(op.db, &session.instance_id)?;
    }
    let record = what.into_record(record_id, session.instance_id, session.context_percent, op.now);
    let parked = unknown.then(|| UNKNOWN_TYPE.to_owned());
    op.db
        .prepare_cached(
            "INSERT INTO records (record_id, instance_id, kind, type, at, body, unsynced, parked_error, parked_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?8)",
        )?
        .execute(params![
            record.record_id.as_bytes(),
            record.instance_id.as_str(),
            record.kind.as_str(),
            record.record_type,
            op.now.micros(),
            Value::Object(record.body.clone()).to_string(),
            parked,
            parked.is_some().then_some(op.now.micros()),
        ])?;
    Ok(StoredRecord { record, synced: false, parked })
}

/// Records of a session, newest first.
///
/// # Errors
/// The record to begin after is none of the session's.
pub(in crate::store) fn query(db: &Connection, id: &InstanceId, query: &HistoryQuery) -> Result<History, StoreError> {
    if let Some(after) = query.after
        && records::by_id(db, after)?.is_none_or(|kept| kept.record.instance_id != *id)
    {
        return Err(StoreError::NoSuchRecord(after.to_string()));
    }
    // As JSON has it, so that what is asked for is found where JSON escapes it.
    let needle = query.contains.as_ref().map(|text| {
        let json = Value::from(text.to_ascii_lowercase()).to_string();
        json[1..json.len() - 1].to_owned()
    });
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut statement = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM records WHERE instance_id = ?1 AND kind = ?2 AND at >= ?3 AND at < ?4 \
             AND (?5 IS NULL OR type = ?5) AND (?6 IS NULL OR instr(type, ?6) > 0 OR instr(lower(body), ?6) > 0) \
             AND (?9 IS NULL OR (at, seq) < (SELECT at, seq FROM records WHERE record_id = ?9)) \
         ORDER BY at DESC, seq DESC LIMIT ?7 OFFSET ?8"
    ))?;
    let mut rows = statement.query(params![
        id.as_str(),
        query.kind.as_str(),
        query.since.map_or(i64::MIN, Timestamp::micros),
        query.until.map_or(i64::MAX, Timestamp::micros),
        query.record_type,
        needle,
        // One more than requested, to know whether there are more.
        count(query.limit + 1),
        count(query.offset),
        query.after.map(Uuid::into_bytes),
    ])?;
    let mut found = History::default();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        bytes += records::body_length(row)?;
        if found.records.len() == query.limit || (bytes > ANSWER_BYTES && !found.records.is_empty()) {
            found.more = true;
            break;
        }
        found.records.push(records::read_stored(row)?);
    }
    Ok(found)
}
