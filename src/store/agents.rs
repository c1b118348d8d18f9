//! Agents' reports in SQLite: which session one belongs to is found out and noted in one transaction, so that
//! whichever of an agent's voices comes first, no session is registered twice.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::sessions::{COLUMNS, Caller, Process, Record, free_id, get, insert, record, save, save_whereabouts};
use super::{StoreError, history};
use crate::domain::agent::{Candidate, Candidates, Report, Sign, Verdict, judge};
use crate::domain::{Column, Heartbeat, InstanceId, MachineName, Registration, Session, Status, Timestamp};

/// A report, and what is known of where it came from.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub report: Report,
    /// The agent's process, where it is known when that started.
    pub process: Option<Process>,
    pub host_machine: MachineName,
    /// Whether a process still runs.
    pub lives: fn(Process) -> bool,
}

/// What became of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighted {
    pub record: Record,
    /// The session began with this report.
    pub created: bool,
}

/// # Errors
/// `NotFound` for a report that begins nothing and tells of nothing known.
pub(super) fn sight(
    db: &Connection,
    sighting: Sighting,
    caller: Caller,
    draws: &[u64],
    at: Timestamp,
    stale_after: Duration,
) -> Result<Sighted, StoreError> {
    let known = candidates(db, &sighting, caller)?;
    let by_process = known.by_process.clone();
    let report = &sighting.report;
    let tells_who = report.claude_session_uuid.is_some() || sighting.process.is_some();
    let (id, created) = match judge(report.sign, tells_who, known) {
        Verdict::TakeUp(id) => (take_up(db, id, &sighting, at, stale_after)?, false),
        Verdict::Close(id) => (end(db, id, at)?, false),
        Verdict::Abandon(id) => {
            leave(db, &id, at)?;
            (id, false)
        }
        Verdict::Leave(id) => (id, false),
        Verdict::Begin { resumed_from } => (begin(db, &sighting, resumed_from, caller, draws, at)?, true),
        Verdict::Unknown => return Err(StoreError::NotFound(report.claude_session_uuid.clone().unwrap_or_default())),
    };
    if let Some(left) = by_process.filter(|other| other.id != id) {
        leave(db, &left.id, at)?;
    }
    remember(db, &sighting, &id)?;
    keep_promise(db, report.promised_id.as_ref(), &id, at)?;
    Ok(Sighted { record: existing(db, id.as_str())?, created })
}

fn existing(db: &Connection, id: &str) -> Result<Record, StoreError> {
    get(db, id)?.ok_or_else(|| StoreError::NotFound(id.to_owned()))
}

fn candidates(db: &Connection, sighting: &Sighting, caller: Caller) -> Result<Candidates, StoreError> {
    let report = &sighting.report;
    let mut known = match &report.claude_session_uuid {
        Some(uuid) => by_uuid(db, uuid, sighting.process, caller)?,
        None => None,
    };
    // An id that was told tells as much as the agent's own.
    if let (None, Some(promised)) = (&known, &report.promised_id) {
        known = by_promise(db, promised, sighting.process, caller)?;
    }
    let by_process = match sighting.process {
        Some(process) => by_process(db, process, caller)?,
        None => None,
    };
    let by_folder = match (&report.working_dir, report.sign) {
        (Some(folder), Sign::Start(_)) => by_folder(db, folder, sighting, caller)?,
        _ => None,
    };
    Ok(Candidates { by_uuid: known, by_process, by_folder })
}

