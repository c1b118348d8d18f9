//! Writes and reads `sessiond_activity`: when sessions changed what they do.
//!
//! Changes travel with the work of their session, in the same transaction, and are only added: one that is pushed again
//! is not written again. A reader reads them with that work, in the same statement, as JSON. A savepoint of its own keeps an
//! error of this table from keeping back anything that is pushed.

use serde_json::Value;

use super::link::{Link, quoted, with_literals};
use super::pull::page::skip;
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
    link.savepoint().await?;
    let written = match insert(link, &changes).await {
        Ok(()) => link.rows(sqlx::query(sql::DELETE_OLD_ACTIVITY)).await.map(drop),
        failed => failed,
    };
    match written {
        Ok(()) => {
            link.release().await?;
            Ok(true)
        }
        Err(error @ (CentralError::Reject(_) | CentralError::Refused(_))) => {
            tracing::warn!(%error, "central does not accept the history of activities; everything else is pushed");
            link.undo().await?;
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

/// The expression that reads, for a row of `session_work`, the changes of its session that transactions since `since` wrote.
pub(super) fn of_work(since: u64) -> String {
    let of_row = with_literals(sql::READ_ACTIVITY, &["session_work.instance_id".to_owned(), quoted(since)]);
    format!("({of_row})::text")
}

/// Reads the value of that expression.
pub(super) fn changes(json: &str, unreadable: &mut u64) -> Vec<ActivityChange> {
    let mut changes = Vec::new();
    for change in serde_json::from_str::<Vec<Value>>(json).unwrap_or_default() {
        match read(change) {
            Ok(change) => changes.push(change),
            Err(why) => skip("a change of an activity", &why.to_string(), unreadable),
        }
    }
    changes
}

/// Words of a later version count as none.
fn read(change: Value) -> Result<ActivityChange, serde_json::Error> {
    type Columns = (i64, Option<String>, Option<String>, Option<String>, u8);
    let (at, activity, waiting_for, detail, context_percent): Columns = serde_json::from_value(change)?;
    Ok(ActivityChange {
        at: Timestamp::from_micros(at),
        activity: activity.and_then(|state| ActivityState::parse(&state).ok()),
        waiting_for: waiting_for.and_then(|what| WaitingFor::parse(&what).ok()),
        detail,
        context_percent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_that_cannot_be_read_is_counted_and_the_others_are_read() {
        let json = r#"[[1769774400000000, "waiting", "permission", "Bash", 42],
            ["then", "working", null, null, 1], [1, "working", null, null, 256], [1, "working"],
            [0, "dreaming", "rain", "a\u0007b", 0]]"#;
        let mut unreadable = 0;
        let read = changes(json, &mut unreadable);
        assert_eq!((read.len(), unreadable), (2, 3));
        let (activity, waiting_for) = (Some(ActivityState::Waiting), Some(WaitingFor::Permission));
        let [first, of_later_version] = &read[..] else { panic!("{read:?}") };
        assert_eq!((first.at.micros(), first.context_percent), (1_769_774_400_000_000, 42));
        assert_eq!((first.activity, first.waiting_for, first.detail.as_deref()), (activity, waiting_for, Some("Bash")));
        assert_eq!((of_later_version.activity, of_later_version.waiting_for), (None, None));
    }
}
