//! Agents' reports in SQLite: the session that one belongs to is found and changed in one transaction, so that no
//! session is registered twice, whichever of an agent's reports comes first.
//!
//! Three tables say what runs a session. `sessions.pid` is the process that is watched. `claude_ids` has every id of
//! the agent's own that led to a session, with the process that uses the conversation and whether it was left.
//! `session_processes` has further processes that opened the same conversation; the next of them is watched when the
//! first ends.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::sessions::{COLUMNS, Caller, Process, Record, free_id, get, insert, record, save, save_whereabouts};
use super::turns::ROWS;
use super::{StoreError, history, promises};
use crate::domain::agent::{Candidate, Candidates, Kind, Report, Sign, Source, Verdict, resolve};
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
    /// Another process than before is to be watched.
    pub process_changed: bool,
}

/// # Errors
/// `NotFound` for a report that begins nothing and belongs to no known session.
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
    let identifies = report.claude_session_uuid.is_some() || sighting.process.is_some();
    let verdict = resolve(report.sign, identifies, known);
    let (id, runs, created) = match &verdict {
        Verdict::Adopt(id) => (id.clone(), true, false),
        Verdict::Begin { resumed_from } => (begin(db, &sighting, resumed_from.clone(), caller, draws, at)?, true, true),
        Verdict::Close(id) | Verdict::Abandon(id) | Verdict::Ignore(id) => (id.clone(), false, false),
        Verdict::Unknown => return Err(StoreError::NotFound(report.claude_session_uuid.clone().unwrap_or_default())),
    };
    let before = existing(db, id.as_str())?.process;
    match &verdict {
        Verdict::Adopt(id) => adopt(db, id, &sighting, at, stale_after)?,
        Verdict::Close(id) | Verdict::Abandon(id) => end(db, id, &sighting, at)?,
        _ => {}
    }
    if let (false, Some(process)) = (runs, sighting.process) {
        forget_process(db, Some(&id), process)?;
    }
    if runs {
        if let Some(other) = by_process.filter(|other| other.id != id) {
            leave(db, &other.id, at)?;
        }
        remember(db, &sighting, &id)?;
        note_kind(db, &sighting, &id)?;
        promises::keep(db, report.promised_id.as_ref(), &id, caller, at)?;
    }
    let record = existing(db, id.as_str())?;
    Ok(Sighted { process_changed: record.process != before || created, record, created })
}

fn existing(db: &Connection, id: &str) -> Result<Record, StoreError> {
    get(db, id)?.ok_or_else(|| StoreError::NotFound(id.to_owned()))
}

fn candidates(db: &Connection, sighting: &Sighting, caller: Caller) -> Result<Candidates, StoreError> {
    let report = &sighting.report;
    let mut known = match &report.claude_session_uuid {
        Some(uuid) => by_uuid(db, uuid, sighting, caller)?,
        None => None,
    };
    // An id that was given to the agent identifies as its own does.
    if let (None, Some(promised)) = (&known, &report.promised_id) {
        known = by_id(db, promised, sighting, caller)?;
    }
    let by_process = match sighting.process {
        Some(process) => by_process(db, process, sighting, caller)?,
        None => None,
    };
    let outer = match &report.outer_id {
        Some(id) => outer(db, id, sighting, caller)?,
        None => None,
    };
    let by_folder = match (&report.working_dir, report.sign, sighting.process) {
        (Some(folder), Sign::Start(Source::Clear | Source::Compact), None) => by_folder(db, folder, sighting, caller)?,
        _ => None,
    };
    Ok(Candidates { by_uuid: known, by_process, outer, by_folder })
}

/// Where one of the agent's own ids led.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    /// The process that uses the conversation.
    process: Option<Process>,
    is_left: bool,
}

fn use_of(db: &Connection, uuid: Option<&str>, id: &InstanceId) -> Result<Option<Use>, StoreError> {
    Ok(db
        .prepare_cached("SELECT pid, pid_started, is_left FROM claude_ids WHERE uuid = ?1 AND instance_id = ?2")?
        .query_row(params![uuid, id.as_str()], |row| {
            let process = row.get::<_, Option<i32>>(0)?.zip(row.get(1)?);
            Ok(Use { process: process.map(|(pid, started)| Process { pid, started }), is_left: row.get(2)? })
        })
        .optional()?)
}

impl Sighting {
    /// Whether this process lives and is another than the one that reports.
    fn is_other(&self, process: Option<Process>) -> bool {
        let reporting = self.process;
        process.is_some_and(|other| reporting.is_some_and(|own| own != other) && (self.lives)(other))
    }
}

