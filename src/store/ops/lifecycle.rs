//! The life of a session: register, heartbeat, stale, close.
//!
//! Each function is one use case in one transaction, which its caller commits.

use crate::domain::Process;
use crate::domain::agent::AgentName;

use crate::domain::{Heartbeat, InstanceId, Registration, Session, SharedColumn, Status, WorkSummary};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::ops::session_work::WorkReport;
use crate::store::ops::{conflicts, idempotency, session_work};
use crate::store::sqlite::writer;
use crate::store::sync_state::activity_history;
use crate::store::tables::columns::OURS;
use crate::store::tables::session_record::Record;
use crate::store::tables::sessions::COLUMNS;
use crate::store::tables::{checkpoints_due, session_processes, sessions};

pub(in crate::store) fn register(
    op: &Op<'_>,
    what: Registration,
    process: Option<Process>,
) -> Result<Record, StoreError> {
    let instance_id = sessions::free_id(op, &what.project, what.instance_type)?;
    let record = Record::begun(op, Session::register(instance_id, what, op.now), process);
    sessions::insert(op.db, &record)?;
    checkpoints_due::update(op.db, &record.session.instance_id, (0, record.session.context_percent))?;
    Ok(record)
}

/// Records a heartbeat. Returns the session, and whether the change is urgent: more than `last_heartbeat` changed.
/// Leaves nothing behind when it fails.
pub(in crate::store) fn heartbeat(op: &Op<'_>, id: &str, beat: &Heartbeat) -> Result<(Record, bool), StoreError> {
    let mut record = owned(op, id)?;
    let mut before = record.session.clone();
    if record.process.is_none() && record.work.is_some() && op.status_of_own(&before) == Status::Stale {
        record.work = session_work::end_activity(op, &record)?.or(record.work);
    }
    record.session.heartbeat(beat, op.now, op.stale_after).map_err(|_| StoreError::Closed(id.to_owned()))?;
    record.conflicts = conflicts::of(op, &record)?;
    // What a client states counts as changed by it, even if it is what was known.
    if beat.context_percent.is_some() {
        record.change_column(SharedColumn::ContextPercent, op.now);
    }
    if beat.current_epic.is_some() {
        record.change_column(SharedColumn::CurrentEpic, op.now);
    }
    let context = (before.context_percent, record.session.context_percent);
    if checkpoints_due::is_affected(context) {
        record.checkpoint_due = writer::all_or_nothing(op.db, || {
            sessions::save(op, &mut record)?;
            checkpoints_due::update(op.db, &record.session.instance_id, context)
        })?;
    } else {
        sessions::save(op, &mut record)?;
    }
    before.last_heartbeat = record.session.last_heartbeat;
    let mut is_urgent = before != record.session;
    if let Some(event) = &beat.activity {
        let report = WorkReport { activity: Some(event), ..WorkReport::default() };
        let change = session_work::apply(op.db, &record.session.instance_id, &report, op.now)?;
        record.work = change.summary.or(record.work);
        is_urgent |= change.is_urgent;
    }
    if context.0 != context.1 {
        activity_history::record_context(op.db, &record, op.now)?;
    }
    Ok((record, is_urgent))
}

pub(in crate::store) fn close(op: &Op<'_>, id: &str) -> Result<Record, StoreError> {
    let mirrored = sessions::get(op.db, id)?.filter(|known| known.mirrored);
    if let Some(over) = mirrored.filter(|known| known.session.status == Status::Closed) {
        return Ok(over);
    }
    let mut record = owned(op, id)?;
    if record.session.close(op.now) {
        record.process = None;
        sessions::save(op, &mut record)?;
        activity_history::record_activity(op.db, &record.session.instance_id, None, op.now)?;
    }
    Ok(record)
}

