//! Sessions that are not read ahead, and that somebody asked for.
//!
//! They are mirrored rows with the time at which they were read, and without a host that vouches for them: their heartbeat
//! alone says whether they are active, and it is never later than the time of reading. So none is shown as active for
//! longer than stale_after after it was read. They are kept for some minutes, at most so many of them. A row that is read
//! ahead, or is this host's own, is never replaced by one of these.

use std::time::Duration;

use rusqlite::{Connection, params};

use crate::domain::on_demand::Question;
use crate::domain::{Session, TimedSession, Timestamp};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::sqlite::turns::Budget;
use crate::store::tables::sessions;

/// For how long such a session is kept.
const KEPT: Duration = Duration::from_secs(600);

/// How many of them are kept.
const MAX_KEPT: i64 = 5_000;

/// How many sessions a turn deletes.
const DELETED_AT_ONCE: i64 = 25;

/// Imports a session as central had it at `op.now`.
pub(in crate::store) fn import_session(op: &Op<'_>, session: &TimedSession, generation: i64) -> Result<(), StoreError> {
    let known = sessions::exactly(op.db, session.instance_id.as_str())?;
    if known.is_some_and(|known| known.read_at.is_none()) {
        return Ok(());
    }
    let last_heartbeat = session.last_heartbeat.min(op.now);
    let read = TimedSession::untimed(Session { last_heartbeat, ..session.session.clone() });
    sessions::upsert_mirrored(op.db, &read, generation, Some(op.now))
}

/// Which of these sessions are dropped.
#[derive(Clone, Debug)]
pub(in crate::store) enum Dropped {
    /// Those that are kept for too long, or are too many.
    Expired,
    /// Those that the answer to this question would have, and that were read before it.
    Unmet(Question),
}

/// Deletes such sessions, one turn of it. Says whether there may be more.
pub(in crate::store) fn forget(db: &Connection, which: &Dropped, now: Timestamp) -> Result<bool, StoreError> {
    let named = |condition: &str| {
        format!(
            "SELECT rowid, instance_id FROM sessions \
             WHERE read_at IS NOT NULL AND read_at < ?1 AND {condition} LIMIT {DELETED_AT_ONCE}"
        )
    };
    let (query, before, key) = match which {
        Dropped::Expired => {
            // A clock that was set back leaves times of the future.
            let expired = format!(
                "SELECT rowid, instance_id FROM sessions WHERE read_at IS NOT NULL AND (read_at < ?1 OR read_at > ?2 \
                     OR read_at < (SELECT read_at FROM sessions INDEXED BY sessions_on_demand WHERE read_at IS NOT NULL \
                         ORDER BY read_at DESC LIMIT 1 OFFSET {MAX_KEPT})) LIMIT {DELETED_AT_ONCE}"
            );
            (expired, now.minus(KEPT), now.plus(KEPT).micros().into())
        }
        Dropped::Unmet(Question::Project { project, .. }) => {
            (named("project = ?2"), now, rusqlite::types::Value::from(project.as_str().to_owned()))
        }
        Dropped::Unmet(Question::Id(text)) => (named("instance_id = ?2"), now, text.clone().into()),
        Dropped::Unmet(Question::Hint(_)) => return Ok(false),
    };
    let found: Vec<(i64, String)> = db
        .prepare_cached(&query)?
        .query_map(params![before.micros(), key], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut budget = Budget::new();
    for (row, id) in &found {
        if !budget.delete_records(db, id)? {
            return Ok(true);
        }
        db.prepare_cached("DELETE FROM sessions WHERE rowid = ?1")?.execute([row])?;
    }
    Ok(found.len() as i64 == DELETED_AT_ONCE)
}

#[cfg(test)]
mod tests;
