//! The sessions that one session may get in the way of: the same rule as [`crate::domain::overlap`], by indexes, for the
//! answers that are given all day.

use std::collections::BTreeSet;

use rusqlite::params;

use crate::domain::{InstanceId, Status};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::tables::columns::is_active;
use crate::store::tables::session_record::Record;
use crate::store::tables::sessions::parsed;

/// The most sessions that are named to another: all sessions of a project may be on one epic.
pub const MAX_CONFLICTS: usize = 10;

/// The active sessions of a place but the one given, by the place's index.
macro_rules! query {
    ($index:literal, $place:literal) => {
        concat!(
            "SELECT instance_id FROM sessions INDEXED BY ",
            $index,
            " WHERE ",
            $place,
            " AND status = 'active' AND instance_id <> ?3 AND ",
            is_active!("?4", "?5"),
            " ORDER BY instance_id LIMIT ?6"
        )
    };
}

const WORKTREE: &str = query!("sessions_in_worktree", "worktree = ?1 AND host_machine = ?2");
const BRANCH: &str = query!("sessions_on_branch", "branch = ?1 AND repository = ?2");
const EPIC: &str = query!("sessions_on_epic", "current_epic = ?1 AND project = ?2");

/// Up to [`MAX_CONFLICTS`] active sessions that share the working tree, the branch or the epic of this one, in the order
/// of their ids. A session that is not active conflicts with none.
pub(in crate::store) fn of(op: &Op<'_>, record: &Record) -> Result<Vec<InstanceId>, StoreError> {
    let session = &record.session;
    if record.status_now(op) != Status::Active {
        return Ok(Vec::new());
    }
    let work = record.work.as_deref();
    let worktree = work.and_then(|work| work.worktree.as_deref()).map(|tree| (tree, session.host_machine.as_str()));
    let branch = work.and_then(|work| work.branch.as_deref().zip(work.repository.as_deref()));
    let epic = session.current_epic.as_deref().map(|epic| (epic, session.project.as_str()));
    let mut found = BTreeSet::new();
    for (query, place) in [(WORKTREE, worktree), (BRANCH, branch), (EPIC, epic)] {
        if let Some(place) = place {
            add(op, record, query, place, &mut found)?;
        }
    }
    Ok(found.into_iter().take(MAX_CONFLICTS).collect())
}

fn add(
    op: &Op<'_>,
    record: &Record,
    query: &str,
    (place, of): (&str, &str),
    found: &mut BTreeSet<InstanceId>,
) -> Result<(), StoreError> {
    let [from, until] = op.active_between();
    let mut statement = op.db.prepare_cached(query)?;
    let own = record.session.instance_id.as_str();
    let rows = statement.query_map(params![place, of, own, from, until, MAX_CONFLICTS as i64], |row| {
        parsed(row, 0, InstanceId::parse)
    })?;
    for id in rows {
        found.insert(id?);
    }
    Ok(())
}
