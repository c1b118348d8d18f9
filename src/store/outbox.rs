//! What central lacks of this host's sessions, and what central says of it.
//!
//! There is no queue: a session whose newest version central does not have is the message, so the
//! backlog grows with the number of sessions, not of heartbeats.

use rusqlite::{Connection, OptionalExtension, params};

use super::sessions::{self, Record};
use super::{StoreError, mirror};
use crate::domain::{InstanceId, Timestamp};

/// How much waits for central.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub sessions: u64,
    /// When the oldest change that waits was made.
    pub oldest_at: Option<Timestamp>,
    pub parked: u64,
}

/// A session that central will never take as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    pub instance_id: InstanceId,
    pub error: String,
    pub parked_at: Timestamp,
}

/// What central did with one version of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub instance_id: InstanceId,
    pub version: i64,
    pub how: Settlement,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Central has this version, or something newer.
    Taken,
    /// Somebody else closed the session there.
    ClosedElsewhere { closed_at: Timestamp },
    /// Another session goes by this id there; this one needs a new id, from one of these draws.
    Collided { draws: [u64; 8] },
    /// Central will never take it as it is.
    Rejected { error: String },
}

/// The session that had to give up its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    pub from: InstanceId,
    pub to: InstanceId,
}

/// The sessions that central lacks, longest waiting first.
pub(super) fn pending(db: &Connection, limit: usize) -> Result<Vec<Record>, StoreError> {
    Ok(db
        .prepare_cached(&format!(
            "SELECT {} FROM sessions s WHERE unsynced_since IS NOT NULL AND parked_at IS NULL \
             ORDER BY unsynced_since LIMIT ?1",
            sessions::COLUMNS
        ))?
        .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], sessions::record)?
        .collect::<Result<Vec<_>, _>>()?)
}

pub(super) fn backlog(db: &Connection) -> Result<Backlog, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT count(*) FILTER (WHERE parked_at IS NULL), min(unsynced_since) FILTER (WHERE parked_at IS NULL), \
                 count(*) FILTER (WHERE parked_at IS NOT NULL) FROM sessions WHERE unsynced_since IS NOT NULL",
        )?
        .query_row([], |row| {
            Ok(Backlog {
                sessions: row.get::<_, i64>(0)?.unsigned_abs(),
                oldest_at: row.get::<_, Option<i64>>(1)?.map(Timestamp::from_micros),
                parked: row.get::<_, i64>(2)?.unsigned_abs(),
            })
        })?)
}

/// Takes in what central did with a batch. Returns the sessions that got a new id.
pub(super) fn settle(
    db: &Connection,
    settled: &[Settled],
    acked_batch: i64,
    at: Timestamp,
) -> Result<Vec<Renamed>, StoreError> {
    let mut renamed = Vec::new();
    for Settled { instance_id, version, how } in settled {
        match how {
            Settlement::Taken => taken(db, instance_id, *version)?,
            Settlement::ClosedElsewhere { closed_at } => {
                taken(db, instance_id, *version)?;
                closed_elsewhere(db, instance_id, *closed_at)?;
            }
            Settlement::Collided { draws } => renamed.extend(give_up_id(db, instance_id, draws, at)?),
            Settlement::Rejected { error } => rejected(db, instance_id, error, at)?,
        }
    }
    set_acked_batch(db, acked_batch)?;
    Ok(renamed)
}

/// A change made during the push has a newer version, and goes on waiting.
fn taken(db: &Connection, id: &InstanceId, version: i64) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE sessions SET unsynced_since = NULL WHERE instance_id = ?1 AND version = ?2")?
        .execute(params![id.as_str(), version])?;
    Ok(())
}

/// A heartbeat that arrived during the push goes on waiting, and travels with the closed session.
pub(super) fn closed_elsewhere(db: &Connection, id: &InstanceId, closed_at: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE sessions SET status = 'closed', closed_at = ?2, pid = NULL, pid_started = NULL, version = version + 1 \
             WHERE instance_id = ?1 AND status <> 'closed'",
    )?
    .execute(params![id.as_str(), closed_at.micros()])?;
    Ok(())
}

