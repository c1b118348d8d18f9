//! The table `sessions`: this host's own sessions, and those mirrored from other machines.
//!
//! SQL only: what a change means is decided by `domain` and `ops`. Every function runs inside a transaction that its caller
//! began and commits. A row is this host's own while
//! [`OURS`] is true.

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::Process;
use crate::domain::{InstanceId, InstanceType, MachineName, Project, TimedSession, Timestamp};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::tables::columns::OURS;
use crate::store::tables::session_record::Record;
pub(in crate::store) use crate::store::tables::session_row::{COLUMNS, parsed, read_record};
use crate::store::tables::session_row::{Column, SessionRow, WriteStatement};

/// Every heartbeat begins with it.
pub(in crate::store) static GET: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {COLUMNS} FROM sessions s \
         WHERE instance_id = coalesce((SELECT instance_id FROM aliases WHERE old_id = ?1), ?1)"
    )
});

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
    Err(StoreError::Bug(format!("none of {ID_ATTEMPTS} random ids was free").into()))
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
        .prepare_cached(&format!(
            "UPDATE sessions SET host_machine = ?2, version = version + 1, \
                 unsynced_since = coalesce(unsynced_since, ?3), parked_at = NULL, parked_error = NULL, \
                 retry_at = NULL \
             WHERE rowid > ?4 AND rowid <= ?5 AND host_machine = ?1 AND {OURS}",
        ))?
        .execute(params![from, to.as_str(), at.micros(), after_row, last_row])?)
}

/// The session that goes, or once went, by exactly this id.
pub(in crate::store) fn get(db: &Connection, id: &str) -> Result<Option<Record>, StoreError> {
    Ok(db.prepare_cached(&GET)?.query_row([id], read_record).optional()?)
}

/// The session that goes by exactly this id now.
pub(in crate::store) fn exactly(db: &Connection, id: &str) -> Result<Option<Record>, StoreError> {
    Ok(db
        .prepare_cached(&format!("SELECT {COLUMNS} FROM sessions s WHERE instance_id = ?1"))?
        .query_row([id], read_record)
        .optional()?)
}

/// What central has of a session too: the columns of supervisor_sessions.
const IN_CENTRAL: &[Column] = &[
    Column::Project,
    Column::InstanceType,
    Column::Status,
    Column::ContextPercent,
    Column::CurrentEpic,
    Column::LastHeartbeat,
    Column::CreatedAt,
    Column::ClosedAt,
    Column::HostMachine,
    Column::ClaudeSessionUuid,
    Column::ClaudeSessionPath,
    Column::ResumedFrom,
    Column::WorkingDir,
];

/// Mirrors a session of another host, as central has it. `read_at`: when it was read, if somebody asked for it.
pub(in crate::store) fn upsert_mirrored(
    db: &Connection,
    session: &TimedSession,
    round: i64,
    read_at: Option<Timestamp>,
) -> Result<(), StoreError> {
    static UPSERT: LazyLock<WriteStatement> = LazyLock::new(|| {
        let update = [IN_CENTRAL, &[Column::MirrorGeneration, Column::VouchedBy, Column::ReadAt]].concat();
        let insert = [&update[..], &[Column::InstanceId, Column::OwnerUid, Column::Version]].concat();
        WriteStatement::upsert(&insert, &update)
    });
    UPSERT.execute(db, SessionRow::mirrored(session, round).on_demand(read_at))?;
    Ok(())
}

/// Writes what other clients changed of this host's own session. Central has it already, so it is no new version.
pub(in crate::store) fn save_merged(db: &Connection, own: &Record) -> Result<(), StoreError> {
    static MERGE: LazyLock<WriteStatement> = LazyLock::new(|| {
        let merged = [
            Column::Status,
            Column::ContextPercent,
            Column::CurrentEpic,
            Column::LastHeartbeat,
            Column::ClaudeSessionUuid,
            Column::ClaudeSessionPath,
            Column::WorkingDir,
            Column::ResumedFrom,
            Column::ColumnChanges,
        ];
        WriteStatement::update(&merged, &[])
    });
    MERGE.execute(db, SessionRow::own(own))?;
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
    static INSERT: LazyLock<WriteStatement> = LazyLock::new(|| WriteStatement::insert(Column::ALL));
    INSERT.execute(db, SessionRow::own(record))?;
    Ok(())
}

/// Writes what can change of a session, as a new version that central lacks. A heartbeat alone is none: it makes no session
/// pending (see `sync_state::refresh`).
///
/// Most changes are heartbeats, and most of those of sessions that wait already: those touch no column that an index
/// is made of or depends on.
pub(in crate::store) fn save(op: &Op<'_>, record: &mut Record) -> Result<(), StoreError> {
    let db = op.db;
    let states_columns = record.columns.0.iter().any(|change| change.version > record.version);
    if !states_columns && BARE_HEARTBEAT.execute(db, SessionRow::own(record))? > 0 {
        return Ok(());
    }
    let waits_already = record.unsynced_since.is_some();
    let heartbeat = if waits_already { &HEARTBEAT_AGAIN } else { &HEARTBEAT };
    record.version += 1;
    record.unsynced_since.get_or_insert(op.now);
    let row = SessionRow::own(record);
    if heartbeat.execute(db, row)? == 0 {
        CHANGE.execute(db, row)?;
        if waits_already {
            db.prepare_cached(FREE)?.execute([record.session.instance_id.as_str()])?;
        }
    }
    Ok(())
}

/// A change of a parked session is pushed: central may take it as it is now.
const FREE: &str = "UPDATE sessions SET parked_at = NULL, parked_error = NULL, retry_at = NULL \
     WHERE instance_id = ?1 AND parked_at IS NOT NULL";

/// What changes with more than a heartbeat.
const MORE: &[Column] = &[Column::Status, Column::CurrentEpic, Column::ClosedAt, Column::Pid, Column::PidStarted];

/// What changes with each heartbeat.
const EACH: &[Column] = &[Column::ContextPercent, Column::LastHeartbeat, Column::Version, Column::ColumnChanges];

/// A parked session is pushed again with any heartbeat.
static BARE_HEARTBEAT: LazyLock<WriteStatement> = LazyLock::new(|| {
    let same = [&[Column::ContextPercent, Column::ColumnChanges], MORE].concat();
    WriteStatement::update(&[Column::LastHeartbeat], &same).only_if("parked_at IS NULL")
});

static HEARTBEAT: LazyLock<WriteStatement> =
    LazyLock::new(|| WriteStatement::update(&[EACH, &[Column::UnsyncedSince]].concat(), MORE));

static HEARTBEAT_AGAIN: LazyLock<WriteStatement> = LazyLock::new(|| {
    let same = [MORE, &[Column::UnsyncedSince]].concat();
    WriteStatement::update(EACH, &same).only_if("parked_at IS NULL")
});

static CHANGE: LazyLock<WriteStatement> =
    LazyLock::new(|| WriteStatement::update(&[EACH, &[Column::UnsyncedSince], MORE].concat(), &[]));

/// Writes where a session runs now; [`save`] says that something changed.
pub(in crate::store) fn save_whereabouts(db: &Connection, record: &Record) -> Result<(), StoreError> {
    static MOVE: LazyLock<WriteStatement> = LazyLock::new(|| {
        let moved = [Column::ClaudeSessionUuid, Column::ClaudeSessionPath, Column::WorkingDir];
        WriteStatement::update(&moved, &[])
    });
    MOVE.execute(db, SessionRow::own(record))?;
    Ok(())
}
