//! What this server can do: found out at each handshake, by `migrate` and by `doctor`, and never assumed.
//!
//! | capability | without it |
//! |---|---|
//! | numbers of transactions (`pg_current_xact_id`, xid8) | refused: no other position misses no change |
//! | one numbering for all rows of a table | refused: Citus commits the parts of a distributed table one after the other |
//! | a unique index on the id of sessions | refused: a push would not find the row that it changes |
//! | triggers that mark changes | everything is read again at intervals, and `status` names the triggers |
//! | notifications, over a connection of its own | changes are read every `pull_interval` (`listen`) |
//! | tables, columns and rights of later versions | what they hold is not shared, or waits (`records`) |
//!
//! Advisory locks, named statements and session state are not used.

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::link::{Access, Link, column};
use super::sql;
use crate::sync::central::CentralError;

/// The server, as far as it matters whether sessiond can use it.
pub(super) struct Engine {
    pub can_number_transactions: bool,
    /// Its name and version.
    pub name: String,
}

impl Engine {
    pub(super) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self { can_number_transactions: row.try_get(0)?, name: row.try_get(1)? })
    }

    /// Why the server cannot be used, if it cannot.
    pub(super) fn unsupported(&self) -> Option<String> {
        (!self.can_number_transactions).then(|| {
            format!(
                "central is {}, which has no pg_current_xact_id(), by which hosts find changes; use PostgreSQL 13 or later",
                self.name
            )
        })
    }
}

/// Refuses a server that cannot be used.
pub(super) async fn check_engine(link: &mut Link) -> Result<(), CentralError> {
    let rows = link.rows(sqlx::query(sql::ENGINE)).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let engine = Engine { can_number_transactions: column(row, 0)?, name: column(row, 1)? };
    engine.unsupported().map_or(Ok(()), |why| Err(CentralError::refused(why)))
}

/// Whether Citus distributes the table of sessions. Read only where its catalog exists.
const IS_DISTRIBUTED: &str = "\
    SELECT EXISTS (SELECT FROM pg_dist_partition \
        WHERE logicalrelid = to_regclass('supervisor_sessions') AND partmethod IN ('h', 'r', 'a'))";

/// Refuses a table of sessions that is distributed over several servers.
pub(super) async fn check_distribution(link: &mut Link) -> Result<(), CentralError> {
    match link.rows(sqlx::query(IS_DISTRIBUTED)).await?.first() {
        Some(row) if column(row, 0)? => Err(CentralError::refused(
            "central's supervisor_sessions is distributed by Citus, whose servers number their transactions each for \
             itself, so that hosts would miss changes; make it local: SELECT undistribute_table('supervisor_sessions')",
        )),
        _ => Ok(()),
    }
}

/// Refuses a table of sessions in which pushes cannot find a row by its id.
pub(super) async fn check_key(link: &mut Link) -> Result<(), CentralError> {
    let rows = link.rows(sqlx::query(sql::SESSION_KEY)).await?;
    let why = rows.first().map(unusable_key).transpose();
    let why = why.map_err(|error| CentralError::retry(format!("central's answer is not understood: {error}")))?;
    why.flatten().map_or(Ok(()), |why| Err(CentralError::refused(why)))
}

/// Why a push cannot find the row of a session, by a row of `session_key.sql`, if it cannot.
pub(super) fn unusable_key(row: &PgRow) -> Result<Option<String>, sqlx::Error> {
    let (has_key, is_partitioned): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    let (state, advice) = if is_partitioned {
        (
            " (it is partitioned by another column)",
            "create it again with PRIMARY KEY (instance_id) and PARTITION BY HASH (instance_id)",
        )
    } else {
        ("", "run ALTER TABLE supervisor_sessions ADD PRIMARY KEY (instance_id)")
    };
    Ok((!has_key).then(|| {
        format!(
            "central's supervisor_sessions has no unique index on instance_id alone{state}, by which hosts find the row \
             of a session; {advice}"
        )
    }))
}

/// The triggers that mark and announce changes and that are absent or disabled.
pub(super) async fn missing_triggers(link: &mut Link) -> Result<Vec<String>, CentralError> {
    let rows = link.rows(sqlx::query(sql::MISSING_TRIGGERS)).await?;
    let trigger = |row: &PgRow| Ok(missing(&column::<String>(row, 0)?, &column::<String>(row, 1)?, column(row, 2)?));
    rows.iter().map(trigger).collect()
}

/// The same in a transaction of its own.
pub(super) async fn missing_triggers_now(link: &mut Link) -> Result<Vec<String>, CentralError> {
    link.begin_reading(Access::Read).await?;
    let missing = missing_triggers(link).await?;
    link.commit().await?;
    Ok(missing)
}

/// A trigger as messages name it.
pub(super) fn missing(name: &str, table: &str, exists: bool) -> String {
    format!("{name} on {table}{}", if exists { " (disabled)" } else { "" })
}
