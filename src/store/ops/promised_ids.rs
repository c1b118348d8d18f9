//! Promised ids: ids that an agent was given while no daemon could be asked, and that must lead to its session once
//! that has another id.
//!
//! A promise is an alias of the session. Any client can make one, so promises are bounded: a user has at most
//! [`MOST`], of which the oldest goes first, and a promise older than [`KEPT_FOR`] is deleted unless its session is
//! active. **A promised id is never the id of a session**: it is refused for an id in use, and a session that gets the
//! id later, here or from central, takes it over (trigger `promise_of_new_session`).

use std::time::Duration;

use rusqlite::{Connection, params};

use crate::domain::{InstanceId, Timestamp};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::tables::sessions;

/// How many promised ids a user has at most.
pub(in crate::store) const MOST: usize = 1_000;

/// A promised id leads to a session that is not active for so long.
pub(in crate::store) const KEPT_FOR: Duration = Duration::from_secs(7 * 86_400);

/// How many promises one job of the writer deletes at most.
const TURN: i64 = 100;

/// Whether a session may begin under an id that its client drew. A promise does not hold an id against a session.
pub(in crate::store) fn may_begin(db: &Connection, id: &InstanceId) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM sessions WHERE instance_id = ?1) \
                 AND NOT EXISTS (SELECT 1 FROM aliases WHERE old_id = ?1 AND promised_by IS NULL)",
        )?
        .query_row([id.as_str()], |row| row.get(0))?)
}

/// Has a promised id lead to the session, unless the id is in use.
pub(in crate::store) fn keep(op: &Op<'_>, promised: Option<&InstanceId>, id: &InstanceId) -> Result<(), StoreError> {
    let &Op { db, caller, now, .. } = op;
    let Some(promised) = promised.filter(|promised| *promised != id) else { return Ok(()) };
    if sessions::get(db, promised.as_str())?.is_some() {
        return Ok(());
    }
    db.prepare_cached(
        "INSERT OR IGNORE INTO aliases (old_id, instance_id, made_at, promised_by) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![promised.as_str(), id.as_str(), now.micros(), caller.uid])?;
    db.prepare_cached(
        "DELETE FROM aliases WHERE old_id IN (SELECT old_id FROM aliases WHERE promised_by = ?1 \
             ORDER BY made_at DESC, old_id LIMIT -1 OFFSET ?2)",
    )?
    .execute(params![caller.uid, MOST as i64])?;
    Ok(())
}

macro_rules! expired {
    () => {
        "FROM aliases a WHERE promised_by IS NOT NULL AND made_at < ?1 \
             AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.instance_id = a.instance_id AND s.status = 'active')"
    };
}

fn expiry(at: Timestamp) -> i64 {
    at.minus(KEPT_FOR).micros()
}

pub(in crate::store) fn any_expired(db: &Connection, at: Timestamp) -> Result<bool, StoreError> {
    let any = concat!("SELECT EXISTS (SELECT 1 ", expired!(), ")");
    Ok(db.prepare_cached(any)?.query_row([expiry(at)], |row| row.get(0))?)
}

/// Deletes some of the promises that have expired. Returns whether there may be more.
pub(in crate::store) fn delete_expired(db: &Connection, at: Timestamp) -> Result<bool, StoreError> {
    let delete = concat!("DELETE FROM aliases WHERE old_id IN (SELECT old_id ", expired!(), " LIMIT ?2)");
    let deleted = db.prepare_cached(delete)?.execute(params![expiry(at), TURN])?;
    Ok(deleted == TURN as usize)
}
