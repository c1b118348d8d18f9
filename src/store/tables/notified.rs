//! The table `notified`: the notifications that were sent.

use rusqlite::{Connection, params};

use crate::domain::Timestamp;
use crate::store::error::StoreError;

/// How many rows one job of the writer deletes at most.
const TURN: i64 = 200;

/// Whether this notification was sent.
pub(in crate::store) fn contains(db: &Connection, key: &str) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM notified WHERE key = ?1)")?
        .query_row([key], |row| row.get(0))?)
}

pub(in crate::store) fn insert(db: &Connection, key: &str, at: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO notified (key, at) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![key, at.micros()])?;
    Ok(())
}

/// Whether anything is older than this.
pub(in crate::store) fn any_before(db: &Connection, before: Timestamp) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM notified WHERE at < ?1)")?
        .query_row([before.micros()], |row| row.get(0))?)
}

/// Deletes a bounded number of those. Returns whether there may be more.
pub(in crate::store) fn delete_before(db: &Connection, before: Timestamp) -> Result<bool, StoreError> {
    let deleted = db
        .prepare_cached("DELETE FROM notified WHERE key IN (SELECT key FROM notified WHERE at < ?1 LIMIT ?2)")?
        .execute(params![before.micros(), TURN])?;
    Ok(i64::try_from(deleted).is_ok_and(|deleted| deleted == TURN))
}
