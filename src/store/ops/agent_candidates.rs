//! Which sessions an agent's report may belong to: by the agent's own id, by process, by the session that runs the agent,
//! and by folder.

use crate::domain::Process;
use rusqlite::{OptionalExtension, params};

use crate::domain::agent::{AgentName, AgentSignal, SessionCandidate, SessionCandidates, StartSource, ValidReport};
use crate::domain::{InstanceId, MachineName, Status, Timestamp};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::tables::agent_ids::Use;
use crate::store::tables::columns::OURS;
use crate::store::tables::session_record::Record;
use crate::store::tables::sessions::COLUMNS;
use crate::store::tables::{agent_ids, sessions};

/// A report, and what is known of where it came from.
#[derive(Clone, Debug)]
pub struct ReceivedReport {
    pub(crate) report: ValidReport,
    /// The agent's process, where it is known when that started.
    pub process: Option<Process>,
    pub(crate) host_machine: MachineName,
    /// Whether a process still runs.
    pub lives: fn(Process) -> bool,
    /// The present time, also for a report that was made earlier and spooled.
    pub now: Timestamp,
}

pub(in crate::store) fn candidates(op: &Op<'_>, received: &ReceivedReport) -> Result<SessionCandidates, StoreError> {
    let report = &received.report;
    let mut known = match report.conversation() {
        Some(conversation) => by_conversation(op, &conversation, received)?,
        None => None,
    };
    // An id that was given to the agent identifies as its own does.
    if let (None, Some(promised)) = (&known, &report.promised_id) {
        known = by_id(op, promised, received)?;
    }
    let by_process = match received.process {
        Some(process) if report.owns_process() => by_process(op, process, received)?,
        _ => None,
    };
    let outer = match &report.outer_id {
        Some(id) => outer(op, id, received)?,
        None => None,
    };
    let by_folder = match (&report.working_dir, report.sign, received.process) {
        (Some(folder), AgentSignal::Start(StartSource::Clear | StartSource::Compact), None) => {
            by_folder(op, folder, received)?
        }
        _ => None,
    };
    Ok(SessionCandidates { by_conversation: known, by_process, outer, by_folder })
}

impl ReceivedReport {
    /// Whether the session is of the agent that reports, as far as both are known.
    fn is_of_agent(&self, record: &Record) -> bool {
        record.agent().zip(self.report.agent).is_none_or(|(known, reporting)| known == reporting)
    }

    /// Whether this process lives and is another than the one that reports.
    pub(in crate::store) fn is_other(&self, process: Option<Process>) -> bool {
        let reporting = self.process;
        process.is_some_and(|other| reporting.is_some_and(|own| own != other) && (self.lives)(other))
    }
}

/// A session as the one that a report may belong to; `used` is where the id that led here is used.
fn candidate(found: Record, used: Option<Use>, received: &ReceivedReport) -> SessionCandidate {
    let used = used.unwrap_or_default();
    let same_project = found.session.claude_session_uuid.is_none() || found.session.project == received.report.project;
    let (current, reported) = (found.conversation(), received.report.conversation());
    let last = used.process.or(found.process);
    SessionCandidate {
        id: found.session.instance_id,
        closed: found.session.status == Status::Closed,
        same_process: last.zip(received.process).map(|(last, reporting)| last == reporting),
        is_current: current.is_none() || reported.is_none() || current == reported,
        is_left: used.is_left,
        runs_elsewhere: received.is_other(found.process) || received.is_other(used.process),
        same_project,
    }
}

fn by_conversation(
    op: &Op<'_>,
    conversation: &str,
    received: &ReceivedReport,
) -> Result<Option<SessionCandidate>, StoreError> {
    // A session that was registered under this id without a report is not in claude_ids. An open one first.
    let found = op
        .db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions s LEFT JOIN claude_ids c ON c.uuid = ?1 AND c.instance_id = s.instance_id \
             WHERE s.instance_id IN (SELECT instance_id FROM claude_ids WHERE uuid = ?1 \
                 UNION SELECT instance_id FROM sessions r WHERE claude_session_uuid = ?3 AND ?4 = ifnull((SELECT \
                     summary ->> 'agent' FROM session_work w WHERE w.instance_id = r.instance_id), ?5)) \
                 AND s.owner_uid = ?2 AND s.{OURS} \
             ORDER BY s.status = 'closed', c.uuid IS NULL, s.created_at DESC LIMIT 1"
        ))?
        .query_row(
            params![
                conversation,
                op.caller.uid,
                received.report.claude_session_uuid,
                received.report.agent.unwrap_or(AgentName::ClaudeCode).as_str(),
                AgentName::ClaudeCode.as_str(),
            ],
            sessions::read_record,
        )
        .optional()?;
    let Some(found) = found else { return Ok(None) };
    let used = agent_ids::use_of(op.db, Some(conversation), &found.session.instance_id)?;
    Ok(Some(candidate(found, used, received)))
}

