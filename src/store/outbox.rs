//! What central lacks of this host's sessions and their history, and what central says of it.
//!
//! There is no queue: a session whose newest version central does not have is the message, so the
//! backlog grows with the number of sessions and appended records, not of heartbeats.

use rusqlite::{Connection, OptionalExtension, params};

use uuid::Uuid;

use super::history::{self, SettledRecord};
use super::sessions::{self, Record};
use super::{StoreError, mirror};
use crate::domain::{HistoryRecord, InstanceId, Kind, Timestamp};

/// How much waits for central.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub sessions: u64,
    pub records: u64,
    /// When the oldest change that waits was made.
    pub oldest_at: Option<Timestamp>,
    pub parked: u64,
}

impl Backlog {
    pub const fn is_empty(&self) -> bool {
        self.sessions == 0 && self.records == 0
    }
}

/// A session, or a record of one, that central will never take as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    pub instance_id: InstanceId,
    pub record: Option<ParkedRecord>,
    pub error: String,
    pub parked_at: Timestamp,
}

/// Which record is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedRecord {
    pub record_id: Uuid,
    pub kind: Kind,
    pub record_type: String,
}

impl Parked {
    /// By what it is retried or dropped: the record's id, or else the session's.
    pub fn id(&self) -> String {
        self.record.as_ref().map_or_else(|| self.instance_id.to_string(), |record| record.record_id.to_string())
    }
}

/// What may go into one batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pending {
    pub sessions: Vec<Record>,
    /// Of these sessions, or of such as central has, in the order in which they were appended.
    pub records: Vec<HistoryRecord>,
    /// Whether more waits.
    pub more: bool,
    /// Where the last of the sessions stands among those that wait, if others may stand behind it.
    pub last: Option<Place>,
}

/// A place among the sessions that wait. One whose version is on its way keeps its place until that is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    since: i64,
    row: i64,
}

impl Place {
    const FIRST: Self = Self { since: i64::MIN, row: i64::MIN };
}

/// What came of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settling {
    pub sessions: Vec<Settled>,
    pub records: Vec<SettledRecord>,
    /// Where central's ledger stands.
    pub acked_batch: i64,
    /// The numbers that the next batches will bear: a ledger that stands there is no surprise, whoever asks. Two,
    /// because a batch is on its way by the time that the one before it is noted.
    pub next_batches: [i64; 2],
}

/// As many rows as the writer takes note of at once: whoever else writes waits no longer than that.
const NOTED_AT_ONCE: usize = 1000;

impl Settling {
    /// The same in parts, each true by itself: what is not noted any more is pushed again.
    pub(super) fn in_parts(mut self) -> Vec<Self> {
        let mut parts = Vec::new();
        while self.sessions.len() > NOTED_AT_ONCE {
            let rest = self.sessions.split_off(NOTED_AT_ONCE);
            let sessions = std::mem::replace(&mut self.sessions, rest);
            parts.push(Self { sessions, records: Vec::new(), ..self });
        }
        parts.push(self);
        parts
    }
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

impl Settlement {
    /// Is the session not in central under its id, at least not yet?
    pub const fn leaves_none(&self) -> bool {
        matches!(self, Self::Collided { .. } | Self::Rejected { .. })
    }
}

/// The session that had to give up its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    pub from: InstanceId,
    pub to: InstanceId,
}

/// The sessions that central lacks, longest waiting first, and the records that may travel beside them.
pub(super) fn pending(db: &Connection, limit: usize) -> Result<Pending, StoreError> {
    let Pending { sessions, more: full, last, .. } = pending_behind(db, Place::FIRST, limit)?;
    let history::Waiting { records, more } = history::pending(db, &sessions, !full, limit)?;
    Ok(Pending { sessions, records, more: full || more, last })
}

