//! Agents' reports in SQLite: the session that one belongs to is found and changed in one transaction, so that no
//! session is registered twice, whichever of an agent's reports comes first.
//!
//! Three tables say what runs a session. `sessions.pid` is the process that is watched. `claude_ids` has every id of
//! the agent's own that led to a session, with the process that uses the conversation and whether it was left.
//! `session_processes` has further processes that opened the same conversation; the next of them is watched when the
//! first ends.

use crate::domain::Process;

use rusqlite::{Connection, params};

use crate::domain::agent::{AgentKind, AgentSignal, Resolution, StartSource, ValidReport, resolve};
use crate::domain::{Heartbeat, InstanceId, Registration, Session, SharedColumn, Status};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::ops::agent_candidates::ReceivedReport;
use crate::store::ops::session_work::{WorkChange, WorkReport};
use crate::store::ops::{agent_candidates, conflicts, promised_ids, rate_limits, session_work};
use crate::store::sync_state::activity_history;
use crate::store::tables::columns::OURS;
use crate::store::tables::session_record::Record;
use crate::store::tables::{agent_ids, checkpoints_due, session_processes, sessions};

/// What became of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportResult {
    pub(crate) record: Record,
    /// The session began with this report.
    pub created: bool,
    /// Another process than before is to be watched.
    pub process_changed: bool,
    /// More changed than the time of the heartbeat.
    pub is_urgent: bool,
}

/// # Errors
/// `NotFound` for a report that begins nothing and belongs to no known session.
pub(in crate::store) fn apply_report(op: &Op<'_>, received: ReceivedReport) -> Result<ReportResult, StoreError> {
    let known = agent_candidates::candidates(op, &received)?;
    let by_process = known.by_process.clone();
    let report = &received.report;
    let identifies = report.claude_session_uuid.is_some() || received.process.is_some() && report.owns_process();
    let verdict = resolve(report.sign, identifies, known);
    let (id, runs, created) = match &verdict {
        Resolution::Adopt(id) => (id.clone(), true, false),
        Resolution::Begin { resumed_from } => (begin(op, &received, resumed_from.clone())?, true, true),
        Resolution::Close(id) | Resolution::Abandon(id) | Resolution::Ignore(id) => (id.clone(), false, false),
        Resolution::Unknown => {
            return Err(StoreError::NotFound(report.claude_session_uuid.clone().unwrap_or_default()));
        }
    };
    let before = existing(op.db, id.as_str())?;
    match &verdict {
        Resolution::Adopt(id) => adopt(op, id, &received)?,
        Resolution::Close(id) | Resolution::Abandon(id) => end(op, id, &received)?,
        _ => {}
    }
    if let (false, Some(process)) = (runs, received.process) {
        session_processes::remove(op.db, Some(&id), process)?;
    }
    // What an agent reports of its work when it ends is its last word; what it does then, it does not do any more.
    let of_work = WorkReport {
        agent: report.agent,
        activity: report.activity.as_ref().filter(|_| runs),
        update: report.work.as_ref(),
        at: Some(report.at),
    };
    let mut work = WorkChange::default();
    if matches!(verdict, Resolution::Close(_) | Resolution::Abandon(_)) {
        work = session_work::apply(op.db, &id, &of_work, received.now)?;
    }
    if runs {
        if let Some(other) = by_process.filter(|other| other.id != id) {
            leave(op, &other.id)?;
        }
        remember(op.db, &received, &id)?;
        note_kind(op.db, &received, &id)?;
        work = session_work::apply(op.db, &id, &of_work, received.now)?;
        promised_ids::keep(op, report.promised_id.as_ref(), &id)?;
        if let Some(observed) = &report.limits {
            rate_limits::record(op, observed, report.at, received.now)?;
        }
    }
    let mut record = existing(op.db, id.as_str())?;
    record.conflicts = conflicts::of(op, &record)?;
    if record.session.context_percent != before.session.context_percent {
        activity_history::record_context(op.db, &record, received.now)?;
    }
    let process_changed = record.process != before.process || created;
    let unchanged = Session { last_heartbeat: record.session.last_heartbeat, ..before.session };
    let is_urgent = created || process_changed || work.is_urgent || record.session != unchanged;
    Ok(ReportResult { process_changed, is_urgent, record, created })
}