/// The daemon saw these sessions' processes alive.
pub(in crate::store) fn seen_alive(op: &Op<'_>, ids: &[InstanceId]) -> Result<(), StoreError> {
    for id in ids {
        let Some(mut record) = sessions::get(op.db, id.as_str())?.filter(|record| record.process.is_some()) else {
            continue;
        };
        if record.session.heartbeat(&Heartbeat::default(), op.now, op.stale_after).is_ok() {
            sessions::save(op, &mut record)?;
        }
    }
    Ok(())
}

/// The process of a session ended: the session is stale at once, unless another process runs it. Says whether it is
/// stale by this.
pub(in crate::store) fn process_died(op: &Op<'_>, id: &InstanceId, process: Process) -> Result<bool, StoreError> {
    let Some(mut record) = sessions::get(op.db, id.as_str())?.filter(|record| record.process == Some(process)) else {
        return Ok(false);
    };
    record.process = session_processes::take_next(op.db, id)?;
    if record.process.is_none() && record.session.status == Status::Active {
        record.session.status = Status::Stale;
    }
    if record.process.is_none() {
        session_work::end_activity(op, &record)?;
    }
    sessions::save(op, &mut record)?;
    Ok(record.process.is_none())
}

/// Records as stale up to `limit` sessions that have been silent for too long. Returns how many.
pub(in crate::store) fn mark_silent_stale(op: &Op<'_>, limit: usize) -> Result<usize, StoreError> {
    let [from, until] = op.active_between();
    let silent = op
        .db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions s INDEXED BY sessions_running WHERE status = 'active' \
                 AND {OURS} AND (last_heartbeat <= ?1 OR last_heartbeat >= ?2) LIMIT ?3"
        ))?
        .query_map([from, until, limit as i64], sessions::read_record)?
        .collect::<Result<Vec<_>, _>>()?;
    for mut record in silent.iter().cloned() {
        record.session.status = Status::Stale;
        // A process may wait for its user all the while, as on a machine that slept.
        if record.process.is_none() {
            session_work::end_activity(op, &record)?;
        }
        sessions::save(op, &mut record)?;
    }
    Ok(silent.len())
}

/// The session, if the caller may change it.
pub(in crate::store) fn owned(op: &Op<'_>, id: &str) -> Result<Record, StoreError> {
    let record = sessions::get(op.db, id)?.ok_or_else(|| StoreError::NotFound(id.to_owned()))?;
    if record.mirrored && record.session.status == Status::Closed {
        return Err(StoreError::Closed(id.to_owned()));
    }
    if record.mirrored {
        let machine = record.session.host_machine.to_string();
        return Err(StoreError::Elsewhere { id: id.to_owned(), machine });
    }
    if op.caller.uid != 0 && op.caller.uid != record.owner_uid {
        return Err(StoreError::Forbidden { id: id.to_owned(), owner: record.owner_uid });
    }
    Ok(record)
}

/// Records which agent runs a session that was just registered.
pub(in crate::store) fn note_agent(
    op: &Op<'_>,
    id: &InstanceId,
    agent: Option<AgentName>,
) -> Result<Option<Box<WorkSummary>>, StoreError> {
    let report = WorkReport { agent, ..WorkReport::default() };
    if agent.is_none() { Ok(None) } else { Ok(session_work::apply(op.db, id, &report, op.now)?.summary) }
}

/// A session to be registered.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The session's fields.
    pub what: Registration,
    /// Which agent runs it, if the client names it.
    pub agent: Option<AgentName>,
    /// Its process, which is watched.
    pub process: Option<Process>,
}

/// Registers a session, unless the same agent has registered it from the same process before.
pub(in crate::store) fn register_unless_known(op: &Op<'_>, session: NewSession) -> Result<Record, StoreError> {
    let NewSession { what, agent, process } = session;
    if let Some(known) = idempotency::registered(op, &what, agent, process)? {
        return Ok(known);
    }
    let mut record = register(op, what, process)?;
    record.work = note_agent(op, &record.session.instance_id, agent)?;
    Ok(record)
}
