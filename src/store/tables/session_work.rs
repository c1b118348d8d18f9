//! The tables `session_work` and `work_snapshots`: what sessions do and work on.
//!
//! A row of `session_work` always has one in `work_snapshots`.

use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::activity::ActivityTracker;
use crate::domain::agent::AgentKind;
use crate::domain::work::WorkSnapshot;
use crate::domain::{InstanceId, Reason, SessionWork, Timestamp, WorkSummary};
use crate::store::error::StoreError;
use crate::store::tables::columns::ours;

/// The work of one of this host's sessions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::store) struct OwnWork {
    pub tracker: Option<ActivityTracker>,
    pub snapshot: WorkSnapshot,
    pub summary: WorkSummary,
    pub recorded_at: Option<Timestamp>,
    /// 0: nothing is stored yet.
    pub version: i64,
}

pub(in crate::store) fn read_summary(json: &str) -> Option<Box<WorkSummary>> {
    serde_json::from_str(json).ok().map(Box::new)
}

pub(in crate::store) fn own(db: &Connection, id: &InstanceId) -> Result<OwnWork, StoreError> {
    let row = db
        .prepare_cached(
            "SELECT tracker, summary, snapshot, recorded_at, version FROM session_work JOIN work_snapshots \
                 USING (instance_id) WHERE instance_id = ?1",
        )?
        .query_row([id.as_str()], |row| {
            Ok(OwnWork {
                tracker: row.get_ref(0)?.as_str_or_null()?.and_then(parsed),
                summary: parsed(row.get_ref(1)?.as_str()?).unwrap_or_default(),
                snapshot: parsed(row.get_ref(2)?.as_str()?).unwrap_or_default(),
                recorded_at: Some(Timestamp::from_micros(row.get(3)?)),
                version: row.get(4)?,
            })
        })
        .optional()?;
    Ok(row.unwrap_or_default())
}

fn parsed<T: serde::de::DeserializeOwned>(json: &str) -> Option<T> {
    serde_json::from_str(json).ok()
}

fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Bug(Reason::from(error.to_string()).caused_by(error)))
}

/// Writes only when the newest event happened.
pub(in crate::store) fn save_tracker(
    db: &Connection,
    id: &InstanceId,
    tracker: &ActivityTracker,
) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE session_work SET tracker = ?2 WHERE instance_id = ?1")?
        .execute(params![id.as_str(), json(tracker)?])?;
    Ok(())
}

/// Writes a new version. The snapshot is left alone unless it changed, as it takes most of the room.
pub(in crate::store) fn save(
    db: &Connection,
    id: &InstanceId,
    own: &OwnWork,
    snapshot_changed: bool,
) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO session_work (instance_id, tracker, summary, recorded_at, version, synced_version) \
         VALUES (?1, ?2, ?3, ?4, ?5, 0) ON CONFLICT (instance_id) \
         DO UPDATE SET tracker = ?2, summary = ?3, recorded_at = ?4, version = ?5",
    )?
    .execute(params![
        id.as_str(),
        own.tracker.as_ref().map(json).transpose()?,
        json(&own.summary)?,
        own.recorded_at.map_or(0, Timestamp::micros),
        own.version,
    ])?;
    save_in_session(db, id, &own.summary)?;
    make_pending(db, id, own.recorded_at)?;
    if snapshot_changed || own.version == 1 {
        save_snapshot(db, id, &own.snapshot)?;
    }
    Ok(())
}

/// The work travels with its session, which therefore has a new version.
fn make_pending(db: &Connection, id: &InstanceId, at: Option<Timestamp>) -> Result<(), StoreError> {
    db.prepare_cached(concat!(
        "UPDATE sessions SET version = version + 1, unsynced_since = coalesce(unsynced_since, ?2) WHERE instance_id = ?1 AND ",
        ours!()
    ))?
    .execute(params![id.as_str(), at.map_or(0, Timestamp::micros)])?;
    Ok(())
}

/// The session's row has the place and the kind too, by which active sessions are found.
fn save_in_session(db: &Connection, id: &InstanceId, work: &WorkSummary) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE sessions SET worktree = ?2, repository = ?3, branch = ?4, kind = ?5 WHERE instance_id = ?1 \
             AND (worktree IS NOT ?2 OR repository IS NOT ?3 OR branch IS NOT ?4 OR kind IS NOT ?5)",
    )?
    .execute(params![
        id.as_str(),
        work.worktree,
        work.repository,
        work.branch,
        work.kind.map(AgentKind::as_str)
    ])?;
    Ok(())
}