fn by_uuid(
    db: &Connection,
    uuid: &str,
    process: Option<Process>,
    caller: Caller,
) -> Result<Option<Candidate>, StoreError> {
    // A session that was registered under this id without a report is not in claude_ids. An open one first.
    let found = db
        .prepare_cached(
            "SELECT s.instance_id, s.status = 'closed' AS closed, coalesce(c.pid, s.pid), \
                 coalesce(c.pid_started, s.pid_started) \
             FROM sessions s LEFT JOIN claude_ids c ON c.uuid = ?1 AND c.instance_id = s.instance_id \
             WHERE s.instance_id IN (SELECT instance_id FROM claude_ids WHERE uuid = ?1 \
                 UNION SELECT instance_id FROM sessions WHERE claude_session_uuid = ?1) \
                 AND s.owner_uid = ?2 AND s.mirror_round IS NULL \
             ORDER BY closed, c.uuid IS NULL, s.created_at DESC LIMIT 1",
        )?
        .query_row(params![uuid, caller.uid], |row| {
            let id = super::sessions::parsed(row, 0, InstanceId::parse)?;
            let (pid, started): (Option<i32>, Option<i64>) = (row.get(2)?, row.get(3)?);
            Ok((id, row.get::<_, bool>(1)?, pid.zip(started).map(|(pid, started)| Process { pid, started })))
        })
        .optional()?;
    Ok(found.map(|(id, closed, last)| Candidate { id, closed, same_process: last.zip(process).map(|(a, b)| a == b) }))
}

fn by_promise(
    db: &Connection,
    promised: &InstanceId,
    process: Option<Process>,
    caller: Caller,
) -> Result<Option<Candidate>, StoreError> {
    let found = get(db, promised.as_str())?.filter(|r| r.owner_uid == caller.uid && !r.mirrored);
    Ok(found.map(|record| Candidate {
        closed: record.session.status == Status::Closed,
        id: record.session.instance_id,
        same_process: record.process.zip(process).map(|(a, b)| a == b),
    }))
}

fn by_process(db: &Connection, process: Process, caller: Caller) -> Result<Option<Candidate>, StoreError> {
    let found = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions s WHERE pid = ?1 AND pid_started = ?2 AND owner_uid = ?3 \
                 AND status <> 'closed' AND mirror_round IS NULL ORDER BY created_at DESC LIMIT 1"
        ))?
        .query_row(params![process.pid, process.started, caller.uid], record)
        .optional()?;
    Ok(found.map(|found| Candidate { id: found.session.instance_id, closed: false, same_process: Some(true) }))
}

/// Of the agent's sessions in a folder, how many are looked at for one without a process.
const RECENT: i64 = 50;

fn by_folder(
    db: &Connection,
    folder: &str,
    sighting: &Sighting,
    caller: Caller,
) -> Result<Option<Candidate>, StoreError> {
    let recent = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions s WHERE working_dir = ?1 AND owner_uid = ?2 AND mirror_round IS NULL \
                 AND claude_session_uuid IS NOT NULL ORDER BY last_heartbeat DESC, instance_id LIMIT ?3"
        ))?
        .query_map(params![folder, caller.uid, RECENT], record)?
        .collect::<Result<Vec<_>, _>>()?;
    let idle = recent.into_iter().find(|r| r.process.is_none_or(|process| !(sighting.lives)(process)));
    Ok(idle.map(|found| Candidate {
        closed: found.session.status == Status::Closed,
        id: found.session.instance_id,
        same_process: None,
    }))
}

fn take_up(
    db: &Connection,
    id: InstanceId,
    sighting: &Sighting,
    at: Timestamp,
    stale_after: Duration,
) -> Result<InstanceId, StoreError> {
    let mut record = existing(db, id.as_str())?;
    let report = &sighting.report;
    let before = record.session.clone();
    let beat = Heartbeat { context_percent: report.context_percent, current_epic: None };
    record.session.heartbeat(&beat, at, stale_after).map_err(|_| StoreError::Closed(id.to_string()))?;
    let starts = matches!(report.sign, Sign::Start(_));
    // Whoever merely lives does not take a session from another process that does.
    let free = record.process.is_none_or(|process| !(sighting.lives)(process));
    if let Some(process) = sighting.process.filter(|_| starts || free) {
        record.process = Some(process);
    }
    let session = &mut record.session;
    if report.claude_session_uuid.is_some() && (starts || !went_by(db, report, &id)?) {
        session.claude_session_uuid.clone_from(&report.claude_session_uuid);
        session.claude_session_path = report.claude_session_path.clone().or(session.claude_session_path.take());
    }
    if session.working_dir.is_none() {
        session.working_dir.clone_from(&report.working_dir);
    }
    record.change_columns_since(&before, at);
    if report.context_percent.is_some() {
        record.change_column(Column::ContextPercent, at);
    }
    if whereabouts(&record.session) != whereabouts(&before) {
        save_whereabouts(db, &record)?;
    }
    save(db, &mut record, at)?;
    history::context_changed(db, &id, (before.context_percent, record.session.context_percent))?;
    Ok(id)
}

