//! The mirror: the sessions of all other machines, and what others did to this host's own.
//!
//! A mirrored session is a row like any other, with the round of reading in which central last had it.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::sessions::{self, Record};
use super::{Renamed, StoreError, outbox};
use crate::domain::mirror::{Changes, Gone, HostSeen, Reading, Rest};
use crate::domain::session::fresh;
use crate::domain::{HistoryRecord, Session, Status, Timestamp};

/// How much of a mirrored session's history is kept: as much as reconstructing its context takes.
const KEPT_EVENTS: u32 = 50;
const KEPT_COMMANDS: u32 = 20;
const KEPT_CHECKPOINTS: u32 = 1;

/// Random numbers for new ids, should sessions here have to give theirs up.
pub type Draws = [u64; 64];

/// Notes of which timeline of central this is the mirror; that of another has to be read anew.
pub(super) fn of(db: &Connection, timeline: &str) -> Result<(), StoreError> {
    let known: Option<String> = db
        .prepare_cached("SELECT value FROM facts WHERE name = 'mirror_timeline'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    if known.as_deref() == Some(timeline) {
        return Ok(());
    }
    db.execute(
        "INSERT INTO facts (name, value) VALUES ('mirror_timeline', ?1) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [timeline],
    )?;
    read_anew(db)
}

/// Where the next reading begins; 0: everything is to be read.
pub(super) fn since(db: &Connection) -> Result<u64, StoreError> {
    Ok(fact(db, "mirror_since")?.map_or(0, i64::unsigned_abs))
}

/// When the mirror was last known to be true.
pub(super) fn as_of(db: &Connection) -> Result<Option<Timestamp>, StoreError> {
    Ok(fact(db, "mirror_as_of")?.map(Timestamp::from_micros))
}

pub(super) fn set_as_of(db: &Connection, at: Timestamp) -> Result<(), StoreError> {
    set_fact(db, "mirror_as_of", at.micros())
}

/// Central is another, or was restored: everything is read anew.
pub(super) fn read_anew(db: &Connection) -> Result<(), StoreError> {
    set_fact(db, "mirror_since", 0)
}

/// Takes in a page of what changed in central. Returns the sessions of this host that had to give up their
/// ids to somebody else's.
pub(super) fn take_in(
    db: &Connection,
    reading: &Reading,
    changes: &Changes,
    draws: &[u64],
    at: Timestamp,
    stale_after: Duration,
) -> Result<Vec<Renamed>, StoreError> {
    let mut round = fact(db, "mirror_round")?.unwrap_or(0);
    if reading.is_whole() && reading.after.is_none() {
        round += 1;
        set_fact(db, "mirror_round", round)?;
    }
    changes.gone.iter().try_for_each(|gone| bury(db, gone))?;
    let mut renamed = Vec::new();
    for session in &changes.sessions {
        renamed.extend(take(db, session, &Taking { round, draws, at, stale_after, whole: reading.is_whole() })?);
    }
    keep_history(db, &changes.history)?;
    if let Rest::Nothing { next_since } = changes.rest {
        if reading.is_whole() {
            db.execute("DELETE FROM sessions WHERE mirror_round < ?1", [round])?;
        }
        set_fact(db, "mirror_since", i64::try_from(next_since).unwrap_or(0))?;
        set_as_of(db, at)?;
    }
    Ok(renamed)
}

fn bury(db: &Connection, gone: &Gone) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM sessions WHERE instance_id = ?1 AND created_at = ?2 AND mirror_round IS NOT NULL")?
        .execute(params![gone.instance_id, gone.created_at.micros()])?;
    Ok(())
}

/// What taking in a session goes by.
struct Taking<'a> {
    round: i64,
    draws: &'a [u64],
    at: Timestamp,
    stale_after: Duration,
    whole: bool,
}

