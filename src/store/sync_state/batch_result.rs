//! Applying what central did with a batch to the sessions and records that it carried.
//!
//! A result counts only for the version that was sent: a change made during the push stays unsynced. Results are applied in
//! parts, each valid by itself; what is not applied after a crash is pushed again, which central's rules make harmless.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::domain::{InstanceId, TableState, Timestamp};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::sqlite::turns::ROWS;
use crate::store::sync_state::{activity_history, parked, record_outbox, selection};
use crate::store::tables::{activity_changes, metadata, session_work, sessions};

/// Why a record is parked whose session was deleted in central. It is released when the session exists again.
pub const WITHOUT_SESSION: &str = "its session is not in central, although it was; it was deleted there";

/// Central has these sessions: what is parked because one of them was deleted there is pushed again, at most
/// [`ROWS`] records a turn. Returns how many it freed.
pub(in crate::store) fn sessions_are_back<'a>(
    db: &Connection,
    ids: impl Iterator<Item = &'a InstanceId>,
) -> Result<usize, StoreError> {
    let waits = "parked_at IS NOT NULL AND parked_error = ?1";
    let any: bool = db
        .prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM records WHERE {waits})"))?
        .query_row([WITHOUT_SESSION], |row| row.get(0))?;
    if !any {
        return Ok(0);
    }
    Ok(db
        .prepare_cached(&format!(
            "UPDATE records SET parked_at = NULL, parked_error = NULL, retry_at = NULL, park_count = 0 WHERE seq IN \
                 (SELECT seq FROM records WHERE {waits} AND instance_id IN (SELECT value FROM json_each(?2)) LIMIT ?3)"
        ))?
        .execute(params![WITHOUT_SESSION, selection::json_ids(ids), ROWS as i64])?)
}

/// What central did with one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordResult {
    pub(crate) record_id: Uuid,
    /// Why central will never take it as it is; none: it has it.
    pub rejected: Option<String>,
}

fn settle_records(op: &Op<'_>, settled: &[RecordResult]) -> Result<(), StoreError> {
    let &Op { db, now, .. } = op;
    for RecordResult { record_id, rejected } in settled {
        match rejected {
            None => db
                .prepare_cached(
                    "UPDATE records SET unsynced = 0, parked_at = NULL, parked_error = NULL, retry_at = NULL \
                         WHERE record_id = ?1",
                )?
                .execute([record_id.as_bytes()])?,
            Some(error) => {
                let park_count: i64 = db
                    .prepare_cached("SELECT park_count FROM records WHERE record_id = ?1")?
                    .query_row([record_id.as_bytes()], |row| row.get(0))
                    .optional()?
                    .unwrap_or(0);
                db.prepare_cached(
                    "UPDATE records SET parked_at = ?2, parked_error = ?3, retry_at = ?4, park_count = ?5 \
                         WHERE record_id = ?1",
                )?
                .execute(params![
                    record_id.as_bytes(),
                    now.micros(),
                    error,
                    parked::retry_at(park_count, now).micros(),
                    park_count + 1
                ])?
            }
        };
    }
    Ok(())
}

/// What came of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchResult {
    pub(crate) sessions: Vec<SessionResult>,
    pub(crate) records: Vec<RecordResult>,
    /// Where central's ledger stands.
    pub acked_batch: i64,
    /// The numbers that the next batches will bear: a ledger at one of them is no sign of a restore. Two,
    /// because a batch is on its way by the time that the one before it is noted.
    pub next_batches: [i64; 2],
}

impl BatchResult {
    /// The same in parts, each true by itself: what is not noted any more is pushed again.
    pub(in crate::store) fn in_parts(mut self) -> Vec<Self> {
        let mut parts = Vec::new();
        while self.sessions.len() + self.records.len() > ROWS {
            let rest = self.sessions.split_off(ROWS.min(self.sessions.len()));
            let sessions = std::mem::replace(&mut self.sessions, rest);
            let rest = self.records.split_off((ROWS - sessions.len()).min(self.records.len()));
            let records = std::mem::replace(&mut self.records, rest);
            parts.push(Self { sessions, records, ..self });
        }
        parts.push(self);
        parts
    }
}

/// What central did with one version of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionResult {
    pub(crate) instance_id: InstanceId,
    pub(crate) version: i64,
    /// The heartbeat that was sent.
    pub heartbeat: Option<Timestamp>,
    /// The version of its work that central has, if that was sent and stored.
    pub work_version: Option<i64>,
    pub(crate) how: SessionOutcome,
}

/// What became of a session in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutcome {
    /// Central has this version, or something newer.
    Taken,
    /// Another client closed the session in central.
    ClosedElsewhere {
        /// When it was closed.
        closed_at: Timestamp,
    },
    /// Another session has this id there; this one needs a new id.
    Collided,
    /// Central will never take it as it is.
    Rejected {
        /// Why, in one line.
        error: String,
    },
}

impl SessionOutcome {
    /// Is the session not in central under its id, at least not yet?
    pub const fn leaves_none(&self) -> bool {
        matches!(self, Self::Collided | Self::Rejected { .. })
    }
}

/// The session that had to give up its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    pub(crate) from: InstanceId,
    pub(crate) to: InstanceId,
}

/// The metadata that hold the numbers of the next batches.
pub(in crate::store) const NEXT_BATCHES: [&str; 2] = ["next_batch", "next_batch_but_one"];

