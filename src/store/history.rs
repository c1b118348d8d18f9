//! What happened in sessions, as this host keeps it: appending, asking, and what central lacks of it.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use uuid::Uuid;

use super::outbox::{self, BatchLimit, Skip};
use super::sessions::{self, Record};
use super::turns::ROWS;
use super::{Caller, StoreError};
use crate::domain::history::CHECKPOINT_ABOVE;
use crate::domain::{Happening, HistoryRecord, HistoryTables, InstanceId, Kind, TableState, Timestamp};

/// A record and how it stands with central.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptRecord {
    pub record: HistoryRecord,
    pub synced: bool,
    /// Why central will never take it as it is.
    pub parked: Option<String>,
}

/// Which records of a session are asked for; everything that is `None` does not filter.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    pub kind: Kind,
    pub record_type: Option<String>,
    /// From this moment on.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// Somewhere in its type or body, in any letter case of ASCII.
    pub contains: Option<String>,
    pub limit: usize,
    pub offset: usize,
    /// Only those older than this record.
    pub after: Option<Uuid>,
}

/// Records of a session, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub records: Vec<KeptRecord>,
    /// Whether there are older ones.
    pub more: bool,
}

/// No answer holds more, in bytes of the records' bodies, unless one alone has more.
const ANSWER_BYTES: usize = 4 << 20;

/// Why an event is parked before it was ever pushed. Those parked for this reason are freed as soon as central
/// takes their type.
pub(super) const UNKNOWN_TYPE: &str = "central's event_store takes no event of this type; it is kept here";

const COLUMNS: &str = "record_id, instance_id, kind, type, at, body, unsynced, parked_error";

/// Takes down what happened in a session, be it closed.
pub(super) fn append(
    db: &Connection,
    id: &str,
    what: Happening,
    record_id: Uuid,
    caller: Caller,
    at: Timestamp,
) -> Result<KeptRecord, StoreError> {
    let session = sessions::owned(db, id, caller)?.session;
    let unknown = what.kind() == Kind::Event
        && tables(db)?.is_some_and(|there| !there.is_absent(Kind::Event) && !there.accepts(what.record_type()));
    if what.kind() == Kind::Checkpoint {
        checkpoint_made(db, &session.instance_id)?;
    }
    let record = what.into_record(record_id, session.instance_id, session.context_percent, at);
    let parked = unknown.then(|| UNKNOWN_TYPE.to_owned());
    db.prepare_cached(
        "INSERT INTO records (record_id, instance_id, kind, type, at, body, unsynced, parked_error, parked_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?8)",
    )?
    .execute(params![
        record.record_id.as_bytes(),
        record.instance_id.as_str(),
        record.kind.as_str(),
        record.record_type,
        at.micros(),
        Value::Object(record.body.clone()).to_string(),
        parked,
        parked.is_some().then_some(at.micros()),
    ])?;
    Ok(KeptRecord { record, synced: false, parked })
}

/// The record with this id.
pub(super) fn by_id(db: &Connection, id: Uuid) -> Result<Option<KeptRecord>, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM records WHERE record_id = ?1"))?;
    Ok(statement.query_row([id.as_bytes()], kept).optional()?)
}

/// Records of a session, newest first.
///
/// # Errors
/// The record to begin after is none of the session's.
pub(super) fn query(db: &Connection, id: &InstanceId, query: &HistoryQuery) -> Result<History, StoreError> {
    if let Some(after) = query.after
        && by_id(db, after)?.is_none_or(|kept| kept.record.instance_id != *id)
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
        // One more than asked for tells whether there are more.
        count(query.limit + 1),
        count(query.offset),
        query.after.map(Uuid::into_bytes),
    ])?;
    let mut found = History::default();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        bytes += row.get_ref(5)?.as_str().map_or(0, str::len);
        if found.records.len() == query.limit || (bytes > ANSWER_BYTES && !found.records.is_empty()) {
            found.more = true;
            break;
        }
        found.records.push(kept(row)?);
    }
    Ok(found)
}

fn kept(row: &Row<'_>) -> rusqlite::Result<KeptRecord> {
    Ok(KeptRecord { record: read(row)?, synced: row.get::<_, Option<i64>>(6)? != Some(1), parked: row.get(7)? })
}