/// Central lacks what it once had of this session.
pub(super) fn offer_again(db: &Connection, id: &InstanceId, at: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE sessions SET unsynced_since = coalesce(unsynced_since, ?2) WHERE instance_id = ?1")?
        .execute(params![id.as_str(), at.micros()])?;
    Ok(())
}

/// Another session has this id in central: the one of this host that has it too gets a new one.
pub(super) fn give_up_id(
    db: &Connection,
    id: &InstanceId,
    draws: &[u64],
    at: Timestamp,
) -> Result<Option<Renamed>, StoreError> {
    let Some(record) = sessions::exactly(db, id.as_str())?.filter(|record| !record.mirrored) else {
        return Ok(None);
    };
    let new_id = sessions::free_id(db, &record.session.project, record.session.instance_type, draws)?;
    db.execute(
        "UPDATE sessions SET instance_id = ?2, version = version + 1, unsynced_since = coalesce(unsynced_since, ?3), \
             parked_at = NULL, parked_error = NULL WHERE instance_id = ?1",
        params![id.as_str(), new_id.as_str(), at.micros()],
    )?;
    db.execute(
        "INSERT INTO aliases (old_id, instance_id, made_at) VALUES (?1, ?2, ?3)",
        params![id.as_str(), new_id.as_str(), at.micros()],
    )?;
    Ok(Some(Renamed { from: id.clone(), to: new_id }))
}

fn rejected(db: &Connection, id: &InstanceId, error: &str, at: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE sessions SET parked_at = ?2, parked_error = ?3 WHERE instance_id = ?1")?
        .execute(params![id.as_str(), at.micros(), error])?;
    Ok(())
}

/// Central lost what it once had (it was restored from a backup): everything here waits again.
pub(super) fn forget_synced(db: &Connection, acked_batch: i64, at: Timestamp) -> Result<usize, StoreError> {
    let sessions = db.execute(
        "UPDATE sessions SET unsynced_since = ?1 WHERE unsynced_since IS NULL AND mirror_round IS NULL",
        [at.micros()],
    )?;
    mirror::read_anew(db)?;
    set_acked_batch(db, acked_batch)?;
    Ok(sessions)
}

pub(super) fn parked(db: &Connection) -> Result<Vec<Parked>, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT instance_id, parked_error, parked_at FROM sessions WHERE parked_at IS NOT NULL ORDER BY parked_at",
        )?
        .query_map([], |row| {
            Ok(Parked {
                instance_id: sessions::parsed(row, 0, InstanceId::parse)?,
                error: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
                parked_at: Timestamp::from_micros(row.get(2)?),
            })
        })?
        .collect::<Result<Vec<_>, _>>()?)
}

/// Lets parked sessions be pushed again, or gives up pushing them as they are; all of them if `ids`
/// is empty. Nothing happens unless all the ids are parked. Returns how many.
pub(super) fn unpark(db: &Connection, ids: &[String], drop: bool) -> Result<usize, StoreError> {
    let parked = parked(db)?;
    if let Some(unknown) = ids.iter().find(|id| !parked.iter().any(|p| p.instance_id.as_str() == **id)) {
        return Err(StoreError::NotFound(unknown.clone()));
    }
    let chosen = parked.iter().filter(|p| ids.is_empty() || ids.iter().any(|id| p.instance_id.as_str() == id));
    let mut count = 0;
    for p in chosen {
        count += db
            .prepare_cached(
                "UPDATE sessions SET parked_at = NULL, parked_error = NULL, \
                     unsynced_since = CASE WHEN ?2 THEN NULL ELSE unsynced_since END WHERE instance_id = ?1",
            )?
            .execute(params![p.instance_id.as_str(), drop])?;
    }
    Ok(count)
}

/// The newest batch of central's ledger that this store knows to be applied; 0 before the first.
pub(super) fn acked_batch(db: &Connection) -> Result<i64, StoreError> {
    let batch = db
        .prepare_cached("SELECT value FROM facts WHERE name = 'acked_batch'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(batch.unwrap_or(0))
}

fn set_acked_batch(db: &Connection, batch: i64) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO facts (name, value) VALUES ('acked_batch', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1",
    )?
    .execute([batch])?;
    Ok(())
}
