//! The mirror: the sessions of all other machines, and what others did to this host's own.
//!
//! A mirrored session is a row like any other, with the generation of reading in which central last had it.

use std::time::Duration;

use rusqlite::{Connection, params};

use crate::domain::mirror::{ChangePage, Continuation, DeletedSession, PullQuery};
use crate::domain::{HistoryRecord, Session, SessionWork, Status, TimedSession};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::sqlite::turns::Budget;
use crate::store::sync_state::batch_result::Renamed;
use crate::store::sync_state::{
    activity_history, batch_result, mirror_cursor, mirror_history, mirror_share, on_demand,
};
use crate::store::tables::columns::mirrored;
use crate::store::tables::session_record::Record;
use crate::store::tables::{metadata, session_work, sessions};

/// What came of an import.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PageResult {
    /// The sessions of this host that got a new id, because central has another session under theirs.
    pub renamed: Vec<Renamed>,
    /// How many rows were written, of any table. Rows that are here as central has them are not.
    pub written: u64,
}

impl PageResult {
    pub(in crate::store) fn add(&mut self, other: Self) {
        self.renamed.extend(other.renamed);
        self.written += other.written;
    }
}

/// How many rows one job of the writer imports, so that other writes do not wait longer.
const TURN: usize = 250;

/// A session is deleted with its history.
const DELETED_AT_ONCE: usize = 25;

/// A snapshot of the work takes up to five pages, and comes with up to 100 changes of its activity.
const SNAPSHOTS_AT_ONCE: usize = 10;

/// How much older than the truth the time on disk may be.
const TIME_WRITTEN_EVERY: Duration = Duration::from_secs(60);

/// A part of a page, small enough for one job of the writer.
#[derive(Default)]
pub(in crate::store) struct Turn {
    /// Everything is read, not only what changed.
    is_whole: bool,
    /// It begins a reading of everything.
    begins: bool,
    gone: Vec<DeletedSession>,
    sessions: Vec<TimedSession>,
    work: Vec<SessionWork>,
    history: Vec<HistoryRecord>,
    /// It ends the reading: where the next one begins.
    next_since: Option<u64>,
    /// Somebody asked for it: it is of no reading.
    on_demand: bool,
}

impl Turn {
    /// The parts of a page, in order: deletions first, the end of the reading last.
    pub(in crate::store) fn of(reading: &PullQuery, changes: ChangePage) -> Vec<Self> {
        let rows = changes.sessions.len()
            + changes.gone.len() * (TURN / DELETED_AT_ONCE)
            + changes.work.len() * (TURN / SNAPSHOTS_AT_ONCE)
            + changes.history.len();
        let begins = reading.is_whole() && reading.after.is_none();
        let next_since = match changes.rest {
            Continuation::Complete { next_since } => Some(next_since),
            Continuation::More(_) | Continuation::Restart => None,
        };
        let ChangePage { sessions, work, gone, history, .. } = changes;
        let is_whole = reading.is_whole();
        // What a reading of everything did not meet is deleted before its end.
        if rows <= TURN && !(is_whole && next_since.is_some()) {
            return vec![Self { is_whole, begins, gone, sessions, work, history, next_since, on_demand: false }];
        }
        let mut turns = vec![Self { is_whole, begins, ..Self::default() }];
        turns.extend(chunks(gone, DELETED_AT_ONCE).map(|gone| Self { is_whole, gone, ..Self::default() }));
        turns.extend(chunks(sessions, TURN).map(|sessions| Self { is_whole, sessions, ..Self::default() }));
        turns.extend(chunks(work, SNAPSHOTS_AT_ONCE).map(|work| Self { is_whole, work, ..Self::default() }));
        turns.extend(chunks(history, TURN).map(|history| Self { is_whole, history, ..Self::default() }));
        turns.push(Self { is_whole, next_since, ..Self::default() });
        turns.retain(|turn| turn.begins || turn.rows() > 0 || turn.finishes());
        turns
    }

    /// The parts of what somebody asked for.
    pub(in crate::store) fn of_found(page: ChangePage) -> Vec<Self> {
        let page = ChangePage { gone: Vec::new(), rest: Continuation::Restart, ..page };
        let turns = Self::of(&PullQuery::since(1), page).into_iter();
        turns.map(|turn| Self { on_demand: true, ..turn }).collect()
    }

