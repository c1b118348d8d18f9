//! Pruning: closed sessions that central has leave this host some time after they ended.
//!
//! It runs in turns, each a job of the writer with a bounded number of rows and bytes, so that other writes wait for
//! one turn at most, however much there is to delete. A session whose history takes several turns keeps the rest of
//! it until the last one; central has all of it.

use rusqlite::{Connection, params};

use super::StoreError;
use super::history;
use super::turns::{Budget, ROWS};
use crate::domain::Timestamp;

/// A place in the order in which sessions are pruned: by the time they were closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrunePlace {
    closed_at: i64,
    row: i64,
}

impl PrunePlace {
    pub const FIRST: Self = Self { closed_at: i64::MIN, row: i64::MIN };
}

/// What one turn did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PruneTurn {
    /// How many sessions left this host.
    pub pruned: usize,
    /// Where the next turn continues; none if nothing is left to prune.
    pub next: Option<PrunePlace>,
}

struct Candidate {
    place: PrunePlace,
    id: String,
    /// Central has all of it.
    is_done: bool,
}

/// Prunes sessions that were closed before `closed_before`, from behind `place` on, until the turn is used up.
pub(super) fn turn(db: &Connection, closed_before: Timestamp, place: PrunePlace) -> Result<PruneTurn, StoreError> {
    let mut turn = PruneTurn { pruned: 0, next: Some(place) };
    let mut budget = Budget::new();
    let candidates = candidates(db, closed_before, place)?;
    let is_last = candidates.len() < ROWS;
    for candidate in candidates {
        if candidate.is_done {
            if !budget.delete_records(db, &candidate.id)? || !budget.take_row() {
                return Ok(turn);
            }
            if !delete_agent_ids(db, &candidate.id, &mut budget)? {
                return Ok(turn);
            }
            hand_to_mirror(db, &candidate.id)?;
            turn.pruned += 1;
        }
        turn.next = Some(candidate.place);
    }
    if is_last {
        turn.next = None;
    }
    Ok(turn)
}

fn candidates(db: &Connection, closed_before: Timestamp, place: PrunePlace) -> Result<Vec<Candidate>, StoreError> {
    let candidate = |row: &rusqlite::Row<'_>| {
        Ok(Candidate {
            place: PrunePlace { closed_at: row.get(0)?, row: row.get(1)? },
            id: row.get(2)?,
            is_done: row.get(3)?,
        })
    };
    Ok(db
        .prepare_cached(&format!(
            "SELECT closed_at, s.rowid, instance_id, unsynced_since IS NULL AND parked_at IS NULL AND {} \
             FROM sessions s INDEXED BY sessions_ended WHERE mirror_round IS NULL AND status <> 'active' \
                 AND status = 'closed' AND closed_at < ?1 AND (closed_at, s.rowid) > (?2, ?3) \
             ORDER BY closed_at, s.rowid LIMIT ?4",
            history::nothing_left(db)?
        ))?
        .query_map(params![closed_before.micros(), place.closed_at, place.row, ROWS as i64], candidate)?
        .collect::<Result<_, _>>()?)
}

/// Deletes the ids by which an agent knew a session, while the budget lasts. Says whether none is left.
fn delete_agent_ids(db: &Connection, id: &str, budget: &mut Budget) -> Result<bool, StoreError> {
    let uuids: Vec<String> = db
        .prepare_cached("SELECT uuid FROM claude_ids WHERE instance_id = ?1 LIMIT ?2")?
        .query_map(params![id, ROWS as i64 + 1], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut delete = db.prepare_cached("DELETE FROM claude_ids WHERE uuid = ?1")?;
    for uuid in uuids {
        if !budget.take_row() {
            return Ok(false);
        }
        delete.execute([uuid])?;
    }
    Ok(true)
}

/// What is left of a session is what is mirrored of any host's.
fn hand_to_mirror(db: &Connection, id: &str) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM aliases WHERE instance_id = ?1")?.execute([id])?;
    db.prepare_cached(
        "UPDATE sessions SET pid = NULL, pid_started = NULL, \
             mirror_round = coalesce((SELECT value FROM facts WHERE name = 'mirror_round'), 0) WHERE instance_id = ?1",
    )?
    .execute([id])?;
    Ok(())
}