fn whereabouts(session: &Session) -> [&Option<String>; 3] {
    [&session.claude_session_uuid, &session.claude_session_path, &session.working_dir]
}

/// Is the id that a report gives one that the session already has, or had and gave up?
fn went_by(db: &Connection, report: &Report, id: &InstanceId) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM claude_ids WHERE uuid = ?1 AND instance_id = ?2)")?
        .query_row(params![report.claude_session_uuid, id.as_str()], |row| row.get(0))?)
}

fn end(db: &Connection, id: InstanceId, at: Timestamp) -> Result<InstanceId, StoreError> {
    let mut record = existing(db, id.as_str())?;
    if record.session.close(at) {
        record.process = None;
        save(db, &mut record, at)?;
    }
    Ok(id)
}

/// The session's process has gone on to another session: nothing runs it any more.
fn leave(db: &Connection, id: &InstanceId, at: Timestamp) -> Result<(), StoreError> {
    let mut record = existing(db, id.as_str())?;
    if record.session.status != Status::Closed {
        record.process = None;
        record.session.status = Status::Stale;
        save(db, &mut record, at)?;
    }
    Ok(())
}

fn begin(
    db: &Connection,
    sighting: &Sighting,
    resumed_from: Option<InstanceId>,
    caller: Caller,
    draws: &[u64],
    at: Timestamp,
) -> Result<InstanceId, StoreError> {
    let report = &sighting.report;
    let promised = match &report.promised_id {
        // The rules may make it a session of another type than was promised; the id tells the type.
        Some(id) if id.names(&report.project, report.instance_type) && get(db, id.as_str())?.is_none() => Some(id),
        _ => None,
    };
    let instance_id = match promised {
        Some(id) => id.clone(),
        None => free_id(db, &report.project, report.instance_type, draws)?,
    };
    let what = Registration {
        project: report.project.clone(),
        instance_type: report.instance_type,
        host_machine: sighting.host_machine.clone(),
        context_percent: report.context_percent.unwrap_or(0),
        current_epic: None,
        claude_session_uuid: report.claude_session_uuid.clone(),
        claude_session_path: report.claude_session_path.clone(),
        resumed_from,
        working_dir: report.working_dir.clone(),
    };
    insert(db, &Record::begun(Session::register(instance_id.clone(), what, at), sighting.process, caller, at))?;
    Ok(instance_id)
}

/// Notes that the agent's own id leads to this session, and who used it.
fn remember(db: &Connection, sighting: &Sighting, id: &InstanceId) -> Result<(), StoreError> {
    let Some(uuid) = &sighting.report.claude_session_uuid else { return Ok(()) };
    db.prepare_cached(
        "INSERT INTO claude_ids (uuid, instance_id, pid, pid_started) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (uuid) DO UPDATE SET instance_id = excluded.instance_id, \
             pid = coalesce(excluded.pid, pid), pid_started = coalesce(excluded.pid_started, pid_started) \
         WHERE (instance_id, pid, pid_started) IS NOT (excluded.instance_id, coalesce(excluded.pid, pid), \
             coalesce(excluded.pid_started, pid_started))",
    )?
    .execute(params![uuid, id.as_str(), sighting.process.map(|p| p.pid), sighting.process.map(|p| p.started)])?;
    Ok(())
}

/// An id that the agent was told while nobody could be asked goes on leading to its session.
pub(super) fn keep_promise(
    db: &Connection,
    promised: Option<&InstanceId>,
    id: &InstanceId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let Some(promised) = promised.filter(|promised| *promised != id) else { return Ok(()) };
    if get(db, promised.as_str())?.is_some() {
        return Ok(());
    }
    db.prepare_cached("INSERT OR IGNORE INTO aliases (old_id, instance_id, made_at) VALUES (?1, ?2, ?3)")?
        .execute(params![promised.as_str(), id.as_str(), at.micros()])?;
    Ok(())
}