/// A session as the one that a report may belong to; `used` is where the id that led here is used.
fn candidate(found: Record, used: Option<Use>, sighting: &Sighting) -> Candidate {
    let used = used.unwrap_or_default();
    let same_project = found.session.claude_session_uuid.is_none() || found.session.project == sighting.report.project;
    let current = found.session.claude_session_uuid;
    let reported = &sighting.report.claude_session_uuid;
    let last = used.process.or(found.process);
    Candidate {
        id: found.session.instance_id,
        closed: found.session.status == Status::Closed,
        same_process: last.zip(sighting.process).map(|(last, reporting)| last == reporting),
        is_current: current.is_none() || reported.is_none() || current == *reported,
        is_left: used.is_left,
        runs_elsewhere: sighting.is_other(found.process) || sighting.is_other(used.process),
        same_project,
    }
}

fn by_uuid(db: &Connection, uuid: &str, sighting: &Sighting, caller: Caller) -> Result<Option<Candidate>, StoreError> {
    // A session that was registered under this id without a report is not in claude_ids. An open one first.
    let found = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions s LEFT JOIN claude_ids c ON c.uuid = ?1 AND c.instance_id = s.instance_id \
             WHERE s.instance_id IN (SELECT instance_id FROM claude_ids WHERE uuid = ?1 \
                 UNION SELECT instance_id FROM sessions WHERE claude_session_uuid = ?1) \
                 AND s.owner_uid = ?2 AND s.mirror_round IS NULL \
             ORDER BY s.status = 'closed', c.uuid IS NULL, s.created_at DESC LIMIT 1"
        ))?
        .query_row(params![uuid, caller.uid], record)
        .optional()?;
    let Some(found) = found else { return Ok(None) };
    let used = use_of(db, Some(uuid), &found.session.instance_id)?;
    Ok(Some(candidate(found, used, sighting)))
}

fn by_id(
    db: &Connection,
    id: &InstanceId,
    sighting: &Sighting,
    caller: Caller,
) -> Result<Option<Candidate>, StoreError> {
    let found = get(db, id.as_str())?.filter(|r| r.owner_uid == caller.uid && !r.mirrored);
    Ok(found.map(|found| candidate(found, None, sighting)))
}

fn by_process(
    db: &Connection,
    process: Process,
    sighting: &Sighting,
    caller: Caller,
) -> Result<Option<Candidate>, StoreError> {
    let found = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions s WHERE pid = ?1 AND pid_started = ?2 AND owner_uid = ?3 \
                 AND status <> 'closed' AND mirror_round IS NULL ORDER BY created_at DESC LIMIT 1"
        ))?
        .query_row(params![process.pid, process.started, caller.uid], record)
        .optional()?;
    let Some(found) = found.map_or_else(|| by_further_process(db, process, caller), |found| Ok(Some(found)))? else {
        return Ok(None);
    };
    let used = use_of(db, found.session.claude_session_uuid.as_deref(), &found.session.instance_id)?;
    Ok(Some(candidate(found, used, sighting)))
}

/// The session whose conversation this process uses while another one is watched, such as a shell that started it.
fn by_further_process(db: &Connection, process: Process, caller: Caller) -> Result<Option<Record>, StoreError> {
    Ok(db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM session_processes p JOIN sessions s ON s.instance_id = p.instance_id \
                 JOIN claude_ids c ON c.uuid = s.claude_session_uuid AND c.instance_id = s.instance_id \
             WHERE p.pid = ?1 AND p.pid_started = ?2 AND c.pid = ?1 AND c.pid_started = ?2 AND s.owner_uid = ?3 \
                 AND s.status <> 'closed' AND s.mirror_round IS NULL LIMIT 1"
        ))?
        .query_row(params![process.pid, process.started, caller.uid], record)
        .optional()?)
}

/// The session of the program that runs the agent, unless another conversation runs in it: that of an agent which
/// started this one.
fn outer(
    db: &Connection,
    id: &InstanceId,
    sighting: &Sighting,
    caller: Caller,
) -> Result<Option<Candidate>, StoreError> {
    let found = get(db, id.as_str())?.filter(|r| r.owner_uid == caller.uid && !r.mirrored);
    let Some(found) = found.filter(|found| found.session.status != Status::Closed) else { return Ok(None) };
    let Some(current) = &found.session.claude_session_uuid else { return Ok(Some(candidate(found, None, sighting))) };
    let used = use_of(db, Some(current), id)?;
    let ended = used.is_some_and(|used| used.is_left || used.process.is_some_and(|process| !(sighting.lives)(process)));
    Ok(ended.then(|| candidate(found, used, sighting)))
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
    Ok(idle.map(|found| candidate(found, None, sighting)))
}