fn by_id(op: &Op<'_>, id: &InstanceId, received: &ReceivedReport) -> Result<Option<SessionCandidate>, StoreError> {
    let found = own(op, id)?;
    Ok(found.map(|found| candidate(found, None, received)))
}

fn by_process(
    op: &Op<'_>,
    process: Process,
    received: &ReceivedReport,
) -> Result<Option<SessionCandidate>, StoreError> {
    let found = op
        .db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions s WHERE pid = ?1 AND pid_started = ?2 AND owner_uid = ?3 \
                 AND status <> 'closed' AND {OURS} ORDER BY created_at DESC LIMIT 1"
        ))?
        .query_row(params![process.pid, process.started, op.caller.uid], sessions::read_record)
        .optional()?;
    let found = found.map_or_else(|| by_further_process(op, process), |found| Ok(Some(found)))?;
    let Some(found) = found.filter(|found| received.is_of_agent(found)) else { return Ok(None) };
    let used = agent_ids::use_of(op.db, found.conversation().as_deref(), &found.session.instance_id)?;
    Ok(Some(candidate(found, used, received)))
}

/// The session whose conversation this process uses while another one is watched, such as a shell that started it.
fn by_further_process(op: &Op<'_>, process: Process) -> Result<Option<Record>, StoreError> {
    Ok(op
        .db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM session_processes p JOIN sessions s ON s.instance_id = p.instance_id \
                 JOIN claude_ids c ON c.instance_id = s.instance_id \
                     AND substr(c.uuid, instr(c.uuid, char(31)) + 1) = s.claude_session_uuid \
             WHERE p.pid = ?1 AND p.pid_started = ?2 AND c.pid = ?1 AND c.pid_started = ?2 AND s.owner_uid = ?3 \
                 AND s.status <> 'closed' AND s.{OURS} LIMIT 1"
        ))?
        .query_row(params![process.pid, process.started, op.caller.uid], sessions::read_record)
        .optional()?)
}

/// The session of the program that runs the agent, unless another conversation runs in it: that of an agent which
/// started this one.
fn outer(op: &Op<'_>, id: &InstanceId, received: &ReceivedReport) -> Result<Option<SessionCandidate>, StoreError> {
    let Some(found) = own(op, id)?.filter(|found| found.session.status != Status::Closed) else { return Ok(None) };
    let Some(current) = found.conversation() else { return Ok(Some(candidate(found, None, received))) };
    let used = agent_ids::use_of(op.db, Some(&current), id)?;
    let ended = used.is_some_and(|used| used.is_left || used.process.is_some_and(|process| !(received.lives)(process)));
    Ok(ended.then(|| candidate(found, used, received)))
}

/// The caller's session with this id, if it is of this host.
fn own(op: &Op<'_>, id: &InstanceId) -> Result<Option<Record>, StoreError> {
    Ok(sessions::get(op.db, id.as_str())?.filter(|record| record.owner_uid == op.caller.uid && !record.mirrored))
}

/// Of the agent's sessions in a folder, how many are looked at for one without a process.
const RECENT: i64 = 50;

fn by_folder(op: &Op<'_>, folder: &str, received: &ReceivedReport) -> Result<Option<SessionCandidate>, StoreError> {
    let recent = op
        .db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions s WHERE working_dir = ?1 AND owner_uid = ?2 AND {OURS} \
                 AND claude_session_uuid IS NOT NULL ORDER BY last_heartbeat DESC, instance_id LIMIT ?3"
        ))?
        .query_map(params![folder, op.caller.uid, RECENT], sessions::read_record)?
        .collect::<Result<Vec<_>, _>>()?;
    let is_idle = |record: &Record| record.process.is_none_or(|process| !(received.lives)(process));
    let idle = recent.into_iter().find(|record| received.is_of_agent(record) && is_idle(record));
    Ok(idle.map(|found| candidate(found, None, received)))
}