/// Applies what central did with a batch. Returns the sessions that got a new id.
pub(in crate::store) fn acknowledge(op: &Op<'_>, settling: &BatchResult) -> Result<Vec<Renamed>, StoreError> {
    let db = op.db;
    let mut renamed = Vec::new();
    let takes_activity = record_outbox::tables(db)?.is_some_and(|tables| tables.activity == TableState::Usable);
    for SessionResult { instance_id, version, heartbeat, work_version, how } in &settling.sessions {
        if let Some(version) = work_version {
            session_work::acknowledge(db, instance_id, *version)?;
            if takes_activity {
                activity_changes::acknowledge(db, instance_id, *version)?;
            }
        }
        match how {
            SessionOutcome::Taken => taken(op, instance_id, *version, *heartbeat)?,
            SessionOutcome::ClosedElsewhere { closed_at } => {
                taken(op, instance_id, *version, *heartbeat)?;
                closed_elsewhere(db, instance_id, *closed_at)?;
            }
            SessionOutcome::Collided => renamed.extend(give_up_id(op, instance_id)?),
            SessionOutcome::Rejected { error } => rejected(op, instance_id, *version, error)?,
        }
    }
    settle_records(op, &settling.records)?;
    metadata::set(db, "acked_batch", &settling.acked_batch)?;
    for (name, number) in NEXT_BATCHES.into_iter().zip(settling.next_batches) {
        metadata::set(db, name, &number)?;
    }
    Ok(renamed)
}

/// Frees the records that were parked because a session was not in central, if the batch shows that it is there
/// again; one turn of it. Says whether there may be more.
pub(in crate::store) fn free_returned(db: &Connection, settling: &BatchResult) -> Result<bool, StoreError> {
    let there = settling.sessions.iter().filter(|s| !s.how.leaves_none()).map(|s| &s.instance_id);
    Ok(sessions_are_back(db, there)? == ROWS)
}

/// A change made during the push has a newer version, so that its columns go on waiting. A heartbeat has none: central's is
/// kept, and is refreshed when it is too old. Central cuts a heartbeat from its future.
fn taken(op: &Op<'_>, id: &InstanceId, version: i64, heartbeat: Option<Timestamp>) -> Result<(), StoreError> {
    op.db
        .prepare_cached(
            "UPDATE sessions SET synced_heartbeat = coalesce(?3, synced_heartbeat), \
             synced_version = max(synced_version, ?2), \
             unsynced_since = iif(version = ?2, NULL, unsynced_since), \
             park_count = iif(version = ?2, 0, park_count) WHERE instance_id = ?1",
        )?
        .execute(params![id.as_str(), version, heartbeat.map(|at| at.min(op.now).micros())])?;
    Ok(())
}

/// A heartbeat that central lacks is pushed with the closed session: nothing refreshes it later.
pub(in crate::store) fn closed_elsewhere(
    db: &Connection,
    id: &InstanceId,
    closed_at: Timestamp,
) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE sessions SET status = 'closed', closed_at = ?2, pid = NULL, pid_started = NULL, version = version + 1, \
             unsynced_since = iif(last_heartbeat IS synced_heartbeat, unsynced_since, coalesce(unsynced_since, ?2)) \
             WHERE instance_id = ?1 AND status <> 'closed'",
    )?
    .execute(params![id.as_str(), closed_at.micros()])?;
    activity_history::record_activity(db, id, None, closed_at)
}

/// Central lacks what it once had of this session.
pub(in crate::store) fn offer_again(db: &Connection, id: &InstanceId, at: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE sessions SET unsynced_since = coalesce(unsynced_since, ?2), synced_version = 0 \
             WHERE instance_id = ?1 AND (unsynced_since IS NULL OR synced_version > 0)",
    )?
    .execute(params![id.as_str(), at.micros()])?;
    Ok(())
}

/// Another session has this id in central: the one of this host that has it too gets a new one.
pub(in crate::store) fn give_up_id(op: &Op<'_>, id: &InstanceId) -> Result<Option<Renamed>, StoreError> {
    let &Op { db, now, .. } = op;
    let Some(record) = sessions::exactly(db, id.as_str())?.filter(|record| !record.mirrored) else {
        return Ok(None);
    };
    let new_id = sessions::free_id(op, &record.session.project, record.session.instance_type)?;
    db.execute(
        "UPDATE sessions SET instance_id = ?2, version = version + 1, unsynced_since = coalesce(unsynced_since, ?3), \
             synced_version = 0, parked_at = NULL, parked_error = NULL, retry_at = NULL WHERE instance_id = ?1",
        params![id.as_str(), new_id.as_str(), now.micros()],
    )?;
    db.execute(
        "INSERT INTO aliases (old_id, instance_id, made_at) VALUES (?1, ?2, ?3)",
        params![id.as_str(), new_id.as_str(), now.micros()],
    )?;
    activity_changes::rename(db, id, &new_id)?;
    Ok(Some(Renamed { from: id.clone(), to: new_id }))
}

/// A change made since then may be one that central takes.
fn rejected(op: &Op<'_>, id: &InstanceId, version: i64, error: &str) -> Result<(), StoreError> {
    let &Op { db, now, .. } = op;
    let park_count = db
        .prepare_cached("SELECT park_count FROM sessions WHERE instance_id = ?1")?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    db.prepare_cached(
        "UPDATE sessions SET parked_at = ?3, parked_error = ?4, retry_at = ?5, park_count = ?6 \
             WHERE instance_id = ?1 AND version = ?2",
    )?
    .execute(params![
        id.as_str(),
        version,
        now.micros(),
        error,
        parked::retry_at(park_count, now).micros(),
        park_count + 1
    ])?;
    Ok(())
}
