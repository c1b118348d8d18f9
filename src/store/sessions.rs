//! Sessions in SQLite: what clients do to them and ask of them.
//!
//! Every function works inside a transaction that somebody else began and will commit.

use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::{self, ColumnChanges};
use super::writer::all_or_nothing;
use super::{Counts, StoreError, agents, history};
use crate::domain::{
    Column, Heartbeat, InstanceId, InstanceType, MachineName, Project, Registration, Session, Status, Timestamp,
};

/// A process on this host that a session belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pub pid: i32,
    /// When it started, in the platform's own unit: the guard against a reused pid.
    pub started: i64,
}

/// A session as this host keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub session: Session,
    /// Who registered it.
    pub owner_uid: u32,
    pub process: Option<Process>,
    /// Grows with every local change.
    pub version: i64,
    /// The newest version that central acknowledged; 0: none, so that all columns are offered.
    pub synced_version: i64,
    /// Which version changed each shared column, and when.
    pub columns: ColumnChanges,
    /// When the oldest change that central lacks was made.
    pub unsynced_since: Option<Timestamp>,
    /// It is another host's, as central last told of it.
    pub mirrored: bool,
    /// When the daemon of its machine last spoke to central, for a mirrored session; never, for a machine without.
    pub machine_seen: Option<Timestamp>,
    /// The id under which this session was registered, where central's owner of that id was another.
    pub former_id: Option<String>,
    /// Its context window is nearly full, and it made no checkpoint since; told by a heartbeat alone.
    pub checkpoint_due: bool,
}

impl Record {
    /// A session that begins here.
    pub(super) fn begun(session: Session, process: Option<Process>, caller: Caller, at: Timestamp) -> Self {
        Self {
            session,
            owner_uid: caller.uid,
            process,
            version: 1,
            synced_version: 0,
            columns: ColumnChanges::begun(at),
            unsynced_since: Some(at),
            mirrored: false,
            machine_seen: None,
            former_id: None,
            checkpoint_due: false,
        }
    }
}

/// Who asks for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
}

/// What an id, or the beginning of one, leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    One(Box<Record>),
    /// Up to [`CANDIDATES`], most recent heartbeat first.
    Several(Vec<Record>),
    None,
}

/// How many candidates an ambiguous prefix shows.
pub const CANDIDATES: usize = 10;

/// Which sessions a list shows; everything that is `None` does not filter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub project: Option<Project>,
    pub machine: Option<MachineName>,
    pub status: Option<Status>,
    /// Only sessions of this host.
    pub local: bool,
    /// Closed sessions are listed only if they ended after this moment.
    pub closed_since: Option<Timestamp>,
}

impl Filter {
    /// Does it let this session through, whatever its state?
    pub fn fits(&self, record: &Record) -> bool {
        self.project.as_ref().is_none_or(|project| *project == record.session.project)
            && self.machine.as_ref().is_none_or(|machine| *machine == record.session.host_machine)
            && !(self.local && record.mirrored)
    }
}

macro_rules! columns {
    () => {
        "s.instance_id, s.project, s.instance_type, s.status, s.context_percent, s.current_epic, \
         s.last_heartbeat, s.created_at, s.closed_at, s.host_machine, s.claude_session_uuid, s.claude_session_path, \
         s.resumed_from, s.working_dir, s.owner_uid, s.pid, s.pid_started, s.version, s.unsynced_since, s.mirror_round, \
         CASE WHEN s.mirror_round IS NOT NULL \
             THEN (SELECT last_seen FROM hosts h WHERE h.host_machine = s.host_machine) END, \
         (SELECT old_id FROM aliases a WHERE a.instance_id = s.instance_id ORDER BY made_at LIMIT 1), \
         s.column_changes, s.synced_version"
    };
}

/// What [`record`] reads.
pub(super) const COLUMNS: &str = columns!();

/// A constant, as every heartbeat begins with it.
pub(super) const GET: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM sessions s WHERE instance_id = coalesce((SELECT instance_id FROM aliases WHERE old_id = ?1), ?1)"
);