/// The first six of [`COLUMNS`].
fn read(row: &Row<'_>) -> rusqlite::Result<HistoryRecord> {
    Ok(HistoryRecord {
        record_id: Uuid::from_bytes(row.get(0)?),
        instance_id: sessions::parsed(row, 1, InstanceId::parse)?,
        kind: sessions::parsed(row, 2, |kind| Kind::parse(kind).ok_or(Unreadable("kind")))?,
        record_type: row.get(3)?,
        at: Timestamp::from_micros(row.get(4)?),
        body: sessions::parsed(row, 5, |body| serde_json::from_str(body))?,
    })
}

/// What this binary would never have written.
#[derive(Debug, thiserror::Error)]
#[error("not a known {0}")]
struct Unreadable(&'static str);

// Suggesting checkpoints.

/// Is there anything to note or to look up where a session's context was the first of these, and is the second?
pub(super) fn is_noted((before, after): (u8, u8)) -> bool {
    before.max(after) > CHECKPOINT_ABOVE
}

/// Notes whether a session's context passed the mark, and says whether a checkpoint is due. Below the mark it
/// costs nothing.
pub(super) fn context_changed(db: &Connection, id: &InstanceId, (before, after): (u8, u8)) -> Result<bool, StoreError> {
    let (was_above, is_above) = (before > CHECKPOINT_ABOVE, after > CHECKPOINT_ABOVE);
    match (was_above, is_above) {
        (false, false) => Ok(false),
        (false, true) => {
            db.prepare_cached("INSERT OR IGNORE INTO checkpoints_due (instance_id) VALUES (?1)")?
                .execute([id.as_str()])?;
            Ok(true)
        }
        (true, false) => checkpoint_made(db, id).map(|()| false),
        (true, true) => Ok(db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM checkpoints_due WHERE instance_id = ?1)")?
            .query_row([id.as_str()], |row| row.get(0))?),
    }
}

fn checkpoint_made(db: &Connection, id: &InstanceId) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM checkpoints_due WHERE instance_id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

// What central lacks.

/// Records that central lacks, and whether there are more than could be taken along.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Waiting {
    pub records: Vec<HistoryRecord>,
    pub more: bool,
}

/// The records that may travel beside `sessions`, in the order in which they were appended: those whose session
/// central has, or gets in the same batch. `all`: no other session waits. Bytes are those of the bodies; without
/// sessions, one record always fits.
pub(super) fn pending(
    db: &Connection,
    sessions: &[Record],
    all: bool,
    limit: BatchLimit,
    skip: &Skip,
) -> Result<Waiting, StoreError> {
    let all = all && !skip.all_sessions;
    let skipped = outbox::json_ids(skip.sessions.iter().chain(&skip.records_of));
    // Of sessions that began to wait in the same moment as the last one of a full batch, some may be left behind.
    let last = sessions.iter().filter_map(|s| s.unsynced_since).max().filter(|_| !all);
    let before = if all { i64::MAX } else { last.map_or(i64::MIN, Timestamp::micros) };
    let there = tables(db)?.unwrap_or(HistoryTables::ALL);
    let mut found = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| there.is_usable(*kind) && !skip.kinds.contains(kind)) {
        let mut statement = db.prepare_cached(&format!(
            "SELECT {COLUMNS}, seq FROM records r WHERE kind = ?1 AND unsynced = 1 AND parked_at IS NULL \
                 AND EXISTS (SELECT 1 FROM sessions s WHERE s.instance_id = r.instance_id AND s.parked_at IS NULL \
                     AND (s.unsynced_since IS NULL OR s.unsynced_since < ?2)) \
                 AND instance_id NOT IN (SELECT value FROM json_each(?4)) \
             ORDER BY seq LIMIT ?3"
        ))?;
        let rows = i64::try_from(limit.rows + 1).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![kind.as_str(), before, rows, skipped])?;
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            bytes += row.get_ref(5)?.as_str().map_or(0, str::len);
            found.push((row.get::<_, i64>(8)?, row.get_ref(5)?.as_str().map_or(0, str::len), read(row)?));
            if bytes > limit.bytes {
                break;
            }
        }
    }
    found.sort_by_key(|(seq, ..)| *seq);
    let mut bytes = 0;
    let fit = found.iter().take(limit.rows).take_while(|(_, size, _)| {
        bytes += size;
        bytes <= limit.bytes || (bytes == *size && sessions.is_empty())
    });
    let fit = fit.count();
    let more = fit < found.len();
    Ok(Waiting { records: found.into_iter().take(fit).map(|(.., record)| record).collect(), more })
}

