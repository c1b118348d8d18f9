//! Which live sessions of this host are pushed although only their heartbeats changed.
//!
//! A heartbeat alone makes no session pending (`tables::sessions::save`). The heartbeat that central has is kept in
//! `synced_heartbeat`, and has an index that no heartbeat touches.

use rusqlite::Connection;

use crate::domain::refresh::RefreshRule;
use crate::domain::{InstanceId, Timestamp};
use crate::store::error::StoreError;
use crate::store::tables::columns::ours;
use crate::store::tables::session_row::parsed;

/// Live sessions of this host, by the index. Those that are pending anyway are pushed with their newest heartbeats.
macro_rules! live {
    ($condition:literal) => {
        concat!(
            "SELECT rowid, instance_id, synced_heartbeat, last_heartbeat FROM sessions INDEXED BY sessions_to_refresh \
             WHERE ",
            ours!(),
            " AND status = 'active' AND unsynced_since IS NULL AND synced_heartbeat ",
            $condition
        )
    };
}

/// Central's heartbeat is old, of the future, or not known.
const CANDIDATES: &str = concat!(live!("<= ?1"), " UNION ALL ", live!("> ?2"), " UNION ALL ", live!("IS NULL"));

/// The rows of the sessions whose heartbeats are due.
pub(in crate::store) fn due(db: &Connection, rule: &RefreshRule, now: Timestamp) -> Result<Vec<i64>, StoreError> {
    let mut statement = db.prepare_cached(CANDIDATES)?;
    let mut rows = statement.query([rule.newest_due(now).micros(), now.micros()])?;
    let mut due = Vec::new();
    while let Some(row) = rows.next()? {
        let id = parsed(row, 1, InstanceId::parse)?;
        let in_central = row.get::<_, Option<i64>>(2)?.map(Timestamp::from_micros);
        if rule.is_due(&id, in_central, Timestamp::from_micros(row.get(3)?), now) {
            due.push(row.get(0)?);
        }
    }
    Ok(due)
}

/// Makes the sessions in these rows pending, if they are still alive. Returns how many.
pub(in crate::store) fn mark(db: &Connection, rows: &[i64], now: Timestamp) -> Result<usize, StoreError> {
    let mut mark = db.prepare_cached(concat!(
        "UPDATE sessions SET unsynced_since = ?2 WHERE rowid = ?1 AND unsynced_since IS NULL AND status = 'active' AND ",
        ours!()
    ))?;
    let mut marked = 0;
    for row in rows {
        marked += mark.execute([*row, now.micros()])?;
    }
    Ok(marked)
}
