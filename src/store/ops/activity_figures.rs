//! Figures of what this host's sessions do, for monitoring.
//!
//! Waits are read from the activity history when `/metrics` is requested, so that heartbeats do no work for them.

use std::time::Duration;

use crate::domain::Timestamp;
use crate::domain::activity::ActivityState;
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::tables::activity_changes;
use crate::store::tables::columns::ours;

/// What this host's active sessions do, and how long people let them wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActivityFigures {
    /// How many active sessions are in each state; `None` for those of which no activity is known.
    pub active: Vec<(Option<ActivityState>, u64)>,
    /// How long the waits lasted that ended since the last call.
    pub waits: Vec<Duration>,
    /// Where the next call continues.
    pub read_to: i64,
}

/// `after`: where the last call ended; `None` counts the waits that ended since `since`.
pub(in crate::store) fn read(op: &Op<'_>, after: Option<i64>, since: Timestamp) -> Result<ActivityFigures, StoreError> {
    let read_to = activity_changes::last_number(op.db)?;
    let after = match after {
        Some(after) => after.min(read_to),
        None => activity_changes::last_number_before(op.db, since)?,
    };
    Ok(ActivityFigures { active: active(op)?, waits: activity_changes::ended_waits(op.db, after, read_to)?, read_to })
}

const ACTIVE: &str = concat!(
    "SELECT iif(w.summary ->> '$.activity_ended', NULL, w.summary ->> '$.activity.state') AS now, count(*) \
         FROM sessions s INDEXED BY sessions_running LEFT JOIN session_work w USING (instance_id) WHERE ",
    ours!(),
    " AND status = 'active' AND last_heartbeat > ?1 AND last_heartbeat < ?2 GROUP BY now"
);

fn active(op: &Op<'_>) -> Result<Vec<(Option<ActivityState>, u64)>, StoreError> {
    let counted = op
        .db
        .prepare_cached(ACTIVE)?
        .query_map(op.active_between(), |row| {
            Ok((row.get::<_, Option<String>>(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let count_of = |state: Option<ActivityState>| {
        let is_it = |name: &Option<String>| name.as_deref().and_then(|name| ActivityState::parse(name).ok()) == state;
        counted.iter().filter(|(name, _)| is_it(name)).map(|(_, count)| count).sum()
    };
    let states = ActivityState::ALL.into_iter().map(Some).chain([None]);
    Ok(states.map(|state| (state, count_of(state))).collect())
}