pub(super) fn register(
    db: &Connection,
    what: Registration,
    process: Option<Process>,
    caller: Caller,
    draws: &[u64],
    at: Timestamp,
) -> Result<Record, StoreError> {
    let instance_id = free_id(db, &what.project, what.instance_type, draws)?;
    let record = Record::begun(Session::register(instance_id, what, at), process, caller, at);
    insert(db, &record)?;
    history::context_changed(db, &record.session.instance_id, (0, record.session.context_percent))?;
    Ok(record)
}

/// The first of the drawn ids that nothing here goes by.
pub(super) fn free_id(
    db: &Connection,
    project: &Project,
    kind: InstanceType,
    draws: &[u64],
) -> Result<InstanceId, StoreError> {
    for &random in draws {
        let id = InstanceId::draw(project, kind, random);
        let taken: bool = db
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM sessions WHERE instance_id = ?1) \
                     OR EXISTS (SELECT 1 FROM aliases WHERE old_id = ?1)",
            )?
            .query_row([id.as_str()], |row| row.get(0))?;
        if !taken {
            return Ok(id);
        }
    }
    Err(StoreError::Bug(format!("none of {} drawn ids was free", draws.len())))
}

/// The session as it is then, and whether the heartbeat was more than a sign of life. Undoes itself when it fails.
pub(super) fn heartbeat(
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
        record.change_column(Column::ContextPercent, at);
    }
    if beat.current_epic.is_some() {
        record.change_column(Column::CurrentEpic, at);
    }
    let context = (before.context_percent, record.session.context_percent);
    if history::is_noted(context) {
        record.checkpoint_due = all_or_nothing(db, || {
            save(db, &mut record, at)?;
            history::context_changed(db, &record.session.instance_id, context)
        })?;
    } else {
        save(db, &mut record, at)?;
    }
    before.last_heartbeat = record.session.last_heartbeat;
    let is_news = before != record.session;
    Ok((record, is_news))
}

pub(super) fn close(db: &Connection, id: &str, caller: Caller, at: Timestamp) -> Result<Record, StoreError> {
    if let Some(over) = get(db, id)?.filter(|known| known.mirrored && known.session.status == Status::Closed) {
        return Ok(over);
    }
    let mut record = owned(db, id, caller)?;
    if record.session.close(at) {
        record.process = None;
        save(db, &mut record, at)?;
    }
    Ok(record)
}

/// The daemon saw these sessions' processes alive.
pub(super) fn seen_alive(
    db: &Connection,
    ids: &[InstanceId],
    at: Timestamp,
    stale_after: Duration,
) -> Result<(), StoreError> {
    for id in ids {
        let Some(mut record) = get(db, id.as_str())?.filter(|record| record.process.is_some()) else { continue };
        if record.session.heartbeat(&Heartbeat::default(), at, stale_after).is_ok() {
            save(db, &mut record, at)?;
        }
    }
    Ok(())
}

/// The process of a session ended: the session is stale at once, unless another process runs it. Says whether it is
/// stale by this.
pub(super) fn process_died(
    db: &Connection,
    id: &InstanceId,
    process: Process,
    at: Timestamp,
) -> Result<bool, StoreError> {
    let Some(mut record) = get(db, id.as_str())?.filter(|record| record.process == Some(process)) else {
        return Ok(false);
    };
    record.process = agents::next_process(db, id)?;
    if record.process.is_none() && record.session.status == Status::Active {
        record.session.status = Status::Stale;
    }
    save(db, &mut record, at)?;
    Ok(record.process.is_none())
}

/// Records as stale up to `limit` sessions that have been silent for too long. Returns how many.
pub(super) fn sweep(db: &Connection, now: Timestamp, stale_after: Duration, limit: usize) -> Result<usize, StoreError> {
    let silent = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions s INDEXED BY sessions_running WHERE status = 'active' \
                 AND mirror_round IS NULL AND (last_heartbeat <= ?1 OR last_heartbeat >= ?2) LIMIT ?3"
        ))?
        .query_map([now.minus(stale_after).micros(), now.plus(stale_after).micros(), limit as i64], record)?
        .collect::<Result<Vec<_>, _>>()?;
    for mut record in silent.iter().cloned() {
        record.session.status = Status::Stale;
        save(db, &mut record, now)?;
    }
    Ok(silent.len())
}

