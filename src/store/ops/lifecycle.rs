//! The life of a session: register, heartbeat, stale, close.
//!
//! Each function is one use case in one transaction, which its caller commits.

use crate::domain::Process;
use std::time::Duration;

use rusqlite::Connection;

use crate::domain::{Heartbeat, InstanceId, Registration, Session, SharedColumn, Status, Timestamp};
use crate::store::error::StoreError;
use crate::store::ops::session_work::WorkReport;
use crate::store::ops::{idempotency, session_work};
use crate::store::sqlite::writer;
use crate::store::tables::session_record::{Caller, Record};
use crate::store::tables::sessions::COLUMNS;
use crate::store::tables::{checkpoints_due, session_processes, sessions};

pub(in crate::store) fn register(
    db: &Connection,
    what: Registration,
    process: Option<Process>,
    caller: Caller,
    draws: &[u64],
    at: Timestamp,
) -> Result<Record, StoreError> {
    let instance_id = sessions::free_id(db, &what.project, what.instance_type, draws)?;
    let record = Record::begun(Session::register(instance_id, what, at), process, caller, at);
    sessions::insert(db, &record)?;
    checkpoints_due::update(db, &record.session.instance_id, (0, record.session.context_percent))?;
    Ok(record)
}

/// Records a heartbeat. Returns the session, and whether the change is urgent: more than `last_heartbeat` changed.
/// Leaves nothing behind when it fails.
pub(in crate::store) fn heartbeat(
    db: &Connection,
    id: &str,
    beat: &Heartbeat,
    caller: Caller,
    at: Timestamp,
    stale_after: Duration,
) -> Result<(Record, bool), StoreError> {
    let mut record = owned(db, id, caller)?;
    let mut before = record.session.clone();
    record.session.heartbeat(beat, at, stale_after).map_err(|_| StoreError::Closed(id.to_owned()))?;
    // What a client states counts as changed by it, even if it is what was known.
    if beat.context_percent.is_some() {
        record.change_column(SharedColumn::ContextPercent, at);
    }
    if beat.current_epic.is_some() {
        record.change_column(SharedColumn::CurrentEpic, at);
    }
    let context = (before.context_percent, record.session.context_percent);
    if checkpoints_due::is_affected(context) {
        record.checkpoint_due = writer::all_or_nothing(db, || {
            sessions::save(db, &mut record, at)?;
            checkpoints_due::update(db, &record.session.instance_id, context)
        })?;
    } else {
        sessions::save(db, &mut record, at)?;
    }
    before.last_heartbeat = record.session.last_heartbeat;
    let mut is_urgent = before != record.session;
    if let Some(event) = &beat.activity {
        let report = WorkReport { activity: Some(event), ..WorkReport::default() };
        let change = session_work::apply(db, &record.session.instance_id, &report, at)?;
        record.work = change.summary.or(record.work);
        is_urgent |= change.is_urgent;
    }
    Ok((record, is_urgent))
}

pub(in crate::store) fn close(db: &Connection, id: &str, caller: Caller, at: Timestamp) -> Result<Record, StoreError> {
    if let Some(over) = sessions::get(db, id)?.filter(|known| known.mirrored && known.session.status == Status::Closed)
    {
        return Ok(over);
    }
    let mut record = owned(db, id, caller)?;
    if record.session.close(at) {
        record.process = None;
        sessions::save(db, &mut record, at)?;
    }
    Ok(record)
}

/// The daemon saw these sessions' processes alive.
pub(in crate::store) fn seen_alive(
    db: &Connection,
    ids: &[InstanceId],
    at: Timestamp,
    stale_after: Duration,
) -> Result<(), StoreError> {
    for id in ids {
        let Some(mut record) = sessions::get(db, id.as_str())?.filter(|record| record.process.is_some()) else {
            continue;
        };
        if record.session.heartbeat(&Heartbeat::default(), at, stale_after).is_ok() {
            sessions::save(db, &mut record, at)?;
        }
    }
    Ok(())
}

/// The process of a session ended: the session is stale at once, unless another process runs it. Says whether it is
/// stale by this.
pub(in crate::store) fn process_died(
    db: &Connection,
    id: &InstanceId,
    process: Process,
    at: Timestamp,
) -> Result<bool, StoreError> {
    let Some(mut record) = sessions::get(db, id.as_str())?.filter(|record| record.process == Some(process)) else {
        return Ok(false);
    };
    record.process = session_processes::take_next(db, id)?;
    if record.process.is_none() && record.session.status == Status::Active {
        record.session.status = Status::Stale;
    }
    sessions::save(db, &mut record, at)?;
    Ok(record.process.is_none())
}

/// Records as stale up to `limit` sessions that have been silent for too long. Returns how many.
pub(in crate::store) fn mark_silent_stale(
    db: &Connection,
    now: Timestamp,
    stale_after: Duration,
    limit: usize,
) -> Result<usize, StoreError> {
    let silent = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions s INDEXED BY sessions_running WHERE status = 'active' \
                 AND mirror_round IS NULL AND (last_heartbeat <= ?1 OR last_heartbeat >= ?2) LIMIT ?3"
        ))?
        .query_map(
            [now.minus(stale_after).micros(), now.plus(stale_after).micros(), limit as i64],
            sessions::read_record,
        )?
        .collect::<Result<Vec<_>, _>>()?;
    for mut record in silent.iter().cloned() {
        record.session.status = Status::Stale;
        sessions::save(db, &mut record, now)?;
    }
    Ok(silent.len())
}

/// The session, if the caller may change it.
pub(in crate::store) fn owned(db: &Connection, id: &str, caller: Caller) -> Result<Record, StoreError> {
    let record = sessions::get(db, id)?.ok_or_else(|| StoreError::NotFound(id.to_owned()))?;
    if record.mirrored && record.session.status == Status::Closed {
        return Err(StoreError::Closed(id.to_owned()));
    }
    if record.mirrored {
        let machine = record.session.host_machine.to_string();
        return Err(StoreError::Elsewhere { id: id.to_owned(), machine });
    }
    if caller.uid != 0 && caller.uid != record.owner_uid {
        return Err(StoreError::Forbidden { id: id.to_owned(), owner: record.owner_uid });
    }
    Ok(record)
}

/// A session to be registered.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub what: Registration,
    pub process: Option<Process>,
    pub caller: Caller,
    /// Random numbers for the id, more than one in case an id is taken.
    pub draws: [u64; 8],
    pub at: Timestamp,
}

/// Registers a session, unless the same agent has registered it from the same process before.
pub(in crate::store) fn register_unless_known(
    db: &Connection,
    what: Registration,
    process: Option<Process>,
    caller: Caller,
    draws: &[u64],
    at: Timestamp,
) -> Result<Record, StoreError> {
    match idempotency::registered(db, &what, process, caller)? {
        Some(record) => Ok(record),
        None => register(db, what, process, caller, draws, at),
    }
}