fn existing(db: &Connection, id: &str) -> Result<Record, StoreError> {
    sessions::get(db, id)?.ok_or_else(|| StoreError::NotFound(id.to_owned()))
}

/// Applies a report of a process that runs the session.
fn adopt(op: &Op<'_>, id: &InstanceId, received: &ReceivedReport) -> Result<(), StoreError> {
    let mut record = existing(op.db, id.as_str())?;
    let before = record.clone();
    if before.process.is_none() && op.status_of_own(&before.session) == Status::Stale {
        session_work::end_activity(op, &record)?;
    }
    let report = &received.report;
    let beat = Heartbeat { context_percent: report.context_percent, ..Heartbeat::default() };
    record.session.heartbeat(&beat, op.now, op.stale_after).map_err(|_| StoreError::Closed(id.to_string()))?;
    if let Some(process) = received.process {
        if received.is_other(before.process) {
            session_processes::add(op.db, id, process)?;
        } else {
            record.process = Some(process);
            session_processes::remove(op.db, None, process)?;
        }
    }
    follow(op.db, &mut record, received, before.process)?;
    record.change_columns_since(&before.session, op.now);
    if report.context_percent.is_some() {
        record.change_column(SharedColumn::ContextPercent, op.now);
    }
    if whereabouts(&record.session) != whereabouts(&before.session) {
        sessions::save_whereabouts(op.db, &record)?;
    }
    sessions::save(op, &mut record)?;
    checkpoints_due::update(op.db, id, (before.session.context_percent, record.session.context_percent))?;
    Ok(())
}

/// Follows the agent to another conversation, transcript or folder, unless another process uses the conversation.
fn follow(
    db: &Connection,
    record: &mut Record,
    received: &ReceivedReport,
    watched: Option<Process>,
) -> Result<(), StoreError> {
    let report = &received.report;
    let (current, reported) = (record.conversation(), report.conversation());
    let session = &mut record.session;
    let running = agent_ids::use_of(db, current.as_deref(), &session.instance_id)?.unwrap_or_default();
    if received.is_other(running.process) {
        return Ok(());
    }
    if reported.is_some() && reported != current {
        let known = agent_ids::use_of(db, reported.as_deref(), &session.instance_id)?;
        let becomes_current = match report.sign {
            // A process starts once: under two ids one is a throw-away, and heartbeats tell which.
            AgentSignal::Start(StartSource::Startup) => {
                current.is_none() || watched.is_none() || watched != received.process
            }
            AgentSignal::Start(_) => true,
            _ => known.is_none_or(|known| !known.is_left) && report.sign != AgentSignal::Leave,
        };
        if !becomes_current {
            return Ok(());
        }
        if matches!(report.sign, AgentSignal::Start(_)) {
            agent_ids::mark_left(db, current.as_deref(), &session.instance_id)?;
        }
        if known.is_none() && current.is_some() && report.context_percent.is_none() {
            // A conversation that begins is empty.
            session.context_percent = 0;
        }
        session.claude_session_uuid.clone_from(&report.claude_session_uuid);
        session.claude_session_path = None;
    }
    move_to(session, report);
    Ok(())
}

/// Notes the transcript and the folder that a report of the current conversation names.
fn move_to(session: &mut Session, report: &ValidReport) {
    if report.claude_session_path.is_some() {
        session.claude_session_path.clone_from(&report.claude_session_path);
    }
    if report.working_dir.is_some() {
        session.working_dir.clone_from(&report.working_dir);
    }
}

fn whereabouts(session: &Session) -> [&Option<String>; 3] {
    [&session.claude_session_uuid, &session.claude_session_path, &session.working_dir]
}

/// The process that reports runs the session no more. It ends, or is to be resumed, unless another process runs it.
fn end(op: &Op<'_>, id: &InstanceId, received: &ReceivedReport) -> Result<(), StoreError> {
    let mut record = existing(op.db, id.as_str())?;
    let before = record.session.clone();
    move_to(&mut record.session, &received.report);
    record.change_columns_since(&before, op.now);
    if whereabouts(&record.session) != whereabouts(&before) {
        sessions::save_whereabouts(op.db, &record)?;
    }
    if let Some(process) = received.process {
        session_processes::remove(op.db, Some(id), process)?;
    }
    record.process = session_processes::take_next_live(op.db, id, received.lives)?;
    if record.process.is_none() {
        agent_ids::mark_left(op.db, record.conversation().as_deref(), id)?;
        session_work::end_activity(op, &record)?;
        match received.report.sign {
            AgentSignal::Interrupted => record.session.status = Status::Stale,
            _ => {
                record.session.close(op.now);
            }
        }
    }
    sessions::save(op, &mut record)
}

