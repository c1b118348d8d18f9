//! The table `sessions`: this host's own sessions, and those mirrored from other machines.
//!
//! SQL only: what a change means is decided by `domain` and `ops`. Every function runs inside a transaction that its caller
//! began and commits. A row is this host's own while `mirror_round` is NULL.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::Process;
use crate::domain::{InstanceId, InstanceType, MachineName, Project, Session, Status, Timestamp};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::tables::session_record::Record;
use crate::store::tables::{session_columns, session_work};

macro_rules! columns {
    () => {
        "s.instance_id, s.project, s.instance_type, s.status, s.context_percent, s.current_epic, \
         s.last_heartbeat, s.created_at, s.closed_at, s.host_machine, s.claude_session_uuid, s.claude_session_path, \
         s.resumed_from, s.working_dir, s.owner_uid, s.pid, s.pid_started, s.version, s.unsynced_since, s.mirror_round, \
         CASE WHEN s.mirror_round IS NOT NULL \
             THEN (SELECT last_seen FROM hosts h WHERE h.host_machine = s.host_machine) END, \
         (SELECT old_id FROM aliases a WHERE a.instance_id = s.instance_id ORDER BY made_at LIMIT 1), \
         s.column_changes, s.synced_version, \
         (SELECT summary FROM session_work w WHERE w.instance_id = s.instance_id)"
    };
}

/// What [`record`] reads.
pub(in crate::store) const COLUMNS: &str = columns!();

/// A constant, as every heartbeat begins with it.
pub(in crate::store) const GET: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM sessions s WHERE instance_id = coalesce((SELECT instance_id FROM aliases WHERE old_id = ?1), ?1)"
);

/// How many ids are tried at most. Of the two billion of a project, few are taken.
const ID_ATTEMPTS: usize = 1_000;

/// A new id that no session has or had.
pub(in crate::store) fn free_id(op: &Op<'_>, project: &Project, kind: InstanceType) -> Result<InstanceId, StoreError> {
    for random in op.ids.numbers().take(ID_ATTEMPTS) {
        let id = InstanceId::generate(project, kind, random);
        let taken: bool = op
            .db
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM sessions WHERE instance_id = ?1) \
                     OR EXISTS (SELECT 1 FROM aliases WHERE old_id = ?1)",
            )?
            .query_row([id.as_str()], |row| row.get(0))?;
        if !taken {
            return Ok(id);
        }
    }
    Err(StoreError::Bug(format!("none of {ID_ATTEMPTS} random ids was free")))
}

/// The sessions whose processes are to be watched.
pub(in crate::store) fn watched(db: &Connection) -> Result<Vec<(InstanceId, Process)>, StoreError> {
    let rows = db
        .prepare_cached("SELECT instance_id, pid, pid_started FROM sessions WHERE pid IS NOT NULL")?
        .query_map([], |row| {
            let id = parsed(row, 0, InstanceId::parse)?;
            Ok((id, Process { pid: row.get(1)?, started: row.get(2)? }))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(rows)
}

/// Files the sessions of one machine name under another: the machine was renamed. Only rows behind the first of
/// these, up to the second.
pub(in crate::store) fn rename_machine(
    db: &Connection,
    from: &str,
    to: &MachineName,
    (after_row, last_row): (i64, i64),
    at: Timestamp,
) -> Result<usize, StoreError> {
    Ok(db
        .prepare_cached(
            "UPDATE sessions SET host_machine = ?2, version = version + 1, \
                 unsynced_since = coalesce(unsynced_since, ?3), parked_at = NULL, parked_error = NULL, \
                 retry_at = NULL \
             WHERE rowid > ?4 AND rowid <= ?5 AND host_machine = ?1 AND mirror_round IS NULL",
        )?
        .execute(params![from, to.as_str(), at.micros(), after_row, last_row])?)
}

/// The session that goes, or once went, by exactly this id.
pub(in crate::store) fn get(db: &Connection, id: &str) -> Result<Option<Record>, StoreError> {
    Ok(db.prepare_cached(GET)?.query_row([id], read_record).optional()?)
}

/// The session that goes by exactly this id now.
pub(in crate::store) fn exactly(db: &Connection, id: &str) -> Result<Option<Record>, StoreError> {
    Ok(db
        .prepare_cached(&format!("SELECT {COLUMNS} FROM sessions s WHERE instance_id = ?1"))?
        .query_row([id], read_record)
        .optional()?)
}

/// Mirrors a session of another host, as central has it.
pub(in crate::store) fn upsert_mirrored(db: &Connection, s: &Session, round: i64) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO sessions (instance_id, project, instance_type, status, context_percent, current_epic, \
             last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, \
             resumed_from, working_dir, owner_uid, version, mirror_round) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 0, 0, ?15) \
         ON CONFLICT (instance_id) DO UPDATE SET project = ?2, instance_type = ?3, status = ?4, \
             context_percent = ?5, current_epic = ?6, last_heartbeat = ?7, created_at = ?8, closed_at = ?9, \
             host_machine = ?10, claude_session_uuid = ?11, claude_session_path = ?12, resumed_from = ?13, \
             working_dir = ?14, mirror_round = ?15",
    )?
    .execute(params![
        s.instance_id.as_str(),
        s.project.as_str(),
        s.instance_type.as_str(),
        s.status.as_str(),
        s.context_percent,
        s.current_epic,
        s.last_heartbeat.micros(),
        s.created_at.micros(),
        s.closed_at.map(Timestamp::micros),
        s.host_machine.as_str(),
        s.claude_session_uuid,
        s.claude_session_path,
        s.resumed_from.as_ref().map(InstanceId::as_str),
        s.working_dir,
        round,
    ])?;
    Ok(())
}

