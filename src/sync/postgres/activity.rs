//! Writes and reads `sessiond_activity`: when sessions changed what they do.
//!
//! Changes travel with the work of their session, in the same transaction, and are only added: one that is pushed again
//! is not written again. A reader asks for those of the sessions whose work it just read. A savepoint of its own keeps an
//! error of this table from keeping back anything else.

use std::collections::HashMap;

use sqlx::postgres::PgRow;

use super::link::{Link, column};
use super::pull::page::{skip, value};
use super::sql;
use crate::domain::activity::{ActivityState, WaitingFor};
use crate::domain::activity_history::ActivityChange;
use crate::domain::{SessionWork, Timestamp};
use crate::sync::central::CentralError;

/// Adds the changes of these sessions. Returns false if central does not accept them.
pub(super) async fn push(link: &mut Link, work: &[&SessionWork]) -> Result<bool, CentralError> {
    let changes: Vec<_> =
        work.iter().flat_map(|work| work.changes.iter().map(|change| (work.instance_id.as_str(), change))).collect();
    if changes.is_empty() {
        return Ok(true);
    }
    link.rows(sqlx::query("SAVEPOINT activity")).await?;
    let written = match insert(link, &changes).await {
        Ok(()) => link.rows(sqlx::query(sql::DELETE_OLD_ACTIVITY)).await.map(drop),
        failed => failed,
    };
    match written {
        Ok(()) => {
            link.rows(sqlx::query("RELEASE SAVEPOINT activity")).await?;
            Ok(true)
        }
        Err(error @ (CentralError::Reject(_) | CentralError::Refused(_))) => {
            tracing::warn!(%error, "central does not accept the history of activities; everything else is pushed");
            link.rows(sqlx::query("ROLLBACK TO SAVEPOINT activity")).await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn insert(link: &mut Link, changes: &[(&str, &ActivityChange)]) -> Result<(), CentralError> {
    let query = sqlx::query(sql::INSERT_ACTIVITY)
        .bind(changes.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.at.micros()).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.activity.map(ActivityState::as_str)).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.waiting_for.map(WaitingFor::as_str)).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| change.detail.as_deref()).collect::<Vec<_>>())
        .bind(changes.iter().map(|(_, change)| i32::from(change.context_percent)).collect::<Vec<_>>());
    link.rows(query).await.map(drop)
}

/// Reads the changes that transactions since `since` wrote of the sessions with this work.
pub(super) async fn pull(
    link: &mut Link,
    since: u64,
    work: &mut [SessionWork],
    unreadable: &mut u64,
) -> Result<(), CentralError> {
    let ids: Vec<String> = work.iter().map(|work| work.instance_id.to_string()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let rows = link.rows(sqlx::query(sql::READ_ACTIVITY).bind(&ids).bind(since.to_string())).await?;
    let mut of_sessions: HashMap<String, Vec<ActivityChange>> = HashMap::new();
    for row in &rows {
        match read(row) {
            Ok(change) => of_sessions.entry(column(row, 0)?).or_default().push(change.with_safe_text()),
            Err(why) => skip("a change of an activity", &why, unreadable),
        }
    }
    for work in work {
        work.changes = of_sessions.remove(work.instance_id.as_str()).unwrap_or_default();
    }
    Ok(())
}

/// Words of a later version count as none.
fn read(row: &PgRow) -> Result<ActivityChange, String> {
    let text = |index| value::<Option<String>>(row, index);
    Ok(ActivityChange {
        at: Timestamp::from_micros(value(row, 1)?),
        activity: text(2)?.and_then(|state| ActivityState::parse(&state).ok()),
        waiting_for: text(3)?.and_then(|what| WaitingFor::parse(&what).ok()),
        detail: text(4)?,
        context_percent: u8::try_from(value::<i32>(row, 5)?).unwrap_or(0),
    })
}