/// The session's process continues another session: nothing runs this one any more.
fn leave(op: &Op<'_>, id: &InstanceId) -> Result<(), StoreError> {
    let mut record = existing(op.db, id.as_str())?;
    if record.session.status != Status::Closed {
        record.process = session_processes::take_next(op.db, id)?;
        if record.process.is_none() {
            record.session.status = Status::Stale;
            session_work::end_activity(op, &record)?;
        }
        sessions::save(op, &mut record)?;
    }
    Ok(())
}

/// Notes how the agent runs. One prompt to a conversation does not make an interactive session a headless one.
fn note_kind(db: &Connection, received: &ReceivedReport, id: &InstanceId) -> Result<(), StoreError> {
    let Some(kind) = received.report.kind else { return Ok(()) };
    let headless = AgentKind::Headless.as_str();
    db.prepare_cached(
        "UPDATE sessions SET kind = ?2 WHERE instance_id = ?1 AND kind IS NOT ?2 AND (kind IS NULL OR ?2 <> ?3)",
    )?
    .execute(params![id.as_str(), kind.as_str(), headless])?;
    Ok(())
}

fn begin(op: &Op<'_>, received: &ReceivedReport, resumed_from: Option<InstanceId>) -> Result<InstanceId, StoreError> {
    let report = &received.report;
    let promised = match &report.promised_id {
        // The rules may give the session another type than the promised id, which contains the type.
        Some(id) if id.names(&report.project, report.instance_type) && promised_ids::may_begin(op.db, id)? => Some(id),
        _ => None,
    };
    let instance_id = match promised {
        Some(id) => id.clone(),
        None => sessions::free_id(op, &report.project, report.instance_type)?,
    };
    let what = Registration {
        project: report.project.clone(),
        instance_type: report.instance_type,
        host_machine: received.host_machine.clone(),
        context_percent: report.context_percent.unwrap_or(0),
        current_epic: None,
        claude_session_uuid: report.claude_session_uuid.clone(),
        claude_session_path: report.claude_session_path.clone(),
        resumed_from,
        working_dir: report.working_dir.clone(),
    };
    let session = Session::register(instance_id.clone(), what, op.now);
    sessions::insert(op.db, &Record::begun(op, session, received.process))?;
    Ok(instance_id)
}

/// Notes that the agent's own id leads to this session, and which process uses it.
fn remember(db: &Connection, received: &ReceivedReport, id: &InstanceId) -> Result<(), StoreError> {
    let Some(conversation) = received.report.conversation() else { return Ok(()) };
    let known = agent_ids::use_of(db, Some(&conversation), id)?;
    let before = known.unwrap_or_default();
    let process = if received.is_other(before.process) { before.process } else { received.process.or(before.process) };
    let is_left = match received.report.sign {
        AgentSignal::Start(_) => false,
        AgentSignal::Leave => !received.is_other(before.process),
        _ => before.is_left,
    };
    if known.is_some() && process == before.process && is_left == before.is_left {
        return Ok(());
    }
    // The id moves to this session, but never away from another user's.
    db.prepare_cached(&format!(
        "DELETE FROM claude_ids WHERE uuid = ?1 AND instance_id <> ?2 AND NOT EXISTS \
             (SELECT 1 FROM sessions other, sessions own WHERE other.instance_id = claude_ids.instance_id \
                 AND own.instance_id = ?2 AND other.{OURS} AND other.owner_uid <> own.owner_uid)",
    ))?
    .execute(params![conversation, id.as_str()])?;
    db.prepare_cached(
        "INSERT INTO claude_ids (uuid, instance_id, pid, pid_started, is_left) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (uuid) DO UPDATE SET pid = ?3, pid_started = ?4, is_left = ?5 WHERE instance_id = ?2",
    )?
    .execute(params![conversation, id.as_str(), process.map(|p| p.pid), process.map(|p| p.started), is_left])?;
    Ok(())
}