/// Applies a report of a process that runs the session.
fn adopt(
    db: &Connection,
    id: &InstanceId,
    sighting: &Sighting,
    at: Timestamp,
    stale_after: Duration,
) -> Result<(), StoreError> {
    let mut record = existing(db, id.as_str())?;
    let before = record.clone();
    let report = &sighting.report;
    let beat = Heartbeat { context_percent: report.context_percent, current_epic: None };
    record.session.heartbeat(&beat, at, stale_after).map_err(|_| StoreError::Closed(id.to_string()))?;
    if let Some(process) = sighting.process {
        if sighting.is_other(before.process) {
            note_process(db, id, process)?;
        } else {
            record.process = Some(process);
            forget_process(db, None, process)?;
        }
    }
    follow(db, &mut record.session, sighting, before.process)?;
    record.change_columns_since(&before.session, at);
    if report.context_percent.is_some() {
        record.change_column(Column::ContextPercent, at);
    }
    if whereabouts(&record.session) != whereabouts(&before.session) {
        save_whereabouts(db, &record)?;
    }
    save(db, &mut record, at)?;
    history::context_changed(db, id, (before.session.context_percent, record.session.context_percent))?;
    Ok(())
}

/// Follows the agent to another conversation, transcript or folder, unless another process uses the conversation.
fn follow(
    db: &Connection,
    session: &mut Session,
    sighting: &Sighting,
    watched: Option<Process>,
) -> Result<(), StoreError> {
    let report = &sighting.report;
    let current = session.claude_session_uuid.clone();
    let running = use_of(db, current.as_deref(), &session.instance_id)?.unwrap_or_default();
    if sighting.is_other(running.process) {
        return Ok(());
    }
    if report.claude_session_uuid.is_some() && report.claude_session_uuid != current {
        let known = use_of(db, report.claude_session_uuid.as_deref(), &session.instance_id)?;
        let becomes_current = match report.sign {
            // A process starts once: under two ids one is a throw-away, and heartbeats tell which.
            Sign::Start(Source::Startup) => current.is_none() || watched.is_none() || watched != sighting.process,
            Sign::Start(_) => true,
            _ => known.is_none_or(|known| !known.is_left) && report.sign != Sign::Leave,
        };
        if !becomes_current {
            return Ok(());
        }
        if matches!(report.sign, Sign::Start(_)) {
            mark_left(db, current.as_deref(), &session.instance_id)?;
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
fn move_to(session: &mut Session, report: &Report) {
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
fn end(db: &Connection, id: &InstanceId, sighting: &Sighting, at: Timestamp) -> Result<(), StoreError> {
    let mut record = existing(db, id.as_str())?;
    let before = record.session.clone();
    move_to(&mut record.session, &sighting.report);
    record.change_columns_since(&before, at);
    if whereabouts(&record.session) != whereabouts(&before) {
        save_whereabouts(db, &record)?;
    }
    if let Some(process) = sighting.process {
        forget_process(db, Some(id), process)?;
    }
    record.process = other_process(db, id, sighting.lives)?;
    if record.process.is_none() {
        mark_left(db, record.session.claude_session_uuid.as_deref(), id)?;
        match sighting.report.sign {
            Sign::Gone => record.session.status = Status::Stale,
            _ => {
                record.session.close(at);
            }
        }
    }
    save(db, &mut record, at)
}

/// The session's process continues another session: nothing runs this one any more.
fn leave(db: &Connection, id: &InstanceId, at: Timestamp) -> Result<(), StoreError> {
    let mut record = existing(db, id.as_str())?;
    if record.session.status != Status::Closed {
        record.process = next_process(db, id)?;
        if record.process.is_none() {
            record.session.status = Status::Stale;
        }
        save(db, &mut record, at)?;
    }
    Ok(())
}

fn note_process(db: &Connection, id: &InstanceId, process: Process) -> Result<(), StoreError> {
    db.prepare_cached("INSERT OR IGNORE INTO session_processes (instance_id, pid, pid_started) VALUES (?1, ?2, ?3)")?
        .execute(params![id.as_str(), process.pid, process.started])?;
    Ok(())
}

/// The process runs this session, or any, no more beside the one that is watched.
fn forget_process(db: &Connection, id: Option<&InstanceId>, process: Process) -> Result<(), StoreError> {
    db.prepare_cached(
        "DELETE FROM session_processes WHERE pid = ?2 AND pid_started = ?3 AND (?1 IS NULL OR instance_id = ?1)",
    )?
    .execute(params![id.map(InstanceId::as_str), process.pid, process.started])?;
    Ok(())
}

/// Takes the next process that opened the same conversation, which may have ended since.
pub(super) fn next_process(db: &Connection, id: &InstanceId) -> Result<Option<Process>, StoreError> {
    let next = db
        .prepare_cached("SELECT pid, pid_started FROM session_processes WHERE instance_id = ?1 LIMIT 1")?
        .query_row([id.as_str()], |row| Ok(Process { pid: row.get(0)?, started: row.get(1)? }))
        .optional()?;
    if let Some(process) = next {
        forget_process(db, Some(id), process)?;
    }
    Ok(next)
}

fn other_process(db: &Connection, id: &InstanceId, lives: fn(Process) -> bool) -> Result<Option<Process>, StoreError> {
    loop {
        match next_process(db, id)? {
            Some(process) if !lives(process) => {}
            next => return Ok(next),
        }
    }
}

fn mark_left(db: &Connection, uuid: Option<&str>, id: &InstanceId) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE claude_ids SET is_left = 1 WHERE uuid = ?1 AND instance_id = ?2 AND is_left = 0")?
        .execute(params![uuid, id.as_str()])?;
    Ok(())
}

/// Notes how the agent runs. One prompt to a conversation does not make an interactive session a headless one.
fn note_kind(db: &Connection, sighting: &Sighting, id: &InstanceId) -> Result<(), StoreError> {
    let Some(kind) = sighting.report.kind else { return Ok(()) };
    let headless = Kind::Headless.as_str();
    db.prepare_cached(
        "UPDATE sessions SET kind = ?2 WHERE instance_id = ?1 AND kind IS NOT ?2 AND (kind IS NULL OR ?2 <> ?3)",
    )?
    .execute(params![id.as_str(), kind.as_str(), headless])?;
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
        Some(id) if id.names(&report.project, report.instance_type) && promises::may_begin(db, id)? => Some(id),
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

/// Condition on a session `s` that it is a headless one whose last heartbeat was before ?2. Nobody resumes one prompt.
const IS_ABANDONED: &str = "mirror_round IS NULL AND status = 'stale' AND kind = ?1 AND last_heartbeat < ?2";

/// What a turn of [`close_headless`] did.
pub(super) struct HeadlessTurn {
    pub closed: usize,
    /// The row behind which the next turn continues; none if no stale session is left.
    pub next: Option<i64>,
}

/// Closes headless sessions that were killed long ago, as only what is closed is pruned. A turn examines at most
/// [`ROWS`] stale sessions behind `after_row`.
pub(super) fn close_headless(
    db: &Connection,
    silent_since: Timestamp,
    after_row: i64,
    at: Timestamp,
) -> Result<HeadlessTurn, StoreError> {
    let examined: Vec<i64> = db
        .prepare_cached(
            "SELECT rowid FROM sessions INDEXED BY sessions_ended WHERE mirror_round IS NULL AND status <> 'active' \
                 AND status = 'stale' AND closed_at IS NULL AND rowid > ?1 ORDER BY rowid LIMIT ?2",
        )?
        .query_map([after_row, ROWS as i64], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut find =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions s WHERE rowid = ?3 AND {IS_ABANDONED}"))?;
    let mut closed = 0;
    for row in &examined {
        let key = params![Kind::Headless.as_str(), silent_since.micros(), row];
        if let Some(mut found) = find.query_row(key, record).optional()? {
            found.session.close(at);
            found.process = None;
            save(db, &mut found, at)?;
            closed += 1;
        }
    }
    let next = examined.last().copied().filter(|_| examined.len() == ROWS);
    Ok(HeadlessTurn { closed, next })
}

/// Notes that the agent's own id leads to this session, and which process uses it.
fn remember(db: &Connection, sighting: &Sighting, id: &InstanceId) -> Result<(), StoreError> {
    let Some(uuid) = &sighting.report.claude_session_uuid else { return Ok(()) };
    let known = use_of(db, Some(uuid), id)?;
    let before = known.unwrap_or_default();
    let process = if sighting.is_other(before.process) { before.process } else { sighting.process.or(before.process) };
    let is_left = match sighting.report.sign {
        Sign::Start(_) => false,
        Sign::Leave => !sighting.is_other(before.process),
        _ => before.is_left,
    };
    if known.is_some() && process == before.process && is_left == before.is_left {
        return Ok(());
    }
    // The id moves to this session, but never away from another user's.
    db.prepare_cached(
        "DELETE FROM claude_ids WHERE uuid = ?1 AND instance_id <> ?2 AND NOT EXISTS \
             (SELECT 1 FROM sessions other, sessions own WHERE other.instance_id = claude_ids.instance_id \
                 AND own.instance_id = ?2 AND other.mirror_round IS NULL AND other.owner_uid <> own.owner_uid)",
    )?
    .execute(params![uuid, id.as_str()])?;
    db.prepare_cached(
        "INSERT INTO claude_ids (uuid, instance_id, pid, pid_started, is_left) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (uuid) DO UPDATE SET pid = ?3, pid_started = ?4, is_left = ?5 WHERE instance_id = ?2",
    )?
    .execute(params![uuid, id.as_str(), process.map(|p| p.pid), process.map(|p| p.started), is_left])?;
    Ok(())
}
