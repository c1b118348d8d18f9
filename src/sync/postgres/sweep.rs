//! The sweep: turns sessions stale that no live host vouches for.
//!
//! The host that vouches for a session is the one whose daemon wrote its row last (`changed_by`). While that host is
//! live, its daemon decides about the session. The machine name alone says nothing, because earlier clients write rows
//! under a machine's name that a daemon has too. Every session is measured by the `stale_after` of its own host.
//!
//! One call works in turns of a bounded number of rows, each in a transaction of its own, and ends after [`BUDGET`]:
//! a backlog of any size keeps no statement near `statement_timeout`, and other actions wait at most that long. A turn
//! that fails leaves the turns before it committed.

use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;

use super::link::{Link, column, micros_of};
use super::parameters::OptionalColumn;
use super::registered_host::RegisteredHost;
use super::sql;
use crate::sync::central::{CentralError, SweepResult};

/// Sessions of one turn: each costs an update of all indexes and some triggers, a millisecond on a slow central.
const SESSIONS: i64 = 500;

/// Tombstones, or marks of changed histories, of one turn.
const MARKS: i64 = 5000;

/// No turn begins later than this after the call began.
const BUDGET: Duration = Duration::from_secs(2);

pub(super) async fn sweep(
    link: &mut Link,
    host: &RegisteredHost,
    stale_after: Duration,
    interval: Duration,
) -> Result<SweepResult, CentralError> {
    let began = Instant::now();
    link.begin().await?;
    let claimed = link.rows(sqlx::query(sql::CLAIM_SWEEP).bind(micros_of(interval))).await?;
    link.commit().await?;
    let mut swept = SweepResult::default();
    if claimed.is_empty() {
        return Ok(swept);
    }
    let has_time = || began.elapsed() < BUDGET;
    let statement = OptionalColumn::STALE_AFTER.insert(sql::SWEEP_SESSIONS, host.has_stale_after);
    loop {
        let query = sqlx::query(AssertSqlSafe(statement.clone())).bind(micros_of(stale_after)).bind(SESSIONS);
        let turned = turn(link, query).await?;
        swept.sessions += turned.unsigned_abs();
        swept.more = turned >= SESSIONS;
        if !swept.more || !has_time() {
            break;
        }
    }
    for statement in [sql::DELETE_TOMBSTONES, sql::DELETE_HISTORY_MARKS] {
        while turn(link, sqlx::query(statement).bind(MARKS)).await? >= MARKS {
            if !has_time() {
                swept.more = true;
                break;
            }
        }
    }
    if swept.more {
        link.begin().await?;
        link.rows(sqlx::query(sql::REOPEN_SWEEP)).await?;
        link.commit().await?;
    }
    Ok(swept)
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Runs a statement that returns how many rows it changed, in a transaction of its own.
async fn turn(link: &mut Link, query: Query<'_>) -> Result<i64, CentralError> {
    link.begin().await?;
    let counted = link.rows(query).await?;
    link.commit().await?;
    counted.first().map_or(Ok(0), |row| column(row, 0))
}