/// The sessions whose processes are to be watched.
pub(super) fn watched(db: &Connection) -> Result<Vec<(InstanceId, Process)>, StoreError> {
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
pub(super) fn rename_machine(
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

/// The newest rows whose ids begin so. The indexes tell, so that only of those that are shown all is read.
///
/// An id of this host begins with its project, which is therefore the text's first part, or goes on like the text.
pub(super) const BEGINNING_SO: &str = "SELECT rowid FROM ( \
     SELECT rowid, last_heartbeat, instance_id FROM sessions INDEXED BY sessions_settled \
         WHERE (mirror_round IS NOT NULL OR status <> 'active') \
             AND instance_id >= ?1 AND instance_id < ?1 || char(1114111) \
     UNION ALL SELECT rowid, last_heartbeat, instance_id FROM sessions INDEXED BY sessions_running \
         WHERE mirror_round IS NULL AND status = 'active' \
             AND project >= ?3 AND project < ?1 || char(1114111) \
             AND instance_id >= ?1 AND instance_id < ?1 || char(1114111)) \
     ORDER BY last_heartbeat DESC, instance_id LIMIT ?2";

/// Exact id in any letter case first, then an id that was given up after a collision, then the beginning of an id.
pub(super) fn find(db: &Connection, text: &str) -> Result<Lookup, StoreError> {
    let exact = InstanceId::in_any_case(text);
    if let Some(record) = get(db, exact.as_ref().map_or(text, InstanceId::as_str))? {
        return Ok(Lookup::One(Box::new(record)));
    }
    let mut matches = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions s WHERE rowid IN ({BEGINNING_SO}) ORDER BY last_heartbeat DESC, instance_id"
        ))?
        .query_map(params![text, CANDIDATES as i64, text.split('-').next()], record)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(match matches.len() {
        0 => Lookup::None,
        1 => Lookup::One(Box::new(matches.remove(0))),
        _ => Lookup::Several(matches),
    })
}

/// Some of the sessions that a list shows, and the row behind which the next piece begins.
pub(super) struct ListPiece {
    pub records: Vec<Record>,
    pub next: Option<i64>,
}

/// How many rows one piece of a list reads.
const LIST_PIECE: usize = 1000;

/// Sessions behind row `after`, whose status at `now` is as asked for. A session keeps its row, so that each that
/// there is all the while is in exactly one piece.
pub(super) fn list_piece(
    db: &Connection,
    filter: &Filter,
    after: i64,
    now: Timestamp,
    stale_after: Duration,
) -> Result<ListPiece, StoreError> {
    let mut last = None;
    let mut records = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS}, s.rowid FROM sessions s WHERE {} AND s.rowid > ?5 AND (?2 IS NULL OR host_machine = ?2) \
                 AND (NOT ?3 OR mirror_round IS NULL) AND (closed_at IS NULL OR ?4 IS NULL OR closed_at >= ?4) \
             ORDER BY s.rowid LIMIT ?6",
            // Told apart, so that SQLite sees that the index serves.
            if filter.project.is_some() { "project = ?1" } else { "?1 IS NULL" }
        ))?
        .query_map(
            params![
                filter.project.as_ref().map(Project::as_str),
                filter.machine.as_ref().map(MachineName::as_str),
                filter.local,
                filter.closed_since.map(Timestamp::micros),
                after,
                LIST_PIECE as i64,
            ],
            |row| {
                last = Some(row.get("rowid")?);
                record(row)
            },
        )?
        .collect::<Result<Vec<_>, _>>()?;
    let next = last.filter(|_| records.len() == LIST_PIECE);
    records.retain(|r| filter.status.is_none_or(|status| r.session.status_at(now, stale_after) == status));
    Ok(ListPiece { records, next })
}

/// By project, most recent heartbeat first.
pub(super) fn in_order(records: &mut [Record]) {
    records.sort_by(|a, b| {
        let key = |r: &Record| (std::cmp::Reverse(r.session.last_heartbeat), r.session.instance_id.clone());
        a.session.project.as_str().cmp(b.session.project.as_str()).then_with(|| key(a).cmp(&key(b)))
    });
}

