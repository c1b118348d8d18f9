//! The sweep: turns sessions stale that no live host reports.
//!
//! A session is reported by the host whose daemon wrote its row last (`changed_by`). While that host is live, its
//! daemon decides about the session; the machine name alone says nothing, because earlier clients write rows under a
//! machine's name that a daemon has too. Every session is measured by the `stale_after` of its own host.
//!
//! One call works in turns of a bounded number of rows, each in a transaction of its own, and ends after [`BUDGET`]:
//! a backlog of any size keeps no statement near `statement_timeout`, and other steps wait at most that long. A turn
//! that fails leaves the turns before it committed.

use std::time::{Duration, Instant};

use super::link::{Link, column};
use super::{interval, micros_of};
use crate::sync::central::{CentralError, SweepResult};

/// The host that gets the row sweeps. A time in the future was written by mistake and keeps nobody away.
const CLAIM: &str = concat!(
    "UPDATE sessiond_sweep SET swept_at = now() WHERE swept_at > now() OR swept_at <= now() - ",
    interval!("$1::bigint"),
    " RETURNING one_row"
);

/// Makes the next sweep of any host due at once.
const LEAVE_OPEN: &str = "UPDATE sessiond_sweep SET swept_at = '-infinity'";

/// `stale_after` is read by way of JSON, because a central without that column must be swept too. A row that another
/// transaction is writing is being reported, so it is skipped rather than waited for.
const SWEEP: &str = concat!(
    "WITH live AS MATERIALIZED (SELECT host_id, machine_name, last_seen, \
         coalesce((to_jsonb(h) ->> 'stale_after')::interval, ",
    interval!("$1::bigint"),
    ") AS stale_after FROM sessiond_hosts h WHERE retired_at IS NULL), \
     silent AS ( \
         SELECT s.instance_id FROM supervisor_sessions s \
         LEFT JOIN live reporter ON reporter.host_id = s.changed_by \
         LEFT JOIN live namesake ON namesake.machine_name = s.host_machine \
         WHERE s.status = 'active' \
             AND s.last_heartbeat < now() - coalesce(reporter.stale_after, namesake.stale_after, ",
    interval!("$1::bigint"),
    ")       AND (reporter.host_id IS NULL OR reporter.last_seen <= now() - reporter.stale_after) \
         LIMIT $2 FOR UPDATE OF s SKIP LOCKED), \
     swept AS (UPDATE supervisor_sessions s SET status = 'stale' FROM silent WHERE s.instance_id = silent.instance_id \
         RETURNING 1) \
     SELECT count(*) FROM swept"
);

/// Notes that every mirror has applied, or replaces by reading everything, because it was away for longer
/// (`store/mirror.rs`).
const FORGET: [&str; 2] = [
    "WITH old AS (DELETE FROM sessiond_tombstones WHERE ctid = ANY (ARRAY( \
         SELECT ctid FROM sessiond_tombstones WHERE deleted_at < now() - interval '30 days' LIMIT $1)) RETURNING 1) \
     SELECT count(*) FROM old",
    "WITH old AS (DELETE FROM sessiond_history WHERE ctid = ANY (ARRAY( \
         SELECT ctid FROM sessiond_history WHERE added_at < now() - interval '30 days' LIMIT $1)) RETURNING 1) \
     SELECT count(*) FROM old",
];

/// Sessions of one turn: each costs an update of all indexes and some triggers, a millisecond on a slow central.
const SESSIONS: i64 = 500;

/// Notes of one turn.
const NOTES: i64 = 5000;

/// No turn begins later than this after the call began.
const BUDGET: Duration = Duration::from_secs(2);

pub(super) async fn sweep(
    link: &mut Link,
    stale_after: Duration,
    interval: Duration,
) -> Result<SweepResult, CentralError> {
    let began = Instant::now();
    link.begin().await?;
    let claimed = link.rows(sqlx::query(CLAIM).bind(micros_of(interval))).await?;
    link.commit().await?;
    let mut swept = SweepResult::default();
    if claimed.is_empty() {
        return Ok(swept);
    }
    let may_go_on = || began.elapsed() < BUDGET;
    loop {
        let turned = turn(link, sqlx::query(SWEEP).bind(micros_of(stale_after)).bind(SESSIONS)).await?;
        swept.sessions += turned.unsigned_abs();
        swept.more = turned >= SESSIONS;
        if !swept.more || !may_go_on() {
            break;
        }
    }
    for statement in FORGET {
        while turn(link, sqlx::query(statement).bind(NOTES)).await? >= NOTES {
            if !may_go_on() {
                swept.more = true;
                break;
            }
        }
    }
    if swept.more {
        link.begin().await?;
        link.rows(sqlx::query(LEAVE_OPEN)).await?;
        link.commit().await?;
    }
    Ok(swept)
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Runs one statement that answers how many rows it changed, in a transaction of its own.
async fn turn(link: &mut Link, query: Query<'_>) -> Result<i64, CentralError> {
    link.begin().await?;
    let counted = link.rows(query).await?;
    link.commit().await?;
    counted.first().map_or(Ok(0), |row| column(row, 0))
}
