//! The table `activity_changes`: the activity history of sessions.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::activity::{ActivityState, WaitingFor};
use crate::domain::activity_history::ActivityChange;
use crate::domain::{InstanceId, Timestamp};
use crate::store::error::StoreError;
use crate::store::tables::columns::ours;

const COLUMNS: &str = "at, activity, waiting_for, detail, context_percent";

fn read(row: &Row<'_>) -> rusqlite::Result<ActivityChange> {
    let text = |index: usize| row.get::<_, Option<String>>(index);
    Ok(ActivityChange {
        at: Timestamp::from_micros(row.get(0)?),
        activity: text(1)?.and_then(|state| ActivityState::parse(&state).ok()),
        waiting_for: text(2)?.and_then(|what| WaitingFor::parse(&what).ok()),
        detail: text(3)?,
        context_percent: row.get(4)?,
    })
}

/// The change of a session that was recorded last.
pub(in crate::store) fn newest(db: &Connection, id: &InstanceId) -> Result<Option<ActivityChange>, StoreError> {
    Ok(db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM activity_changes WHERE instance_id = ?1 ORDER BY seq DESC LIMIT 1"
        ))?
        .query_row([id.as_str()], read)
        .optional()?)
}

/// Records a change of one of this host's sessions. Returns its number.
pub(in crate::store) fn insert(db: &Connection, id: &InstanceId, change: &ActivityChange) -> Result<i64, StoreError> {
    db.prepare_cached(
        "INSERT INTO activity_changes (instance_id, at, activity, waiting_for, detail, context_percent, unsynced) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1)",
    )?
    .execute(params![
        id.as_str(),
        change.at.micros(),
        change.activity.map(ActivityState::as_str),
        change.waiting_for.map(WaitingFor::as_str),
        change.detail,
        change.context_percent,
    ])?;
    Ok(db.last_insert_rowid())
}

/// Deletes all but the newest `kept` changes of a session.
pub(in crate::store) fn keep_newest(db: &Connection, id: &InstanceId, kept: usize) -> Result<(), StoreError> {
    db.prepare_cached(
        "DELETE FROM activity_changes WHERE instance_id = ?1 AND seq <= \
             (SELECT seq FROM activity_changes WHERE instance_id = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![id.as_str(), kept as i64])?;
    Ok(())
}

/// Deletes up to `limit` changes of any session with numbers up to `last`.
pub(in crate::store) fn delete_up_to(db: &Connection, last: i64, limit: usize) -> Result<(), StoreError> {
    db.prepare_cached(
        "DELETE FROM activity_changes WHERE seq IN \
             (SELECT seq FROM activity_changes WHERE seq <= ?1 ORDER BY seq LIMIT ?2)",
    )?
    .execute(params![last, limit as i64])?;
    Ok(())
}

/// Whether any change happened before `before`.
pub(in crate::store) fn any_before(db: &Connection, before: Timestamp) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM activity_changes WHERE at < ?1)")?
        .query_row([before.micros()], |row| row.get(0))?)
}

/// Deletes up to `limit` changes that happened before `before`. Returns how many.
pub(in crate::store) fn delete_before(db: &Connection, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
    Ok(db
        .prepare_cached(
            "DELETE FROM activity_changes WHERE seq IN \
                 (SELECT seq FROM activity_changes WHERE at < ?1 ORDER BY at LIMIT ?2)",
        )?
        .execute(params![before.micros(), limit as i64])?)
}

/// The changes of a session that happened at `since` or later, in order of time, at most `limit`.
pub(in crate::store) fn list(
    db: &Connection,
    id: &InstanceId,
    since: Timestamp,
    limit: usize,
) -> Result<Vec<ActivityChange>, StoreError> {
    let rows = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM activity_changes INDEXED BY activity_changes_of_session \
             WHERE instance_id = ?1 AND at >= ?2 ORDER BY at, seq LIMIT ?3"
        ))?
        .query_map(params![id.as_str(), since.micros(), limit as i64], read)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(rows)
}

/// The number of the change that was recorded last; 0 if there is none.
pub(in crate::store) fn last_number(db: &Connection) -> Result<i64, StoreError> {
    Ok(db.prepare_cached("SELECT ifnull(max(seq), 0) FROM activity_changes")?.query_row([], |row| row.get(0))?)
}

/// The number before that of the first change that happened at `since` or later.
pub(in crate::store) fn last_number_before(db: &Connection, since: Timestamp) -> Result<i64, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT ifnull((SELECT min(seq) - 1 FROM activity_changes WHERE at >= ?1), \
                 (SELECT ifnull(max(seq), 0) FROM activity_changes))",
        )?
        .query_row([since.micros()], |row| row.get(0))?)
}