/// Some of the records of one kind that could travel, those appended last.
pub(super) fn newest_pending(
    db: &Connection,
    kind: Kind,
    count: usize,
    skip: &Skip,
) -> Result<Vec<HistoryRecord>, StoreError> {
    let skipped = outbox::json_ids(skip.sessions.iter().chain(&skip.records_of));
    Ok(db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM records r WHERE kind = ?1 AND unsynced = 1 AND parked_at IS NULL \
                 AND EXISTS (SELECT 1 FROM sessions s WHERE s.instance_id = r.instance_id AND s.parked_at IS NULL \
                     AND s.unsynced_since IS NULL) \
                 AND instance_id NOT IN (SELECT value FROM json_each(?2)) ORDER BY seq DESC LIMIT ?3"
        ))?
        .query_map(params![kind.as_str(), skipped, i64::try_from(count).unwrap_or(i64::MAX)], read)?
        .collect::<Result<_, _>>()?)
}

/// Why a record is parked whose session somebody deleted in central. It is freed when the session is there again.
pub const WITHOUT_SESSION: &str = "its session is not in central, although it was; somebody deleted it there";

/// Central has these sessions: what is parked because one of them was deleted there is pushed again, at most
/// [`ROWS`] records a turn. Returns how many it freed.
pub(super) fn sessions_are_back<'a>(
    db: &Connection,
    ids: impl Iterator<Item = &'a InstanceId>,
) -> Result<usize, StoreError> {
    let waits = "parked_at IS NOT NULL AND parked_error = ?1";
    let any: bool = db
        .prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM records WHERE {waits})"))?
        .query_row([WITHOUT_SESSION], |row| row.get(0))?;
    if !any {
        return Ok(0);
    }
    Ok(db
        .prepare_cached(&format!(
            "UPDATE records SET parked_at = NULL, parked_error = NULL, retry_at = NULL, parkings = 0 WHERE seq IN \
                 (SELECT seq FROM records WHERE {waits} AND instance_id IN (SELECT value FROM json_each(?2)) LIMIT ?3)"
        ))?
        .execute(params![WITHOUT_SESSION, outbox::json_ids(ids), ROWS as i64])?)
}

/// How many records of each kind wait, in the order of [`Kind::ALL`], and since when the oldest does. Those that
/// central has no table for do not, nor do those of a parked session; those of a table that is not usable do.
pub(super) fn backlog(db: &Connection) -> Result<([u64; 3], Option<Timestamp>), StoreError> {
    let there = tables(db)?.unwrap_or(HistoryTables::ALL);
    let (mut counts, mut first) = ([0; 3], None);
    for (kind, waiting) in Kind::ALL.into_iter().zip(&mut counts).filter(|(kind, _)| !there.is_absent(*kind)) {
        let waits = "FROM records r WHERE kind = ?1 AND unsynced = 1 AND parked_at IS NULL \
            AND instance_id NOT IN (SELECT instance_id FROM sessions WHERE parked_at IS NOT NULL)";
        let count: i64 =
            db.prepare_cached(&format!("SELECT count(*) {waits}"))?.query_row([kind.as_str()], |row| row.get(0))?;
        let oldest: Option<i64> = db
            .prepare_cached(&format!("SELECT at {waits} ORDER BY seq LIMIT 1"))?
            .query_row([kind.as_str()], |row| row.get(0))
            .optional()?;
        let oldest = oldest.map(Timestamp::from_micros);
        *waiting = count.unsigned_abs();
        first = [first, oldest].into_iter().flatten().min();
    }
    Ok((counts, first))
}

/// What central did with one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledRecord {
    pub record_id: Uuid,
    /// Why central will never take it as it is; none: it has it.
    pub rejected: Option<String>,
}

