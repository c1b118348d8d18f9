//! Records that central lacks: which may travel, how many there are, and what central's tables take.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use crate::domain::{HistoryRecord, HistoryTables, RecordKind, TableState, Timestamp};
use crate::store::error::StoreError;
use crate::store::sync_state::selection;
use crate::store::sync_state::selection::{BatchLimit, Skip};
use crate::store::tables::metadata;
use crate::store::tables::records;
use crate::store::tables::records::COLUMNS;
use crate::store::tables::session_record::Record;

/// Why an event is parked before it was ever pushed. Those parked for this reason are freed as soon as central
/// takes their type.
pub(in crate::store) const UNKNOWN_TYPE: &str = "central's event_store takes no event of this type; it is kept here";

/// Records that central lacks, and whether there are more than could be taken along.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::store) struct Waiting {
    pub records: Vec<HistoryRecord>,
    pub more: bool,
}

/// The records that may travel beside `sessions`, in the order in which they were appended: those whose session
/// central has, or gets in the same batch. `all`: no other session waits. Bytes are those of the bodies; without
/// sessions, one record always fits.
pub(in crate::store) fn pending(
    db: &Connection,
    sessions: &[Record],
    all: bool,
    limit: BatchLimit,
    skip: &Skip,
) -> Result<Waiting, StoreError> {
    let all = all && !skip.all_sessions;
    let skipped = selection::json_ids(skip.sessions.iter().chain(&skip.records_of));
    // Of sessions that began to wait in the same moment as the last one of a full batch, some may be left behind.
    let last = sessions.iter().filter_map(|s| s.unsynced_since).max().filter(|_| !all);
    let before = if all { i64::MAX } else { last.map_or(i64::MIN, Timestamp::micros) };
    let there = tables(db)?.unwrap_or(HistoryTables::ALL);
    let mut found = Vec::new();
    for kind in RecordKind::ALL.into_iter().filter(|kind| there.is_usable(*kind) && !skip.kinds.contains(kind)) {
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
            let length = records::body_length(row)?;
            bytes += length;
            found.push((row.get::<_, i64>("seq")?, length, records::read(row)?));
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
pub(in crate::store) fn newest_pending(
    db: &Connection,
    kind: RecordKind,
    count: usize,
    skip: &Skip,
) -> Result<Vec<HistoryRecord>, StoreError> {
    let skipped = selection::json_ids(skip.sessions.iter().chain(&skip.records_of));
    Ok(db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM records r WHERE kind = ?1 AND unsynced = 1 AND parked_at IS NULL \
                 AND EXISTS (SELECT 1 FROM sessions s WHERE s.instance_id = r.instance_id AND s.parked_at IS NULL \
                     AND s.unsynced_since IS NULL) \
                 AND instance_id NOT IN (SELECT value FROM json_each(?2)) ORDER BY seq DESC LIMIT ?3"
        ))?
        .query_map(params![kind.as_str(), skipped, i64::try_from(count).unwrap_or(i64::MAX)], records::read)?
        .collect::<Result<_, _>>()?)
}

/// How many records of each kind are pending, in the order of [`RecordKind::ALL`], and the time of the oldest. Those that
/// central has no table for do not, nor do those of a parked session; those of a table that is not usable do.
pub(in crate::store) fn backlog(db: &Connection) -> Result<([u64; 3], Option<Timestamp>), StoreError> {
    let there = tables(db)?.unwrap_or(HistoryTables::ALL);
    let (mut counts, mut first) = ([0; 3], None);
    for (kind, waiting) in RecordKind::ALL.into_iter().zip(&mut counts).filter(|(kind, _)| !there.is_absent(*kind)) {
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

/// Central's tables for records, once a handshake has read them.
pub(in crate::store) fn tables(db: &Connection) -> Result<Option<HistoryTables>, StoreError> {
    let tables: Option<String> = metadata::get(db, "central_history")?;
    Ok(tables.as_deref().and_then(tables_of_json))
}

pub(in crate::store) fn tables_to_json(there: &HistoryTables) -> String {
    let states = RecordKind::ALL.map(|kind| state_to_json(there.state(kind)));
    let [work, limits, activity] = [&there.work, &there.limits, &there.activity].map(state_to_json);
    serde_json::json!([states, there.event_types, work, limits, there.work_has_agent, activity]).to_string()
}

fn state_to_json(state: &TableState) -> Value {
    match state {
        TableState::Usable => Value::from("usable"),
        TableState::Absent => Value::from("absent"),
        TableState::WithoutZone => Value::from("without_zone"),
        TableState::Forbidden(missing) => Value::from(missing.clone()),
    }
}

fn state_of_json(state: Value) -> Option<TableState> {
    Some(match state.as_str() {
        Some("usable") => TableState::Usable,
        Some("absent") => TableState::Absent,
        Some("without_zone") => TableState::WithoutZone,
        _ => TableState::Forbidden(serde_json::from_value(state).ok()?),
    })
}

/// None for what earlier versions wrote: they did not tell an absent table from a forbidden one, or knew no table for
/// work or for limits. Until central is asked again, records wait. A version that knew no column for the agent wrote no
/// fifth value, and one that knew no table for the activity history no sixth.
fn tables_of_json(text: &str) -> Option<HistoryTables> {
    let mut parts = serde_json::from_str::<Vec<Value>>(text).ok()?.into_iter();
    let states: [Value; 3] = serde_json::from_value(parts.next()?).ok()?;
    let event_types = serde_json::from_value(parts.next()?).ok()?;
    let (work, limits) = (state_of_json(parts.next()?)?, state_of_json(parts.next()?)?);
    let work_has_agent = parts.next().and_then(|value| value.as_bool()).unwrap_or(false);
    let activity = parts.next().and_then(state_of_json).unwrap_or(TableState::Absent);
    let mut tables = HistoryTables { event_types, work, limits, work_has_agent, activity, ..HistoryTables::ALL };
    for (kind, state) in RecordKind::ALL.into_iter().zip(states) {
        *tables.state_mut(kind) = state_of_json(state)?;
    }
    Some(tables)
}

/// Condition on a session `s` that nothing of its history would be lost with what is kept here: central has all of
/// it, or no table for the rest. A table that exists but is not usable keeps its records here.
pub(in crate::store) fn nothing_left(db: &Connection) -> Result<String, StoreError> {
    let there = tables(db)?.unwrap_or(HistoryTables::ALL);
    let work = match there.work {
        TableState::Absent => "1",
        _ => {
            "NOT EXISTS (SELECT 1 FROM session_work w WHERE w.instance_id = s.instance_id AND version > synced_version)"
        }
    };
    let kinds: Vec<_> = RecordKind::ALL
        .into_iter()
        .filter(|kind| !there.is_absent(*kind))
        .map(|k| format!("'{}'", k.as_str()))
        .collect();
    if kinds.is_empty() {
        // Central has no table for any record. An empty list would also make the index below unusable.
        return Ok(work.to_owned());
    }
    Ok(format!(
        "NOT EXISTS (SELECT 1 FROM records r INDEXED BY records_unsynced_of_session \
             WHERE r.instance_id = s.instance_id AND r.unsynced = 1 \
             AND r.kind IN ({})) AND {work}",
        kinds.join(", ")
    ))
}