/// The sessions that central lacks and that have not waited as long as the one at that place; no records.
pub(super) fn pending_behind(db: &Connection, place: Place, limit: usize) -> Result<Pending, StoreError> {
    let mut last = None;
    let sessions = db
        .prepare_cached(&format!(
            "SELECT {}, s.rowid FROM sessions s WHERE unsynced_since IS NOT NULL AND parked_at IS NULL \
                 AND (unsynced_since, s.rowid) > (?1, ?2) ORDER BY unsynced_since, s.rowid LIMIT ?3",
            sessions::COLUMNS
        ))?
        .query_map(params![place.since, place.row, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            last = Some(Place { since: row.get(18)?, row: row.get(24)? });
            sessions::record(row)
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let full = sessions.len() >= limit;
    Ok(Pending { sessions, records: Vec::new(), more: full, last: last.filter(|_| full) })
}

/// Does anything wait that could travel now?
pub(super) fn any_waits(db: &Connection) -> Result<bool, StoreError> {
    Ok(!pending_behind(db, Place::FIRST, 1)?.sessions.is_empty() || history::any_waits(db)?)
}

pub(super) fn backlog(db: &Connection) -> Result<Backlog, StoreError> {
    let (records, oldest_record) = history::backlog(db)?;
    Ok(db
        .prepare_cached(
            // Each part reads one index and no row: this is asked while tens of thousands wait.
            "SELECT (SELECT count(*) FROM sessions WHERE unsynced_since IS NOT NULL), \
                 (SELECT count(*) FROM sessions WHERE parked_at IS NOT NULL AND +unsynced_since IS NOT NULL), \
                 (SELECT unsynced_since FROM sessions WHERE unsynced_since IS NOT NULL AND parked_at IS NULL \
                     ORDER BY unsynced_since LIMIT 1), \
                 (SELECT count(*) FROM records WHERE parked_at IS NOT NULL)",
        )?
        .query_row([], |row| {
            let (unsynced, parked): (i64, i64) = (row.get(0)?, row.get(1)?);
            let oldest_session = row.get::<_, Option<i64>>(2)?.map(Timestamp::from_micros);
            Ok(Backlog {
                sessions: (unsynced - parked).unsigned_abs(),
                records,
                oldest_at: [oldest_session, oldest_record].into_iter().flatten().min(),
                parked: (parked + row.get::<_, i64>(3)?).unsigned_abs(),
            })
        })?)
}

/// The facts that hold the numbers of the next batches.
const NEXT_BATCHES: [&str; 2] = ["next_batch", "next_batch_but_one"];

/// Takes in what central did with a batch. Returns the sessions that got a new id.
pub(super) fn settle(db: &Connection, settling: &Settling, at: Timestamp) -> Result<Vec<Renamed>, StoreError> {
    let mut renamed = Vec::new();
    for Settled { instance_id, version, how } in &settling.sessions {
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
    history::settle(db, &settling.records, at)?;
    set_fact(db, "acked_batch", &settling.acked_batch)?;
    for (name, number) in NEXT_BATCHES.into_iter().zip(settling.next_batches) {
        set_fact(db, name, &number)?;
    }
    Ok(renamed)
}

/// A change made during the push has a newer version, so that its columns go on waiting.
fn taken(db: &Connection, id: &InstanceId, version: i64) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE sessions SET synced_version = max(synced_version, ?2), \
             unsynced_since = iif(version = ?2, NULL, unsynced_since) WHERE instance_id = ?1",
    )?
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
    db.prepare_cached(
        "UPDATE sessions SET unsynced_since = coalesce(unsynced_since, ?2), synced_version = 0 WHERE instance_id = ?1",
    )?
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
             synced_version = 0, parked_at = NULL, parked_error = NULL WHERE instance_id = ?1",
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

/// Central lost what it once had (it was restored from a backup): everything here waits again. Returns how many
/// sessions, and records.
pub(super) fn forget_synced(db: &Connection, acked_batch: i64, at: Timestamp) -> Result<(usize, usize), StoreError> {
    let sessions = db.execute(
        "UPDATE sessions SET unsynced_since = coalesce(unsynced_since, ?1), synced_version = 0 \
             WHERE mirror_round IS NULL AND (unsynced_since IS NULL OR synced_version > 0)",
        [at.micros()],
    )?;
    let records = history::forget_synced(db)?;
    mirror::read_anew(db)?;
    set_fact(db, "acked_batch", &acked_batch)?;
    Ok((sessions, records))
}

pub(super) fn parked(db: &Connection) -> Result<Vec<Parked>, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT instance_id, parked_error, parked_at, NULL, NULL, NULL FROM sessions WHERE parked_at IS NOT NULL \
             UNION ALL \
             SELECT instance_id, parked_error, parked_at, record_id, kind, type FROM records \
                 WHERE parked_at IS NOT NULL ORDER BY 3",
        )?
        .query_map([], |row| {
            let record_id = row.get::<_, Option<[u8; 16]>>(3)?.map(Uuid::from_bytes);
            let kind = row.get::<_, Option<String>>(4)?.and_then(|kind| Kind::parse(&kind));
            let record_type = row.get::<_, Option<String>>(5)?.unwrap_or_default();
            Ok(Parked {
                instance_id: sessions::parsed(row, 0, InstanceId::parse)?,
                record: record_id.zip(kind).map(|(record_id, kind)| ParkedRecord { record_id, kind, record_type }),
                error: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
                parked_at: Timestamp::from_micros(row.get(2)?),
            })
        })?
        .collect::<Result<Vec<_>, _>>()?)
}