    fn rows(&self) -> usize {
        self.gone.len() + self.sessions.len() + self.work.len() + self.history.len()
    }

    /// Does it delete sessions?
    pub(in crate::store) fn deletes(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Does it end a reading of everything?
    pub(in crate::store) fn finishes_whole(&self) -> bool {
        self.is_whole && self.finishes()
    }

    /// Does it end the reading?
    pub(in crate::store) fn finishes(&self) -> bool {
        self.next_since.is_some()
    }
}

fn chunks<T>(mut all: Vec<T>, size: usize) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let rest = all.split_off(all.len().min(size));
        let chunk = std::mem::replace(&mut all, rest);
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Imports a part of what changed in central.
pub(in crate::store) fn import(op: &Op<'_>, turn: &Turn) -> Result<PageResult, StoreError> {
    let db = op.db;
    let before = db.total_changes();
    let mut generation = metadata::get_integer(db, metadata::MIRROR_GENERATION)?.unwrap_or(0);
    if turn.begins {
        generation += 1;
        metadata::set_integer(db, metadata::MIRROR_GENERATION, generation)?;
        mirror_cursor::read_everything(db)?;
        if mirror_cursor::as_of(db)?.is_none() {
            // If this reading is interrupted, what it brought is as new as its first page.
            mirror_cursor::set_as_of(db, op.now)?;
        }
        db.execute("DELETE FROM mirror_seen", [])?;
    }
    // A change may be read of a session whose id the reading of everything has passed.
    let is_beside_whole = !turn.is_whole && !turn.on_demand && mirror_cursor::is_everything_unread(db)?;
    turn.gone.iter().try_for_each(|gone| delete(db, gone))?;
    let mut imported = PageResult::default();
    for session in &turn.sessions {
        if turn.is_whole || is_beside_whole {
            db.prepare_cached("INSERT OR IGNORE INTO mirror_seen (instance_id) VALUES (?1)")?
                .execute([session.instance_id.as_str()])?;
        }
        if turn.on_demand {
            on_demand::import_session(op, session, generation)?;
        } else {
            imported.renamed.extend(import_session(op, turn.is_whole, session, generation)?);
        }
    }
    for work in &turn.work {
        session_work::upsert_mirrored(db, work)?;
        activity_history::import(db, &work.instance_id, &work.changes)?;
    }
    mirror_history::keep_history(db, &turn.history)?;
    if let Some(next_since) = turn.next_since {
        if turn.is_whole {
            db.execute("DELETE FROM mirror_seen", [])?;
        }
        // What made room for this host's own writes is read again once there is room for it.
        let next_since = if mirror_share::can_be_completed(db)? { 0 } else { next_since };
        metadata::set_integer(db, "mirror_since", i64::try_from(next_since).unwrap_or(0))?;
        let recent = mirror_cursor::as_of(db)?.is_some_and(|written| op.now.since(written) < TIME_WRITTEN_EVERY);
        if db.total_changes() > before || !recent {
            mirror_cursor::set_as_of(db, op.now)?;
        }
    }
    imported.written = db.total_changes() - before;
    Ok(imported)
}

/// Deletes the history of the sessions that this part deletes, one turn of it: a session with long texts lies on many
/// pages. Says whether there is more.
pub(in crate::store) fn delete_history(db: &Connection, part: &Turn) -> Result<bool, StoreError> {
    let mut budget = Budget::new();
    for gone in &part.gone {
        let is_here = db
            .prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM sessions WHERE {IS_GONE})"))?
            .query_row(params![gone.instance_id, gone.created_at.micros()], |row| row.get(0))?;
        if is_here && !budget.delete_records(db, &gone.instance_id)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Condition on a mirrored session that it is the deleted one.
const IS_GONE: &str = concat!("instance_id = ?1 AND created_at = ?2 AND ", mirrored!());

/// Those of these deletions that concern a mirrored session.
pub(in crate::store) fn only_mirrored(
    db: &Connection,
    mut gone: Vec<DeletedSession>,
) -> Result<Vec<DeletedSession>, StoreError> {
    let mut is_here = db.prepare_cached(&format!("SELECT 1 FROM sessions WHERE {IS_GONE}"))?;
    let here = gone.iter().map(|gone| is_here.exists(params![gone.instance_id, gone.created_at.micros()]));
    let mut here = here.collect::<Result<Vec<_>, _>>()?.into_iter();
    gone.retain(|_| here.next().unwrap_or(true));
    Ok(gone)
}

/// How many sessions one turn of [`drop_unseen`] examines.
const EXAMINED: i64 = 500;

/// Deletes sessions that a reading of everything did not meet, of those behind a row; one turn of it. Returns the row
/// behind which the next turn continues, or none at the end of the table.
pub(in crate::store) fn drop_unseen(db: &Connection, after_row: i64) -> Result<Option<i64>, StoreError> {
    let generation = metadata::get_integer(db, metadata::MIRROR_GENERATION)?.unwrap_or(0);
    let examined: Vec<(i64, String, bool)> = db
        .prepare_cached(
            "SELECT rowid, instance_id, coalesce(mirror_generation < ?3, 0) \
                 AND NOT EXISTS (SELECT 1 FROM mirror_seen WHERE instance_id = s.instance_id) \
             FROM sessions s WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
        )?
        .query_map([after_row, EXAMINED, generation], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    let is_end = examined.len() < EXAMINED as usize;
    let mut delete = db.prepare_cached("DELETE FROM sessions WHERE rowid = ?1")?;
    let (mut budget, mut deleted, mut last) = (Budget::new(), 0, after_row);
    for (row, id, is_unseen) in examined {
        if is_unseen {
            if deleted == DELETED_AT_ONCE || !budget.delete_records(db, &id)? {
                return Ok(Some(last));
            }
            deleted += delete.execute([row])?;
        }
        last = row;
    }
    Ok((!is_end).then_some(last))
}

fn delete(db: &Connection, gone: &DeletedSession) -> Result<(), StoreError> {
    db.prepare_cached(&format!("DELETE FROM sessions WHERE {IS_GONE}"))?
        .execute(params![gone.instance_id, gone.created_at.micros()])?;
    Ok(())
}

fn import_session(
    op: &Op<'_>,
    is_whole: bool,
    session: &TimedSession,
    generation: i64,
) -> Result<Option<Renamed>, StoreError> {
    let db = op.db;
    match sessions::exactly(db, session.instance_id.as_str())? {
        Some(own) if !own.mirrored && own.session.created_at == session.created_at => {
            merge(op, is_whole, own, session)?;
            Ok(None)
        }
        Some(own) if !own.mirrored => {
            let renamed = batch_result::give_up_id(op, &own.session.instance_id)?;
            sessions::upsert_mirrored(db, session, generation, None)?;
            Ok(renamed)
        }
        // It may be read any number of times while a transaction in central runs for long.
        Some(known) if known.read_at.is_none() && is_same(&known, session) => Ok(None),
        _ => {
            sessions::upsert_mirrored(db, session, generation, None)?;
            Ok(None)
        }
    }
}

fn is_same(known: &Record, session: &TimedSession) -> bool {
    known.session == session.session && known.vouched_by == session.vouched_by
}

/// What others did to a session of this host: closed it, changed columns of it, or sent a later heartbeat.
fn merge(op: &Op<'_>, is_whole: bool, own: Record, central: &TimedSession) -> Result<(), StoreError> {
    let &Op { db, now, .. } = op;
    let id = own.session.instance_id.clone();
    let closed = |session: &Session| session.status == Status::Closed;
    let mut merged = own.clone();
    // Closed is permanent: a central that lost it, or where a client opened the session again, is offered it again.
    let mut lost = closed(&own.session) && !closed(central);
    lost |= merged.merge_columns(central, is_whole);
    if !closed(&own.session) && !closed(central) && !is_whole {
        merged.merge_heartbeat(op, central);
    }
    if merged != own {
        sessions::save_merged(db, &merged)?;
    }
    if closed(central) && !closed(&own.session) {
        batch_result::closed_elsewhere(db, &id, central.closed_at.unwrap_or(now))?;
    }
    if lost { batch_result::offer_again(db, &id, now) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
