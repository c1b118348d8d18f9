//! The activity history: recording changes in the transaction that makes them, and reading them.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use crate::domain::activity::Activity;
use crate::domain::activity_history::{
    ActivityChange, HourOfActivity, KEPT, MAX_CHANGES, add_hours, context_point, next_change,
};
use crate::domain::{InstanceId, Timestamp};
use crate::store::error::StoreError;
use crate::store::sqlite::turns::ROWS;
use crate::store::tables::activity_changes;
use crate::store::tables::session_record::Record;

/// So many changes are kept of all sessions together: some 30 MB. Users are not refused anything for their history, so
/// it must not be able to fill the store.
const MAX_OF_ALL: i64 = 200_000;

/// Changes of a session, in order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActivityHistory {
    /// In order of time.
    pub changes: Vec<ActivityChange>,
    /// The time of the change after the last of these, if there are more.
    pub next: Option<Timestamp>,
}

/// Records what a session does from now on, unless that is what it did before.
pub(in crate::store) fn record_activity(
    db: &Connection,
    id: &InstanceId,
    activity: Option<&Activity>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let newest = activity_changes::newest(db, id)?;
    let Some(mut change) = next_change(newest.as_ref(), activity, 0, now) else { return Ok(()) };
    change.context_percent = db
        .prepare_cached("SELECT context_percent FROM sessions WHERE instance_id = ?1")?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    insert(db, id, &change)
}

/// Records how full the context of a session is, which changed.
pub(in crate::store) fn record_context(db: &Connection, record: &Record, now: Timestamp) -> Result<(), StoreError> {
    let id = &record.session.instance_id;
    let newest = activity_changes::newest(db, id)?;
    let work = record.work.as_ref().filter(|work| !work.activity_ended);
    let activity = work.and_then(|work| work.activity.as_ref());
    match context_point(newest.as_ref(), activity, record.session.context_percent, now) {
        Some(change) => insert(db, id, &change),
        None => Ok(()),
    }
}

fn insert(db: &Connection, id: &InstanceId, change: &ActivityChange) -> Result<(), StoreError> {
    let seq = activity_changes::insert(db, id, change)?;
    activity_changes::keep_newest(db, id, MAX_CHANGES)?;
    activity_changes::delete_up_to(db, seq.saturating_sub(MAX_OF_ALL), 2)
}

/// Imports changes of a mirrored session.
pub(in crate::store) fn import(db: &Connection, id: &InstanceId, changes: &[ActivityChange]) -> Result<(), StoreError> {
    let mut in_order: Vec<_> = changes.iter().collect();
    in_order.sort_by_key(|change| change.at);
    let mut newest = None;
    for change in &in_order {
        newest = activity_changes::insert_mirrored(db, id, change)?.or(newest);
    }
    if let Some(seq) = newest {
        activity_changes::keep_newest(db, id, MAX_CHANGES)?;
        activity_changes::delete_up_to(db, seq.saturating_sub(MAX_OF_ALL), in_order.len() + 1)?;
    }
    Ok(())
}

/// The changes of a session from `since` on.
pub(in crate::store) fn list(
    db: &Connection,
    id: &InstanceId,
    since: Timestamp,
    limit: usize,
) -> Result<ActivityHistory, StoreError> {
    let mut changes = activity_changes::list(db, id, since, limit + 1)?;
    let next = changes.get(limit).map(|change| change.at);
    changes.truncate(limit);
    Ok(ActivityHistory { changes, next })
}

/// What the sessions of each machine did in each of the hours that begin at `from`.
pub(in crate::store) fn hours(
    db: &Connection,
    from: Timestamp,
    count: usize,
    now: Timestamp,
) -> Result<BTreeMap<String, Vec<HourOfActivity>>, StoreError> {
    let mut machines: BTreeMap<String, Vec<HourOfActivity>> = BTreeMap::new();
    let mut current = (String::new(), String::new(), Vec::new());
    let mut add = |(_, machine, changes): &(String, String, Vec<ActivityChange>)| {
        let hours = machines.entry(machine.clone()).or_insert_with(|| vec![HourOfActivity::default(); count]);
        add_hours(hours, from, changes, now);
    };
    activity_changes::of_all(db, |id, machine, change| {
        if id != current.0 {
            if !current.2.is_empty() {
                add(&current);
            }
            current = (id.to_owned(), machine.to_owned(), Vec::new());
        }
        current.2.push(change);
    })?;
    if !current.2.is_empty() {
        add(&current);
    }
    Ok(machines)
}

/// Whether there are changes that are too old to be kept.
pub(in crate::store) fn any_expired(db: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    activity_changes::any_before(db, now.minus(KEPT))
}

/// Deletes some of the changes that are too old to be kept. Returns whether there may be more.
pub(in crate::store) fn delete_expired(db: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    Ok(activity_changes::delete_before(db, now.minus(KEPT), ROWS)? == ROWS)
}