/// Writes what other clients changed of this host's own session. Central has it already, so it is no new version.
pub(in crate::store) fn save_merged(db: &Connection, own: &Record) -> Result<(), StoreError> {
    let s = &own.session;
    db.prepare_cached(
        "UPDATE sessions SET status = ?2, context_percent = ?3, current_epic = ?4, last_heartbeat = ?5, \
             claude_session_uuid = ?6, claude_session_path = ?7, working_dir = ?8, resumed_from = ?9, \
             column_changes = ?10 WHERE instance_id = ?1",
    )?
    .execute(params![
        s.instance_id.as_str(),
        s.status.as_str(),
        s.context_percent,
        s.current_epic,
        s.last_heartbeat.micros(),
        s.claude_session_uuid,
        s.claude_session_path,
        s.working_dir,
        s.resumed_from.as_ref().map(InstanceId::as_str),
        own.columns,
    ])?;
    Ok(())
}

/// The sessions in these rows, as they are now, each with the number that comes with its row.
pub(in crate::store) fn in_rows(db: &Connection, rows: &[(u64, i64)]) -> Result<Vec<(u64, Record)>, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions s WHERE rowid = ?1"))?;
    let mut read = |(number, row): &(u64, i64)| {
        let record = statement.query_row([row], read_record).optional().transpose()?;
        Some(record.map(|record| (*number, record)).map_err(StoreError::from))
    };
    rows.iter().filter_map(&mut read).collect()
}

pub(in crate::store) fn insert(db: &Connection, record: &Record) -> Result<(), StoreError> {
    let s = &record.session;
    db.prepare_cached(
        "INSERT INTO sessions (instance_id, project, instance_type, status, context_percent, current_epic, \
             last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, \
             resumed_from, working_dir, owner_uid, pid, pid_started, version, unsynced_since, column_changes, \
             synced_version) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
    )?
    .execute(params![
        s.instance_id.as_str(),
        s.project.as_str(),
        s.instance_type.as_str(),
        s.status.as_str(),
        s.context_percent,
        s.current_epic,
        s.last_heartbeat.micros(),
        s.created_at.micros(),
        s.closed_at.map(Timestamp::micros),
        s.host_machine.as_str(),
        s.claude_session_uuid,
        s.claude_session_path,
        s.resumed_from.as_ref().map(InstanceId::as_str),
        s.working_dir,
        record.owner_uid,
        record.process.map(|p| p.pid),
        record.process.map(|p| p.started),
        record.version,
        record.unsynced_since.map(Timestamp::micros),
        record.columns,
        record.synced_version,
    ])?;
    Ok(())
}

/// Writes what can change of a session, as a new version that central lacks.
///
/// Most changes are heartbeats, and most of those of sessions that wait already: those touch no column that an index
/// is made of or depends on.
pub(in crate::store) fn save(op: &Op<'_>, record: &mut Record) -> Result<(), StoreError> {
    let db = op.db;
    let waits_already = record.unsynced_since.is_some();
    let beat = match record.unsynced_since {
        Some(_) => BEAT_AGAIN,
        None => BEAT,
    };
    record.version += 1;
    record.unsynced_since.get_or_insert(op.now);
    let s = &record.session;
    let values = params![
        s.instance_id.as_str(),
        s.status.as_str(),
        s.context_percent,
        s.current_epic,
        s.last_heartbeat.micros(),
        s.closed_at.map(Timestamp::micros),
        record.process.map(|p| p.pid),
        record.process.map(|p| p.started),
        record.version,
        record.unsynced_since.map(Timestamp::micros),
        record.columns,
    ];
    let only_a_heartbeat = db.prepare_cached(beat)?.execute(values)?;
    if only_a_heartbeat == 0 {
        db.prepare_cached(CHANGE)?.execute(values)?;
    }
    if waits_already {
        db.prepare_cached(FREE)?.execute([record.session.instance_id.as_str()])?;
    }
    Ok(())
}