/// Lets what is parked be pushed again, or gives up pushing it as it is; all of it if `ids` is empty.
/// Nothing happens unless all the ids are parked. Returns how many.
pub(super) fn unpark(db: &Connection, ids: &[String], drop: bool) -> Result<usize, StoreError> {
    let parked = parked(db)?;
    let by_id: std::collections::HashMap<String, &Parked> = parked.iter().map(|p| (p.id(), p)).collect();
    if let Some(unknown) = ids.iter().find(|id| !by_id.contains_key(id.as_str())) {
        return Err(StoreError::NotParked(unknown.clone()));
    }
    let mut count = 0;
    for (_, p) in by_id.iter().filter(|(id, _)| ids.is_empty() || ids.contains(id)) {
        count += match &p.record {
            Some(record) => history::unpark(db, record.record_id, drop)?,
            None => unpark_session(db, &p.instance_id, drop)?,
        };
    }
    Ok(count)
}

fn unpark_session(db: &Connection, id: &InstanceId, drop: bool) -> Result<usize, StoreError> {
    Ok(db
        .prepare_cached(
            "UPDATE sessions SET parked_at = NULL, parked_error = NULL, \
                 unsynced_since = CASE WHEN ?2 THEN NULL ELSE unsynced_since END WHERE instance_id = ?1",
        )?
        .execute(params![id.as_str(), drop])?)
}

/// Where this store knows central's ledger to stand: at the newest batch known to be applied, 0 before the first,
/// or at one that was to follow.
pub(super) fn ledger(db: &Connection) -> Result<Ledger, StoreError> {
    let fact = |name: &str| -> Result<Option<i64>, StoreError> {
        let mut statement = db.prepare_cached("SELECT value FROM facts WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    };
    let next = NEXT_BATCHES.into_iter().filter_map(|name| fact(name).transpose()).collect::<Result<_, _>>()?;
    Ok(Ledger { acked: fact("acked_batch")?.unwrap_or(0), next })
}

/// What a store knows of central's ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub acked: i64,
    pub next: Vec<i64>,
}

pub(super) fn set_fact(db: &Connection, name: &str, value: &dyn rusqlite::ToSql) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO facts (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )?
    .execute(params![name, value])?;
    Ok(())
}
