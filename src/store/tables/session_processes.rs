//! The table `session_processes`: processes that run a session beside the one that is watched (`sessions.pid`).

use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::InstanceId;
use crate::store::error::StoreError;
use crate::store::tables::session_record::Process;

pub(in crate::store) fn add(db: &Connection, id: &InstanceId, process: Process) -> Result<(), StoreError> {
    db.prepare_cached("INSERT OR IGNORE INTO session_processes (instance_id, pid, pid_started) VALUES (?1, ?2, ?3)")?
        .execute(params![id.as_str(), process.pid, process.started])?;
    Ok(())
}

/// The process runs this session, or any, no more beside the one that is watched.
pub(in crate::store) fn remove(db: &Connection, id: Option<&InstanceId>, process: Process) -> Result<(), StoreError> {
    db.prepare_cached(
        "DELETE FROM session_processes WHERE pid = ?2 AND pid_started = ?3 AND (?1 IS NULL OR instance_id = ?1)",
    )?
    .execute(params![id.map(InstanceId::as_str), process.pid, process.started])?;
    Ok(())
}

/// Takes the next process that opened the same conversation, which may have ended since.
pub(in crate::store) fn take_next(db: &Connection, id: &InstanceId) -> Result<Option<Process>, StoreError> {
    let next = db
        .prepare_cached("SELECT pid, pid_started FROM session_processes WHERE instance_id = ?1 LIMIT 1")?
        .query_row([id.as_str()], |row| Ok(Process { pid: row.get(0)?, started: row.get(1)? }))
        .optional()?;
    if let Some(process) = next {
        remove(db, Some(id), process)?;
    }
    Ok(next)
}

pub(in crate::store) fn take_next_live(
    db: &Connection,
    id: &InstanceId,
    lives: fn(Process) -> bool,
) -> Result<Option<Process>, StoreError> {
    loop {
        match take_next(db, id)? {
            Some(process) if !lives(process) => {}
            next => return Ok(next),
        }
    }
}