pub(super) fn settle(db: &Connection, settled: &[SettledRecord], at: Timestamp) -> Result<(), StoreError> {
    for SettledRecord { record_id, rejected } in settled {
        match rejected {
            None => db
                .prepare_cached(
                    "UPDATE records SET unsynced = 0, parked_at = NULL, parked_error = NULL, retry_at = NULL \
                         WHERE record_id = ?1",
                )?
                .execute([record_id.as_bytes()])?,
            Some(error) => {
                let parkings: i64 = db
                    .prepare_cached("SELECT parkings FROM records WHERE record_id = ?1")?
                    .query_row([record_id.as_bytes()], |row| row.get(0))
                    .optional()?
                    .unwrap_or(0);
                db.prepare_cached(
                    "UPDATE records SET parked_at = ?2, parked_error = ?3, retry_at = ?4, parkings = ?5 \
                         WHERE record_id = ?1",
                )?
                .execute(params![
                    record_id.as_bytes(),
                    at.micros(),
                    error,
                    outbox::retry_at(parkings, at).micros(),
                    parkings + 1
                ])?
            }
        };
    }
    Ok(())
}

/// Central lost what it once had of these records: they wait again.
pub(super) fn forget_synced_between(db: &Connection, after_seq: i64, last_seq: i64) -> Result<usize, StoreError> {
    Ok(db
        .prepare_cached("UPDATE records SET unsynced = 1 WHERE unsynced = 0 AND seq > ?1 AND seq <= ?2")?
        .execute([after_seq, last_seq])?)
}

/// Central lost what it once had from here: that waits again.
pub(super) fn forget_synced(db: &Connection) -> Result<usize, StoreError> {
    Ok(db.execute("UPDATE records SET unsynced = 1 WHERE unsynced = 0", [])?)
}

/// Lets a parked record be pushed again, or gives it up.
pub(super) fn unpark(db: &Connection, record_id: Uuid, drop: bool) -> Result<usize, StoreError> {
    Ok(db
        .prepare_cached(
            "UPDATE records SET parked_at = NULL, parked_error = NULL, retry_at = NULL, parkings = 0, \
                 unsynced = CASE WHEN ?2 THEN 0 ELSE unsynced END WHERE record_id = ?1 AND parked_at IS NOT NULL",
        )?
        .execute(params![record_id.as_bytes(), drop])?)
}

/// What central has for records, once it has told.
pub(super) fn tables(db: &Connection) -> Result<Option<HistoryTables>, StoreError> {
    let fact: Option<String> = db
        .prepare_cached("SELECT value FROM facts WHERE name = 'central_history'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(fact.as_deref().and_then(tables_of_json))
}

pub(super) fn tables_to_json(there: &HistoryTables) -> String {
    let states = Kind::ALL.map(|kind| match there.state(kind) {
        TableState::Usable => Value::from("usable"),
        TableState::Absent => Value::from("absent"),
        TableState::WithoutZone => Value::from("without_zone"),
        TableState::Forbidden(missing) => Value::from(missing.clone()),
    });
    serde_json::json!([states, there.event_types]).to_string()
}

/// None for what earlier versions wrote: they did not tell an absent table from a forbidden one. Until central is
/// asked again, records wait.
fn tables_of_json(text: &str) -> Option<HistoryTables> {
    let (states, event_types): ([Value; 3], _) = serde_json::from_str(text).ok()?;
    let mut tables = HistoryTables { event_types, ..HistoryTables::ALL };
    for (kind, state) in Kind::ALL.into_iter().zip(states) {
        *tables.state_mut(kind) = match state.as_str() {
            Some("usable") => TableState::Usable,
            Some("absent") => TableState::Absent,
            Some("without_zone") => TableState::WithoutZone,
            _ => TableState::Forbidden(serde_json::from_value(state).ok()?),
        };
    }
    Some(tables)
}

/// Condition on a session `s` that nothing of its history would be lost with what is kept here: central has all of
/// it, or no table for the rest. A table that exists but is not usable keeps its records here.
pub(super) fn nothing_left(db: &Connection) -> Result<String, StoreError> {
    let there = tables(db)?.unwrap_or(HistoryTables::ALL);
    let kinds: Vec<_> =
        Kind::ALL.into_iter().filter(|kind| !there.is_absent(*kind)).map(|k| format!("'{}'", k.as_str())).collect();
    Ok(format!(
        "NOT EXISTS (SELECT 1 FROM records r WHERE r.instance_id = s.instance_id AND r.unsynced = 1 \
             AND r.kind IN ({}))",
        kinds.join(", ")
    ))
}