fn take(db: &Connection, session: &Session, taking: &Taking<'_>) -> Result<Option<Renamed>, StoreError> {
    match sessions::exactly(db, session.instance_id.as_str())? {
        Some(own) if !own.mirrored && own.session.created_at == session.created_at => {
            merge(db, &own, session, taking)?;
            Ok(None)
        }
        Some(own) if !own.mirrored => {
            let renamed = outbox::give_up_id(db, &own.session.instance_id, taking.draws, taking.at)?;
            sessions::mirror(db, session, taking.round)?;
            Ok(renamed)
        }
        _ => {
            sessions::mirror(db, session, taking.round)?;
            Ok(None)
        }
    }
}

/// What others did to a session of this host: closed it, or spoke for it later than anybody here.
fn merge(db: &Connection, own: &Record, central: &Session, taking: &Taking<'_>) -> Result<(), StoreError> {
    let id = &own.session.instance_id;
    if own.session.status == Status::Closed {
        // Closed is for good; a central that forgot of it, or was told otherwise, is told again.
        return if central.status == Status::Closed { Ok(()) } else { outbox::offer_again(db, id, taking.at) };
    }
    if central.status == Status::Closed {
        return outbox::closed_elsewhere(db, id, central.closed_at.unwrap_or(taking.at));
    }
    // What central lacks was said here, and acknowledged: it comes first, whatever the clocks say. And a whole
    // reading brings also what this host itself once said.
    let later = own.unsynced_since.is_none()
        && !taking.whole
        && central.last_heartbeat > own.session.last_heartbeat
        && fresh(central.last_heartbeat, taking.at, taking.stale_after);
    if later { sessions::adopt(db, own, central) } else { Ok(()) }
}

/// History of sessions that are not known here is left out: it comes again with them.
fn keep_history(db: &Connection, history: &[HistoryRecord]) -> Result<(), StoreError> {
    let mut insert = db.prepare_cached(
        "INSERT INTO records (record_id, instance_id, kind, type, at, body) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM sessions WHERE instance_id = ?2) \
         ON CONFLICT (record_id) DO NOTHING",
    )?;
    for of_session in history.chunk_by(|a, b| a.instance_id == b.instance_id) {
        for record in of_session {
            insert.execute(params![
                record.record_id.as_bytes().as_slice(),
                record.instance_id.as_str(),
                record.kind.as_str(),
                record.record_type,
                record.at.micros(),
                serde_json::Value::Object(record.body.clone()).to_string(),
            ])?;
        }
        of_session.first().map_or(Ok(()), |record| forget_old(db, record.instance_id.as_str()))?;
    }
    Ok(())
}

fn forget_old(db: &Connection, mirrored: &str) -> Result<(), StoreError> {
    let mut delete = db.prepare_cached(
        "DELETE FROM records WHERE seq IN (SELECT r.seq FROM records r JOIN sessions s USING (instance_id) \
             WHERE r.instance_id = ?1 AND r.kind = ?2 AND s.mirror_round IS NOT NULL \
             ORDER BY r.at DESC, r.seq DESC LIMIT -1 OFFSET ?3)",
    )?;
    for (kind, kept) in [("event", KEPT_EVENTS), ("command", KEPT_COMMANDS), ("checkpoint", KEPT_CHECKPOINTS)] {
        delete.execute(params![mirrored, kind, kept])?;
    }
    Ok(())
}

/// Replaces what is known of the daemons that speak to central.
pub(super) fn replace_hosts(db: &Connection, hosts: &[HostSeen]) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM hosts")?.execute([])?;
    let mut insert = db.prepare_cached("INSERT OR REPLACE INTO hosts (host_machine, last_seen) VALUES (?1, ?2)")?;
    for host in hosts {
        insert.execute(params![host.machine.as_str(), host.last_seen.micros()])?;
    }
    Ok(())
}

fn fact(db: &Connection, name: &str) -> Result<Option<i64>, StoreError> {
    Ok(db.prepare_cached("SELECT value FROM facts WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()?)
}

fn set_fact(db: &Connection, name: &str, value: i64) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO facts (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )?
    .execute(params![name, value])?;
    Ok(())
}