fn save_snapshot(db: &Connection, id: &InstanceId, snapshot: &WorkSnapshot) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO work_snapshots (instance_id, snapshot) VALUES (?1, ?2) \
         ON CONFLICT (instance_id) DO UPDATE SET snapshot = ?2",
    )?
    .execute(params![id.as_str(), snapshot.to_json()])?;
    Ok(())
}

/// The work of any session, as machines share it; with its version.
pub(in crate::store) fn shared(db: &Connection, id: &InstanceId) -> Result<Option<(SessionWork, i64)>, StoreError> {
    let own = own(db, id)?;
    let Some(recorded_at) = own.recorded_at else { return Ok(None) };
    let WorkSummary { activity, activity_ended, kind, agent, .. } = own.summary;
    let (instance_id, snapshot) = (id.clone(), own.snapshot);
    let changes = Vec::new();
    let work = SessionWork { instance_id, activity, activity_ended, kind, agent, snapshot, recorded_at, changes };
    Ok(Some((work, own.version)))
}

/// What central lacks of the work of this host's session; all of it, if central has not even the session.
pub(in crate::store) fn unsynced(
    db: &Connection,
    id: &InstanceId,
    has_session: bool,
) -> Result<Option<(SessionWork, i64)>, StoreError> {
    let waits: bool = db
        .prepare_cached("SELECT version > synced_version OR NOT ?2 FROM session_work WHERE instance_id = ?1")?
        .query_row(params![id.as_str(), has_session], |row| row.get(0))
        .optional()?
        .unwrap_or(false);
    if waits { shared(db, id) } else { Ok(None) }
}

/// Central has this version.
pub(in crate::store) fn acknowledge(db: &Connection, id: &InstanceId, version: i64) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE session_work SET synced_version = max(synced_version, ?2) WHERE instance_id = ?1")?
        .execute(params![id.as_str(), version])?;
    Ok(())
}

/// Mirrors the work of another host's session, unless what is here is as new, or the session is not mirrored.
pub(in crate::store) fn upsert_mirrored(db: &Connection, work: &SessionWork) -> Result<(), StoreError> {
    let written = db
        .prepare_cached(
            "INSERT INTO session_work (instance_id, tracker, summary, recorded_at, version, synced_version) \
             SELECT ?1, NULL, ?2, ?3, 1, 1 WHERE EXISTS \
                 (SELECT 1 FROM sessions WHERE instance_id = ?1 AND mirror_generation IS NOT NULL) \
             ON CONFLICT (instance_id) DO UPDATE SET tracker = NULL, summary = ?2, recorded_at = ?3, version = 1, \
                 synced_version = 1 WHERE recorded_at <> ?3 OR summary <> ?2",
        )?
        .execute(params![work.instance_id.as_str(), json(&work.summary())?, work.recorded_at.micros()])?;
    if written > 0 {
        save_snapshot(db, &work.instance_id, &work.snapshot)?;
        save_in_session(db, &work.instance_id, &work.summary())?;
        // The change feed follows the table of sessions.
        db.prepare_cached("UPDATE sessions SET mirror_generation = mirror_generation WHERE instance_id = ?1")?
            .execute([work.instance_id.as_str()])?;
    }
    Ok(())
}

/// Sessions whose work central lacks are pushed again, of those in a number of rows behind a row; `with_agent`: also those
/// whose agent is known. Returns the last row that was examined; none at the end.
pub(in crate::store) fn offer_unsynced(
    db: &Connection,
    (after_row, limit): (i64, usize),
    with_agent: bool,
    at: Timestamp,
) -> Result<Option<i64>, StoreError> {
    let last: Option<i64> = db
        .prepare_cached(
            "SELECT max(rowid) FROM (SELECT rowid FROM session_work WHERE rowid > ?1 ORDER BY rowid LIMIT ?2)",
        )?
        .query_row(params![after_row, limit as i64], |row| row.get(0))?;
    let Some(last) = last else { return Ok(None) };
    if with_agent {
        db.prepare_cached(
            "UPDATE session_work SET synced_version = 0 WHERE rowid > ?1 AND rowid <= ?2 AND summary ->> 'agent' IS NOT NULL \
                 AND instance_id IN (SELECT instance_id FROM sessions s WHERE s.instance_id = session_work.instance_id \
                     AND mirror_generation IS NULL)",
        )?
        .execute(params![after_row, last])?;
    }
    db.prepare_cached(
        "UPDATE sessions SET unsynced_since = ?3 WHERE unsynced_since IS NULL AND mirror_generation IS NULL AND instance_id IN \
             (SELECT instance_id FROM session_work WHERE rowid > ?1 AND rowid <= ?2 AND version > synced_version)",
    )?
    .execute(params![after_row, last, at.micros()])?;
    Ok(Some(last))
}
