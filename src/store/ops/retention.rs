//! Pruning: closed sessions that central has leave this host some time after they ended.
//!
//! It runs in turns, each a job of the writer with a bounded number of rows and bytes, so that other writes wait for
//! one turn at most, however much there is to delete. A session whose history takes several turns keeps the rest of
//! it until the last one; central has all of it.

use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::Timestamp;
use crate::domain::agent::AgentKind;
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::sqlite::turns::{Budget, ROWS};
use crate::store::sync_state::{activity_history, record_outbox};
use crate::store::tables::columns::{OURS, ours};
use crate::store::tables::metadata;
use crate::store::tables::sessions;
use crate::store::tables::sessions::COLUMNS;

/// Condition on a session `s` that it is a headless one whose last heartbeat was before ?2. A single prompt is not resumed.
const IS_ABANDONED: &str = concat!(ours!(), " AND status = 'stale' AND kind = ?1 AND last_heartbeat < ?2");

/// What a turn of [`close_headless`] did.
pub(in crate::store) struct HeadlessTurn {
    pub closed: usize,
    /// The row behind which the next turn continues; none if no stale session is left.
    pub next: Option<i64>,
}

/// Closes headless sessions that were killed long ago, as only what is closed is pruned. A turn examines at most
/// [`ROWS`] stale sessions behind `after_row`.
pub(in crate::store) fn close_headless(
    op: &Op<'_>,
    silent_since: Timestamp,
    after_row: i64,
) -> Result<HeadlessTurn, StoreError> {
    let db = op.db;
    let examined: Vec<i64> = db
        .prepare_cached(&format!(
            "SELECT rowid FROM sessions INDEXED BY sessions_ended WHERE {OURS} AND status <> 'active' \
                 AND status = 'stale' AND closed_at IS NULL AND rowid > ?1 ORDER BY rowid LIMIT ?2",
        ))?
        .query_map([after_row, ROWS as i64], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut find =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions s WHERE rowid = ?3 AND {IS_ABANDONED}"))?;
    let mut closed = 0;
    for row in &examined {
        let key = params![AgentKind::Headless.as_str(), silent_since.micros(), row];
        if let Some(mut found) = find.query_row(key, sessions::read_record).optional()? {
            found.session.close(op.now);
            found.process = None;
            sessions::save(op, &mut found)?;
            activity_history::record_activity(db, &found.session.instance_id, None, op.now)?;
            closed += 1;
        }
    }
    let next = examined.last().copied().filter(|_| examined.len() == ROWS);
    Ok(HeadlessTurn { closed, next })
}

/// A place in the order in which sessions are pruned: by the time they were closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct PrunePlace {
    closed_at: i64,
    row: i64,
}

impl PrunePlace {
    pub(in crate::store) const FIRST: Self = Self { closed_at: i64::MIN, row: i64::MIN };
}

/// What one turn did.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct PruneTurn {
    /// How many sessions left this host.
    pub pruned: usize,
    /// Where the next turn continues; none if nothing is left to prune.
    pub next: Option<PrunePlace>,
}

struct PruneCandidate {
    place: PrunePlace,
    id: String,
    /// Central has all of it.
    is_done: bool,
}

/// Prunes sessions that were closed before `closed_before`, from behind `place` on, until the turn is used up.
pub(in crate::store) fn turn(
    db: &Connection,
    closed_before: Timestamp,
    place: PrunePlace,
) -> Result<PruneTurn, StoreError> {
    let mut turn = PruneTurn { pruned: 0, next: Some(place) };
    let mut budget = Budget::new();
    let mut place = place;
    let query = candidate_query(db)?;
    // A session is examined only when the turn reaches it: most turns end within one session.
    for _ in 0..ROWS {
        let Some(candidate) = next_candidate(db, &query, closed_before, place)? else {
            turn.next = None;
            return Ok(turn);
        };
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
        place = candidate.place;
        turn.next = Some(place);
    }
    Ok(turn)
}

/// The next session to examine: of those closed at the time of the place, the one in the next row, else the first of
/// those closed next. Each part is a search in the index, however many sessions were closed at one time; a comparison
/// of both at once would read and sort all of them.
fn candidate_query(db: &Connection) -> Result<String, StoreError> {
    let found =
        "SELECT closed_at, rowid AS row, instance_id, unsynced_since IS NULL AND parked_at IS NULL AS is_synced";
    let closed = format!(
        "FROM sessions INDEXED BY sessions_ended \
         WHERE {OURS} AND status <> 'active' AND status = 'closed' AND closed_at"
    );
    Ok(format!(
        "SELECT closed_at, row, instance_id, is_synced AND {} AS is_done FROM ( \
             SELECT * FROM ({found} {closed} = ?2 AND ?2 < ?1 AND rowid > ?3 ORDER BY rowid LIMIT 1) \
             UNION ALL \
             SELECT * FROM ({found} {closed} = (SELECT min(closed_at) {closed} > ?2 AND closed_at < ?1) \
                 ORDER BY rowid LIMIT 1)) AS s \
         LIMIT 1",
        record_outbox::nothing_left(db)?
    ))
}

fn next_candidate(
    db: &Connection,
    query: &str,
    closed_before: Timestamp,
    place: PrunePlace,
) -> Result<Option<PruneCandidate>, StoreError> {
    let candidate = |row: &rusqlite::Row<'_>| {
        Ok(PruneCandidate {
            place: PrunePlace { closed_at: row.get("closed_at")?, row: row.get("row")? },
            id: row.get("instance_id")?,
            is_done: row.get("is_done")?,
        })
    };
    Ok(db
        .prepare_cached(query)?
        .query_row(params![closed_before.micros(), place.closed_at, place.row], candidate)
        .optional()?)
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
    let generation = metadata::get_integer(db, metadata::MIRROR_GENERATION)?.unwrap_or(0);
    db.prepare_cached("DELETE FROM aliases WHERE instance_id = ?1")?.execute([id])?;
    db.prepare_cached(
        "UPDATE sessions SET pid = NULL, pid_started = NULL, \
             mirror_generation = ?2 WHERE instance_id = ?1",
    )?
    .execute(params![id, generation])?;
    Ok(())
}