/// A change of a parked session is pushed: central may take it as it is now.
const FREE: &str = "UPDATE sessions SET parked_at = NULL, parked_error = NULL, retry_at = NULL \
     WHERE instance_id = ?1 AND parked_at IS NOT NULL";

macro_rules! unless_more_changed {
    () => {
        " WHERE instance_id = ?1 AND status = ?2 AND current_epic IS ?4 AND closed_at IS ?6 AND pid IS ?7 \
             AND pid_started IS ?8"
    };
}

const BEAT: &str = concat!(
    "UPDATE sessions SET context_percent = ?3, last_heartbeat = ?5, version = ?9, column_changes = ?11, \
     unsynced_since = ?10",
    unless_more_changed!()
);

const BEAT_AGAIN: &str = concat!(
    "UPDATE sessions SET context_percent = ?3, last_heartbeat = ?5, version = ?9, column_changes = ?11",
    unless_more_changed!(),
    " AND unsynced_since = ?10"
);

const CHANGE: &str = "UPDATE sessions SET status = ?2, context_percent = ?3, current_epic = ?4, last_heartbeat = ?5, \
     closed_at = ?6, pid = ?7, pid_started = ?8, version = ?9, unsynced_since = ?10, column_changes = ?11 WHERE instance_id = ?1";

/// Writes where a session runs now; [`save`] says that something changed.
pub(in crate::store) fn save_whereabouts(db: &Connection, record: &Record) -> Result<(), StoreError> {
    let s = &record.session;
    db.prepare_cached(
        "UPDATE sessions SET claude_session_uuid = ?2, claude_session_path = ?3, working_dir = ?4 WHERE instance_id = ?1",
    )?
    .execute(params![s.instance_id.as_str(), s.claude_session_uuid, s.claude_session_path, s.working_dir])?;
    Ok(())
}

pub(in crate::store) fn read_record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let pid: Option<i32> = row.get(15)?;
    let started: Option<i64> = row.get(16)?;
    let session = read_session(row)?;
    Ok(Record {
        columns: session_columns::read(row.get_ref(22)?, session.last_heartbeat),
        synced_version: row.get(23)?,
        session,
        owner_uid: row.get(14)?,
        process: pid.zip(started).map(|(pid, started)| Process { pid, started }),
        version: row.get(17)?,
        unsynced_since: row.get::<_, Option<i64>>(18)?.map(Timestamp::from_micros),
        mirrored: row.get::<_, Option<i64>>(19)?.is_some(),
        machine_seen: row.get::<_, Option<i64>>(20)?.map(Timestamp::from_micros),
        former_id: row.get(21)?,
        checkpoint_due: false,
        work: row.get_ref(24)?.as_str_or_null()?.and_then(session_work::read_summary),
    })
}

/// Reads the fourteen columns of supervisor_sessions, the first of [`COLUMNS`]. Earlier versions kept text of central as
/// it was: what is read is made safe here too.
fn read_session(row: &Row<'_>) -> rusqlite::Result<Session> {
    let session = Session {
        instance_id: parsed(row, 0, InstanceId::parse)?,
        project: parsed(row, 1, Project::parse)?,
        instance_type: parsed(row, 2, InstanceType::parse)?,
        status: parsed(row, 3, Status::parse)?,
        context_percent: row.get(4)?,
        current_epic: row.get(5)?,
        last_heartbeat: Timestamp::from_micros(row.get(6)?),
        created_at: Timestamp::from_micros(row.get(7)?),
        closed_at: row.get::<_, Option<i64>>(8)?.map(Timestamp::from_micros),
        host_machine: parsed(row, 9, MachineName::parse)?,
        claude_session_uuid: row.get(10)?,
        claude_session_path: row.get(11)?,
        resumed_from: match row.get_ref(12)? {
            ValueRef::Null => None,
            _ => Some(parsed(row, 12, InstanceId::parse)?),
        },
        working_dir: row.get(13)?,
    };
    Ok(session.with_safe_text())
}

pub(in crate::store) fn parsed<T, E: std::error::Error + Send + Sync + 'static>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    parse(text).map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e)))
}