/// How long the waits of this host's sessions lasted that a change after `after`, up to `last`, ended. A wait that
/// another kind of wait follows goes on; one whose session ended was not answered, and is left out.
pub(in crate::store) fn ended_waits(db: &Connection, after: i64, last: i64) -> Result<Vec<Duration>, StoreError> {
    let waits = db
        .prepare_cached(concat!(
            "SELECT c.at - (SELECT min(w.at) FROM activity_changes w WHERE w.instance_id = c.instance_id AND w.seq < c.seq \
                 AND w.seq > ifnull((SELECT b.seq FROM activity_changes b WHERE b.instance_id = c.instance_id \
                     AND b.seq < c.seq AND b.activity IS NOT 'waiting' ORDER BY b.seq DESC LIMIT 1), 0)) \
             FROM activity_changes c JOIN sessions s USING (instance_id) \
             WHERE c.seq > ?1 AND c.seq <= ?2 AND c.activity <> 'waiting' AND ",
            ours!(),
            " AND 'waiting' = (SELECT p.activity FROM activity_changes p WHERE p.instance_id = c.instance_id \
                 AND p.seq < c.seq ORDER BY p.seq DESC LIMIT 1)"
        ))?
        .query_map([after, last], |row| row.get::<_, i64>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(waits.into_iter().map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or(0))).collect())
}

/// The changes of all sessions with their machines, each session's together and in order of time.
pub(in crate::store) fn of_all(
    db: &Connection,
    mut take: impl FnMut(&str, &str, ActivityChange),
) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT c.at, c.activity, c.waiting_for, NULL, c.context_percent, c.instance_id, s.host_machine \
         FROM activity_changes c INDEXED BY activity_changes_of_session JOIN sessions s USING (instance_id) \
         ORDER BY c.instance_id, c.seq",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let change = read(row)?;
        take(row.get_ref(5)?.as_str().unwrap_or_default(), row.get_ref(6)?.as_str().unwrap_or_default(), change);
    }
    Ok(())
}

/// The newest changes of this host's session that central lacks, or of all of them; at most `limit`.
pub(in crate::store) fn to_push(
    db: &Connection,
    id: &InstanceId,
    all: bool,
    limit: usize,
) -> Result<Vec<ActivityChange>, StoreError> {
    let condition = if all { "" } else { "AND unsynced = 1" };
    let rows = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM activity_changes WHERE instance_id = ?1 {condition} ORDER BY seq DESC LIMIT ?2"
        ))?
        .query_map(params![id.as_str(), limit as i64], read)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(rows)
}

/// Central has the changes that were recorded up to this version of the work, if no later one was made since.
pub(in crate::store) fn acknowledge(db: &Connection, id: &InstanceId, work_version: i64) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE activity_changes SET unsynced = 0 WHERE instance_id = ?1 AND unsynced = 1 AND at <= \
             (SELECT recorded_at FROM session_work WHERE instance_id = ?1 AND version = ?2)",
    )?
    .execute(params![id.as_str(), work_version])?;
    Ok(())
}

/// Adds a change of a mirrored session, unless it is there. Returns its number.
pub(in crate::store) fn insert_mirrored(
    db: &Connection,
    id: &InstanceId,
    change: &ActivityChange,
) -> Result<Option<i64>, StoreError> {
    let added = db
        .prepare_cached(
            "INSERT INTO activity_changes (instance_id, at, activity, waiting_for, detail, context_percent, unsynced) \
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, 0 WHERE EXISTS \
                 (SELECT 1 FROM sessions WHERE instance_id = ?1 AND mirror_generation IS NOT NULL) \
             AND NOT EXISTS (SELECT 1 FROM activity_changes WHERE instance_id = ?1 AND +at = ?2)",
        )?
        .execute(params![
            id.as_str(),
            change.at.micros(),
            change.activity.map(ActivityState::as_str),
            change.waiting_for.map(WaitingFor::as_str),
            change.detail,
            change.context_percent,
        ])?;
    Ok((added > 0).then(|| db.last_insert_rowid()))
}

/// A session got another id.
pub(in crate::store) fn rename(db: &Connection, from: &InstanceId, to: &InstanceId) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE activity_changes SET instance_id = ?2, unsynced = 1 WHERE instance_id = ?1")?
        .execute([from.as_str(), to.as_str()])?;
    Ok(())
}
