//! Turning the sessions of vanished hosts stale.

use std::time::Duration;

use super::link::{Link, column};
use super::{interval, micros_of};
use crate::sync::central::CentralError;

/// Whoever gets the row does the work.
const TURN: &str = concat!(
    "UPDATE sessiond_sweep SET swept_at = now() WHERE swept_at <= now() - ",
    interval!("$1::bigint"),
    " RETURNING one_row"
);

/// A host that lives speaks for its own sessions. A row that somebody is just writing is not of a
/// vanished host, so it is passed by rather than waited for.
const SWEEP: &str = concat!(
    "WITH vanished AS ( \
         SELECT instance_id FROM supervisor_sessions s WHERE status = 'active' AND last_heartbeat < now() - ",
    interval!("$1::bigint"),
    "    AND NOT EXISTS (SELECT FROM sessiond_hosts h WHERE h.machine_name = s.host_machine AND h.retired_at IS NULL \
             AND h.last_seen > now() - ",
    interval!("$1::bigint"),
    ")   FOR UPDATE OF s SKIP LOCKED), \
     swept AS (UPDATE supervisor_sessions s SET status = 'stale' FROM vanished v WHERE s.instance_id = v.instance_id \
         RETURNING 1) \
     SELECT count(*) FROM swept"
);

/// What every mirror has followed, or reads anew because it was away for longer (`store/mirror.rs`).
const FORGET: [&str; 2] = [
    "DELETE FROM sessiond_tombstones WHERE deleted_at < now() - interval '30 days'",
    "DELETE FROM sessiond_history WHERE added_at < now() - interval '30 days'",
];

pub(super) async fn sweep(link: &mut Link, stale_after: Duration, interval: Duration) -> Result<u64, CentralError> {
    link.begin().await?;
    let turn = link.rows(sqlx::query(TURN).bind(micros_of(interval))).await?;
    let swept = if turn.is_empty() { 0 } else { turn_stale(link, stale_after).await? };
    link.commit().await?;
    Ok(swept)
}

async fn turn_stale(link: &mut Link, stale_after: Duration) -> Result<u64, CentralError> {
    for statement in FORGET {
        link.rows(sqlx::query(statement)).await?;
    }
    let counted = link.rows(sqlx::query(SWEEP).bind(micros_of(stale_after))).await?;
    counted.first().map_or(Ok(0), |row| Ok(column::<i64>(row, 0)?.unsigned_abs()))
}