pub(super) const COUNTS: &str = "SELECT status, count(*) FROM sessions INDEXED BY sessions_ended \
         WHERE mirror_round IS NULL AND status <> 'active' GROUP BY status \
     UNION ALL SELECT iif(last_heartbeat > ?1 AND last_heartbeat < ?2, 'active', 'stale') AS now, count(*) \
         FROM sessions INDEXED BY sessions_running WHERE mirror_round IS NULL AND status = 'active' GROUP BY now";

/// How many sessions are in which state at `now`.
pub(super) fn counts(db: &Connection, now: Timestamp, stale_after: Duration) -> Result<Counts, StoreError> {
    let mut counts = Counts::default();
    let mut statement = db.prepare_cached(COUNTS)?;
    let mut rows = statement.query([now.minus(stale_after).micros(), now.plus(stale_after).micros()])?;
    while let Some(row) = rows.next()? {
        let count = row.get::<_, i64>(1)?.unsigned_abs();
        match parsed(row, 0, Status::parse)? {
            Status::Active => counts.active += count,
            Status::Stale => counts.stale += count,
            Status::Closed => counts.closed += count,
        }
    }
    Ok(counts)
}

/// The session that goes, or once went, by exactly this id.
pub(super) fn get(db: &Connection, id: &str) -> Result<Option<Record>, StoreError> {
    Ok(db.prepare_cached(GET)?.query_row([id], record).optional()?)
}

/// The session that goes by exactly this id now.
pub(super) fn exactly(db: &Connection, id: &str) -> Result<Option<Record>, StoreError> {
    Ok(db
        .prepare_cached(&format!("SELECT {COLUMNS} FROM sessions s WHERE instance_id = ?1"))?
        .query_row([id], record)
        .optional()?)
}

/// Mirrors a session of another host, as central has it.
pub(super) fn mirror(db: &Connection, s: &Session, round: i64) -> Result<(), StoreError> {
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
pub(super) fn adopt(db: &Connection, own: &Record) -> Result<(), StoreError> {
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
pub(super) fn in_rows(db: &Connection, rows: &[(u64, i64)]) -> Result<Vec<(u64, Record)>, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions s WHERE rowid = ?1"))?;
    let mut read = |(number, row): &(u64, i64)| {
        let record = statement.query_row([row], record).optional().transpose()?;
        Some(record.map(|record| (*number, record)).map_err(StoreError::from))
    };
    rows.iter().filter_map(&mut read).collect()
}

/// The session, if the caller may change it.
pub(super) fn owned(db: &Connection, id: &str, caller: Caller) -> Result<Record, StoreError> {
    let record = get(db, id)?.ok_or_else(|| StoreError::NotFound(id.to_owned()))?;
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

pub(super) fn insert(db: &Connection, record: &Record) -> Result<(), StoreError> {
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
pub(super) fn save(db: &Connection, record: &mut Record, at: Timestamp) -> Result<(), StoreError> {
    let waits_already = record.unsynced_since.is_some();
    let beat = match record.unsynced_since {
        Some(_) => BEAT_AGAIN,
        None => BEAT,
    };
    record.version += 1;
    record.unsynced_since.get_or_insert(at);
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
pub(super) fn save_whereabouts(db: &Connection, record: &Record) -> Result<(), StoreError> {
    let s = &record.session;
    db.prepare_cached(
        "UPDATE sessions SET claude_session_uuid = ?2, claude_session_path = ?3, working_dir = ?4 WHERE instance_id = ?1",
    )?
    .execute(params![s.instance_id.as_str(), s.claude_session_uuid, s.claude_session_path, s.working_dir])?;
    Ok(())
}

pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let pid: Option<i32> = row.get(15)?;
    let started: Option<i64> = row.get(16)?;
    let session = session(row)?;
    Ok(Record {
        columns: columns::read(row.get_ref(22)?, session.last_heartbeat),
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
    })
}

/// Reads the fourteen columns of supervisor_sessions, the first of [`COLUMNS`]. Earlier versions kept text of central as
/// it was: what is read is made safe here too.
fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
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

pub(super) fn parsed<T, E: std::error::Error + Send + Sync + 'static>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    parse(text).map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e)))
}
