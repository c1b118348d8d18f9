//! What follows for the events and the work in the store when central's tables change: those of types that central does not take
//! are parked, and those that were parked for that reason alone are freed once it takes them.
//!
//! The first turn writes what central has, which appending goes by from then on, and a mark that the events which
//! were there before are not examined yet. The last turn deletes the mark; while it is there, the next handshake
//! starts over.

use rusqlite::{Connection, Params, Row, params};

use crate::domain::{HistoryTables, RecordKind, TableState, Timestamp};
use crate::store::error::StoreError;
use crate::store::sqlite::turns::ROWS;
use crate::store::sync_state::record_outbox;
use crate::store::sync_state::record_outbox::UNKNOWN_TYPE;
use crate::store::tables::{metadata, session_work};

/// Metadata that is there until all events have been examined.
const INCOMPLETE: &str = "central_history_incomplete";
/// Its value if central also has a new column for the agents, which it got without them.
const WITH_AGENTS: i64 = 2;

/// The events that the next turn examines: parked ones by when they were parked, then unsynced ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum LearnPlace {
    Start,
    Parked {
        after: (i64, i64),
    },
    Unsynced {
        after_seq: i64,
    },
    /// After the events, the sessions whose work central lacks.
    Work {
        after_row: i64,
    },
}

impl LearnPlace {
    pub(in crate::store) const FIRST: Self = Self::Start;
}

/// An event as far as it is examined.
struct Event {
    seq: i64,
    parked_at: i64,
    is_taken: bool,
    is_of_unknown_type: bool,
}

/// One turn: examines at most [`ROWS`] events. Returns where the next one continues; none if all is done.
pub(in crate::store) fn turn(
    db: &Connection,
    there: &HistoryTables,
    place: LearnPlace,
    at: Timestamp,
) -> Result<Option<LearnPlace>, StoreError> {
    match place {
        LearnPlace::Start => begin(db, there),
        LearnPlace::Parked { after } => free(db, there, after).map(Some),
        LearnPlace::Unsynced { after_seq } => park(db, there, after_seq, at).map(Some),
        LearnPlace::Work { after_row } => offer_work(db, there, after_row, at),
    }
}

fn begin(db: &Connection, there: &HistoryTables) -> Result<Option<LearnPlace>, StoreError> {
    let incomplete = metadata::get_integer(db, INCOMPLETE)?;
    let before = record_outbox::tables(db)?;
    if incomplete.is_none() && before.as_ref() == Some(there) {
        return Ok(None);
    }
    let lacked_agents = before.is_some_and(|before| before.work == TableState::Usable && !before.work_has_agent);
    let are_new = there.work_has_agent && (lacked_agents || incomplete == Some(WITH_AGENTS));
    metadata::set(db, "central_history", &record_outbox::tables_to_json(there))?;
    metadata::set(db, INCOMPLETE, &if are_new { WITH_AGENTS } else { 1 })?;
    Ok(Some(LearnPlace::Parked { after: (i64::MIN, i64::MIN) }))
}

fn free(db: &Connection, there: &HistoryTables, after: (i64, i64)) -> Result<LearnPlace, StoreError> {
    let events = events(
        db,
        there,
        "SELECT seq, parked_at, type, parked_error FROM records WHERE parked_at IS NOT NULL \
             AND (parked_at, seq) > (?1, ?2) ORDER BY parked_at, seq LIMIT ?3",
        params![after.0, after.1, ROWS as i64],
    )?;
    let mut free = db.prepare_cached("UPDATE records SET parked_at = NULL, parked_error = NULL WHERE seq = ?1")?;
    for event in events.iter().filter(|event| event.is_of_unknown_type && event.is_taken) {
        free.execute([event.seq])?;
    }
    Ok(match events.last().filter(|_| events.len() == ROWS) {
        Some(last) => LearnPlace::Parked { after: (last.parked_at, last.seq) },
        None => LearnPlace::Unsynced { after_seq: i64::MIN },
    })
}

fn park(db: &Connection, there: &HistoryTables, after_seq: i64, at: Timestamp) -> Result<LearnPlace, StoreError> {
    let events = events(
        db,
        there,
        "SELECT seq, 0 AS parked_at, type, NULL AS parked_error FROM records WHERE kind = 'event' AND unsynced = 1 AND parked_at IS NULL \
             AND seq > ?1 ORDER BY seq LIMIT ?2",
        [after_seq, ROWS as i64],
    )?;
    let mut park = db.prepare_cached("UPDATE records SET parked_at = ?2, parked_error = ?3 WHERE seq = ?1")?;
    for event in events.iter().filter(|event| !event.is_taken) {
        park.execute(params![event.seq, at.micros(), UNKNOWN_TYPE])?;
    }
    if let Some(last) = events.last().filter(|_| events.len() == ROWS) {
        return Ok(LearnPlace::Unsynced { after_seq: last.seq });
    }
    Ok(LearnPlace::Work { after_row: i64::MIN })
}

/// A table for work that was not there before: what waits for it is pushed. So is all work with an agent, if central got
/// a column for that.
fn offer_work(
    db: &Connection,
    there: &HistoryTables,
    after_row: i64,
    at: Timestamp,
) -> Result<Option<LearnPlace>, StoreError> {
    let again = metadata::get_integer(db, INCOMPLETE)? == Some(WITH_AGENTS);
    if there.work == TableState::Usable
        && let Some(after_row) = session_work::offer_unsynced(db, (after_row, ROWS), again, at)?
    {
        return Ok(Some(LearnPlace::Work { after_row }));
    }
    metadata::delete(db, INCOMPLETE)?;
    Ok(None)
}

fn events(db: &Connection, there: &HistoryTables, query: &str, after: impl Params) -> Result<Vec<Event>, StoreError> {
    let event = |row: &Row<'_>| {
        let is_taken = there.is_absent(RecordKind::Event) || there.accepts(row.get_ref("type")?.as_str()?);
        let is_of_unknown_type = row.get_ref("parked_error")?.as_str_or_null()? == Some(UNKNOWN_TYPE);
        Ok(Event { seq: row.get("seq")?, parked_at: row.get("parked_at")?, is_taken, is_of_unknown_type })
    };
    Ok(db.prepare_cached(query)?.query_map(after, event)?.collect::<Result<_, _>>()?)
}
